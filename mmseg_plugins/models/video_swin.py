"""Video Swin (Liu et al. 2021b) over windows, on torchvision's implementation."""

from collections.abc import Sequence

from mmseg.registry import MODELS
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import PatchEmbed3d, SwinTransformer3d

from ..acceleration import checkpoint_blocks
from ..checkpoints import video_swin_naming
from ..errors import UserError
from .sourced import SourcedEncoder, replace_sizes

BASE = dict(patch_size=(2, 4, 4), window_size=(8, 7, 7), embed_dim=128, depths=(2, 2, 18, 2),
            num_heads=(4, 8, 16, 32))


@MODELS.register_module()
class VideoSwin(SourcedEncoder):
    """Video Swin over a window: the depth position of each stage's output that has slice S // 2 feeds the decoder.

    Its patch embedding spans 2 slices, so depth stays an axis of the features: ceil(S / 2) positions
    throughout, the last of which is half padding where S is odd. A source is Video Swin's own checkpoint (the
    kernel's depth is kept) or a 2D Swin's, whose kernel is inflated over 2 slices and whose position tables over
    depth, as its authors do.

    Args:
        slices: S, any number; the paper has 5 and 9.
        channels: C, image channels.
        inflation: of a 2D source; of a video one only `random` makes a difference.
        source: path of a checkpoint as published, or None for random weights.
        img_size: of no consequence, windows are padded; there so that all encoders take the same.
        drop_path_rate: stochastic depth rate.
        with_cp: activation checkpointing, block by block.
        sizes: replace VideoSwin-B's patch_size, window_size (depth, height, width), embed_dim, depths and
            num_heads.
        init_cfg: mmengine's; leave it out, `source` is the way to load weights.

    Input: (B, C * S, H, W), channel-major. Output: four maps (B, E * 2^i, H / 2^(i+2), W / 2^(i+2)).

    Raises:
        UserError: unknown inflation, or a source that does not fit.
    """

    def __init__(self, slices: int = 5, channels: int = 1, inflation: str = 'centering',
                 source: str | None = None, img_size: int | Sequence[int] = 512, drop_path_rate: float = 0.2,
                 with_cp: bool = False, sizes: dict | None = None, init_cfg: dict | None = None):
        super().__init__(slices, channels, inflation, source, img_size, init_cfg)

        def embed(patch_size, embed_dim, norm_layer):
            return PatchEmbed3d(patch_size, channels, embed_dim, norm_layer)

        self.sizes = {key: list(value) if isinstance(value, Sequence) else value
                      for key, value in replace_sizes('Video Swin', BASE, sizes).items()}
        try:
            self.model = SwinTransformer3d(stochastic_depth_prob=drop_path_rate, patch_embed=embed, **self.sizes)
        except Exception as error:  # torchvision has no one class for sizes that do not go together
            raise UserError(f'Video Swin cannot be built with sizes={self.sizes} '
                            f'({" ".join(str(error).split())[:200]}); choose others') from error
        self.naming = video_swin_naming(self.model)
        # Taps come before the final norm and head: parameters there would never get a gradient.
        self.model.norm, self.model.head = nn.Identity(), nn.Identity()
        if with_cp:
            checkpoint_blocks(block for stage in self.model.features[::2] for block in stage)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        window = inputs.unflatten(1, (self.channels, self.slices))
        centre = self.slices // 2 // self.sizes['patch_size'][0]
        x = self.model.pos_drop(self.model.patch_embed(window))  # (B, D, H, W, E)
        maps = []
        for number, part in enumerate(self.model.features):
            x = part(x)
            if number % 2 == 0:  # a stage, not the patch merging behind it
                maps.append(x[:, centre].movedim(-1, 1).contiguous())
        return tuple(maps)
