"""SwinUNet (Cao et al. 2021, arXiv:2105.05537): a U of Swin blocks, on timm's Swin.

The decoder mirrors the encoder without its last stage: at each level a patch expanding layer, a linear layer on it
and the encoder's features of that level, and blocks like the encoder's, which start from its weights too.
"""

import re
from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from timm.layers import trunc_normal_
from timm.models.swin_transformer import SwinTransformer, SwinTransformerStage, checkpoint_filter_fn
from torch import Tensor, nn

from ...acceleration import checkpoint_blocks
from ...checkpoints import Naming, State
from ...errors import UserError
from ...keys import nearest_multiples, sides
from ..sourced import SourcedEncoder, replace_sizes

TINY = dict(patch_size=4, window_size=None, embed_dim=96, depths=(2, 2, 2, 2), num_heads=(3, 6, 12, 24))


class PatchExpand(nn.Module):
    """(B, H, W, E) -> (B, scale H, scale W, F): a token becomes scale x scale (Cao et al. 2021, section 3.5)."""

    def __init__(self, dim: int, out_dim: int, scale: int):
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(dim, scale * scale * out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x).unflatten(3, (self.scale, self.scale, -1))  # (B, H, W, down, right, F)
        return self.norm(x.transpose(2, 3).flatten(3, 4).flatten(1, 2))


class MirroredSwin(SwinTransformer):
    """timm's Swin and, for each stage but the last, blocks like its own that decode at that level."""

    def __init__(self, **sizes):
        super().__init__(num_classes=0, **sizes)
        self.decoder = nn.ModuleList(
            SwinTransformerStage(
                dim, dim, stage.output_resolution, depth, downsample=False, num_heads=heads,
                window_size=sizes['window_size'],
                drop_path=[getattr(block.drop_path1, 'drop_prob', 0.0) for block in stage.blocks])
            for stage, dim, depth, heads in zip(
                self.layers[:-1], (info['num_chs'] for info in self.feature_info), sizes['depths'],
                sizes['num_heads'], strict=False))

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> the last stage's tokens, normed, and what goes into the others' blocks; (B, h, w, E)."""
        x, skips = self.patch_embed(image), []
        for stage in self.layers:
            x = stage.downsample(x)
            skips.append(x)
            x = stage.blocks(x)
        return self.norm(x), skips[:-1]


@MODELS.register_module()
class SwinUNet(SourcedEncoder):
    """SwinUNet without its last expansion, which is the head's (Cao et al. 2021).

    Args:
        slices: S, slices per window; 1 is the published network, more are inflated as Swin's.
        channels: C, image channels.
        inflation: registered inflation method.
        source: path of a Swin's checkpoint as published, `swin_tiny_patch4_window7_224.pth`, or None for random
            weights. Encoder stage k also initializes decoder stage 3 - k; a stage's blocks beyond the network's
            are left out.
        img_size: input height and width in pixels (one number: square).
        drop_path_rate: stochastic depth rate, of encoder and decoder alike.
        with_cp: activation checkpointing, block by block.
        sizes: replace the published patch_size, window_size, embed_dim, depths and num_heads. A window of None is
            the whole map of the last stage, as the authors have it: 7 at 224 x 224 pixels, 12 at 384 x 384.
        init_cfg: mmengine's; leave it out, `source` is the way to load weights.

    Input: (B, C * S, H, W), channel-major. Output: one map (B, E, H / patch, W / patch).

    Raises:
        UserError: a size that is not whole windows, an unknown inflation, or a source that does not fit.
    """

    def __init__(self, slices: int = 1, channels: int = 1, inflation: str = 'centering', source: str | None = None,
                 img_size: int | Sequence[int] = 224, drop_path_rate: float = 0.2, with_cp: bool = False,
                 sizes: dict | None = None, init_cfg: dict | None = None):
        super().__init__(slices, channels, inflation, source, img_size, init_cfg)
        self.sizes = replace_sizes('SwinUNet', TINY, sizes)
        self.sizes['window_size'] = self._fit_window()
        self.model = MirroredSwin(in_chans=channels * slices, img_size=self.img_size,
                                  drop_path_rate=drop_path_rate, **self.sizes)
        # Beside the model, whose weights a source has, what starts afresh.
        widths = [info['num_chs'] for info in self.model.feature_info]
        self.expand = nn.ModuleList(PatchExpand(2 * width, width, 2) for width in widths[:-1])
        self.fuse = nn.ModuleList(nn.Linear(2 * width, width) for width in widths[:-1])
        self.norm = nn.LayerNorm(widths[0])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if with_cp:
            checkpoint_blocks(block for stages in (self.model.layers, self.model.decoder)
                              for stage in stages for block in stage.blocks)

    def _fit_window(self) -> tuple[int, int]:
        """Height and width of the windows that all stages' maps are made of."""
        window, coarse = self.sizes['window_size'], self.sizes['patch_size'] * 2 ** (len(self.sizes['depths']) - 1)
        size = sides(self.img_size)
        windows = sides(window) if window else [side // coarse for side in size]
        for side, own in zip(size, windows, strict=True):
            step = coarse * (own if window else 1)
            if side % step:
                what, other = ((f'{coarse} x window {own}', ', or leave sizes.window_size out') if window else
                               (coarse, ''))
                raise UserError(f'SwinUNet: input size {side} is no multiple of {what}; set experiment.img_size '
                                f'to {nearest_multiples(side, step)}{other}')
        return tuple(windows)

    @property
    def naming(self) -> Naming:
        depths = self.sizes['depths']

        def translate(source: State) -> State:
            state = {}
            for key, value in source.items():
                block = re.match(r'layers\.(\d+)\.blocks\.(\d+)\.', key)
                if block and int(block[1]) < len(depths) and int(block[2]) >= depths[int(block[1])]:
                    continue
                state[key] = value
                if block and int(block[1]) < len(depths) - 1:
                    state[key.replace('layers.', 'decoder.', 1)] = value
            return checkpoint_filter_fn(state, self.model)
        return Naming(frozenset(self.model.state_dict()), translate, leaves={
            r'^layers\.\d+\.blocks\.\d+\.': f'block beyond those of its stage, {depths}'})

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        x, skips = self.model.encode(inputs)
        for expand, fuse, stage, skip in reversed(list(
                zip(self.expand, self.fuse, self.model.decoder, skips, strict=True))):
            x = stage(fuse(torch.cat([expand(x), skip], 3)))
        return self.norm(x).movedim(3, 1).contiguous(),


@MODELS.register_module()
class SwinUNetHead(BaseDecodeHead):
    """SwinUNet's last expansion, by the patch size, and a linear classifier without bias (Cao et al. 2021).

    Args:
        in_channels: width of the map.
        channels: width at full size.
        patch_size: of the patch embedding.

    Input: one map (B, E, H / patch, W / patch). Output: logits (B, K, H, W).
    """

    def __init__(self, in_channels: int = 96, channels: int = 96, patch_size: int = 4, dropout_ratio: float = 0.0,
                 init_cfg: dict | None = None, **kwargs):
        super().__init__(in_channels=in_channels, channels=channels, dropout_ratio=dropout_ratio,
                         init_cfg=init_cfg, **kwargs)
        self.expand = PatchExpand(in_channels, channels, patch_size)
        trunc_normal_(self.expand.expand.weight, std=0.02)
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 1, bias=False)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        x = self._transform_inputs(inputs)
        return self.cls_seg(self.expand(x.movedim(1, 3)).movedim(3, 1))
