"""Encoders with an inflated patch embedding, on timm's models.

Where the patch embedding spans the whole window, a Conv3d with depth kernel S equals a Conv2d over
C * S channels: the 3D model is the 2D model with a wider first layer, and everything behind it is
timm's own code.
"""

from collections.abc import Sequence

import timm
import torch
from mmseg.registry import MODELS
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torch.nn.functional import pad

from ..acceleration import checkpoint_blocks
from ..checkpoints import Naming, timm_naming
from ..computed import compute_weight
from ..errors import UserError, check_number, nearest
from ..inflation import parse_inflation, trained_form
from ..keys import nearest_multiples, sides
from ..lifting import Lifting, find_holders, lift_blocks, parse_lifting, token_slices
from ..tuning import parse_tuning
from .sourced import SourcedEncoder

CHOOSE = 'choose a vision Transformer (ViT, BEiT, EVA, Swin, ...)'


class InflatedEncoder(SourcedEncoder):
    """A timm model over windows, its patch embedding inflated from a 2D source (Zhang et al. 2022).

    Args:
        model: timm's model name.
        slices: S, slices per window; 1 is the 2D baseline.
        channels: C, image channels.
        inflation: registered inflation method; matters only with a source.
        source: path of a 2D checkpoint as published, or None for random weights.
        img_size: input height and width in pixels (one number: square).
        out_indices: four feature taps, block (ViT) or stage (Swin) numbers from 0; a ViT's may repeat.
        drop_path_rate: stochastic depth rate.
        lifting: how depth enters the blocks (mmseg_plugins/lifting); `kernel`: not at all, and the patch embedding
            spans the window. With another it spans one slice, or those of a tubelet.
        tuning: which of the source's weights are trained, and how fast (mmseg_plugins/tuning.py).
        layer_scale: what the model's layer scale, where it has one, starts from without a source; None: timm's.
        with_cp: activation checkpointing, block by block (less memory, slower).
        sizes: explicit sizes that replace timm's (patch_size, embed_dim, depth(s), num_heads, ...).
        init_cfg: mmengine's; leave it out, `source` is the way to load weights.

    Input: (B, C * S, H, W), channel-major. Output: four maps (B, E_i, H_i, W_i).

    Raises:
        UserError: unknown model or inflation, a source that does not fit, or an inflation that has no slices to
            spread a kernel over.
    """
    takes_forms = True

    def __init__(self, model: str, slices: int = 5, channels: int = 1, inflation: str = 'centering',
                 source: str | None = None, img_size: int | Sequence[int] = 512,
                 out_indices: Sequence[int] = (3, 5, 7, 11), drop_path_rate: float = 0.0,
                 lifting: str = 'kernel', tuning: str = 'full', layer_scale: float | None = None,
                 with_cp: bool = False, sizes: dict | None = None, init_cfg: dict | None = None):
        super().__init__(slices, channels, inflation, source, img_size, init_cfg)
        if layer_scale is not None:
            check_number('layer_scale', layer_scale, 0)
        self.layer_scale = layer_scale
        kind, options = parse_lifting(lifting)
        self.lifting: Lifting | None = None
        self.kernel_slices = token_slices(lifting, slices)
        # without a source, as a trained model is built again, nothing is inflated
        if kind and source and self.kernel_slices == 1 and inflation not in ('centering', 'none', 'random'):
            raise UserError(f'inflation {inflation!r} is for a kernel that spans several slices, and with lifting '
                            f'{lifting!r} it spans one; leave one of the two out')
        model = model.removeprefix('timm/') if isinstance(model, str) else model
        if not isinstance(model, str) or not timm.is_model(model):
            raise UserError(f'timm has no model {model!r}{nearest(model, timm.list_models())}'[:300])
        self.name, self.sizes = model, dict(sizes or {})
        self.out_indices = tuple(out_indices)
        try:
            self.model = timm.create_model(model, pretrained=False, num_classes=0, drop_path_rate=drop_path_rate,
                                           **self.timm_sizes)
        except Exception as error:  # timm has no one class for sizes that a model cannot have
            reason = ' '.join(str(error).split())[:200] or 'size not divisible'
            raise UserError(f'timm model {model!r} cannot be built for this image size and these sizes '
                            f'({reason}); choose another size or a vision Transformer') from error
        self._check_model()
        # Taps come before the final norm and head: parameters there would never get a gradient.
        self.model.prune_intermediate_layers(sorted(set(self.out_indices)), prune_norm=True,
                                             prune_head=True)
        if kind:
            self._lift(lifting, kind, options)
        choose, options = parse_tuning(tuning)
        self.rate_factors = {f'model.{name}': factor for name, factor in choose(self, **options).items()}
        if form := trained_form(inflation):
            projection = self.model.patch_embed.proj
            self.form = form(projection.out_channels, self.kernel_slices, **parse_inflation(inflation)[1])
            projection.weight.requires_grad_(self.starts_random)
            compute_weight(projection, self.form)
        self.rate_factors |= {f'{name}.{own}': part.lr_mult for name, part in self.named_modules()
                              if hasattr(part, 'lr_mult') for own, _ in part.named_parameters()}
        if with_cp:
            blocks = [block for name, part in self.model.named_modules() if name.split('.')[-1] == 'blocks'
                      for block in part.children()]
            if not blocks:
                raise UserError(f'timm model {model!r} has no `blocks` to checkpoint; leave '
                                'experiment.activation_checkpointing out')
            checkpoint_blocks(blocks)

    def _lift(self, name: str, kind: type[Lifting], options: dict[str, int]) -> None:
        """Give the model's blocks, or its maps, the lifting."""
        if kind.of_blocks and not find_holders(self.model):
            raise UserError(f'lifting {name!r} works in the blocks of a ViT that all see the same tokens, or of '
                            f'a Swin; timm model {self.name!r} has no such blocks; choose `late`, or another '
                            'encoder')
        before, behind = self.padding
        planes, centre = ((before + count) // self.kernel_slices
                          for count in (self.slices + behind, self.slices // 2))
        widths = [self.model.feature_info[tap]['num_chs'] for tap in self.out_indices]
        try:
            self.lifting = kind(self.model, planes, centre, widths, **options)
        except UserError as error:
            raise UserError(f'lifting {name}: {error}') from None
        self.lifting.start(self.model)
        lift_blocks(self.model, self.lifting)

    @property
    def padding(self) -> tuple[int, int]:
        """How often the first and the last slice are repeated, so that a tubelet has the centre slice centred."""
        before = (self.kernel_slices // 2 - self.slices // 2) % self.kernel_slices
        return before, -(before + self.slices) % self.kernel_slices

    def _check_model(self) -> None:
        """Refuse a model that cannot be inflated, tapped, or fed with this size."""
        projection = getattr(getattr(self.model, 'patch_embed', None), 'proj', None)
        if not isinstance(projection, nn.Conv2d) or projection.in_channels != self.timm_sizes['in_chans']:
            raise UserError(f'timm model {self.name!r} has no patch embedding that is one convolution: there is '
                            f'nothing to inflate; {CHOOSE}')
        levels = getattr(self.model, 'feature_info', ())
        if not levels or not hasattr(self.model, 'prune_intermediate_layers'):
            raise UserError(f'timm model {self.name!r} gives no features of its blocks or stages; {CHOOSE}')
        for patch, side in zip(projection.stride, sides(self.img_size), strict=True):
            if side % patch:
                raise UserError(f'timm model {self.name!r}: input size {side} is no multiple of its patch '
                                f'{patch}: pixels would be lost; set experiment.img_size to '
                                f'{nearest_multiples(side, patch)}')
        taps = self.out_indices
        if len(taps) != 4 or not all(type(tap) is int and 0 <= tap < len(levels) for tap in taps):
            raise UserError(f'out_indices={taps!r} must be four whole numbers from 0 to {len(levels) - 1}, '
                            f'blocks or stages of timm model {self.name!r}')

    @property
    def timm_sizes(self) -> dict:
        """What the timm model is created with."""
        return dict(in_chans=self.channels * self.kernel_slices, img_size=self.img_size, **self.sizes)

    @property
    def naming(self) -> Naming:
        return timm_naming(self.name, **self.timm_sizes)

    def init_weights(self) -> None:
        """Load and inflate the source; without one, timm's own initialization stays, but for `layer_scale`."""
        super().init_weights()
        if self.lifting is not None:
            self.lifting.start(self.model)
        if not self.source and self.layer_scale is not None:
            for name, parameter in self.model.named_parameters():
                if name.split('.')[-1].startswith('gamma'):  # of LayerScale, or BEiT's own gamma_1 and gamma_2
                    nn.init.constant_(parameter, self.layer_scale)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        unique = sorted(set(self.out_indices))
        if self.lifting is not None:
            inputs = self._split_planes(inputs)
        maps = self.model.forward_intermediates(inputs, indices=unique, norm=False,
                                                intermediates_only=True, output_fmt='NCHW')
        maps = [maps[unique.index(i)] for i in self.out_indices]
        if self.lifting is not None:
            maps = [self.lifting.fuse(number, planes.unflatten(0, (-1, self.lifting.planes)))
                    for number, planes in enumerate(maps)]
        return tuple(maps)

    def _split_planes(self, inputs: Tensor) -> Tensor:
        """Slices or tubelets as images of their own: (B, C * S, H, W) -> (B * D, C * t, H, W)."""
        before, behind = self.padding
        window = inputs.unflatten(1, (self.channels, self.slices))
        window = torch.cat([window[:, :, :1].expand(-1, -1, before, -1, -1), window,
                            window[:, :, -1:].expand(-1, -1, behind, -1, -1)], 2)
        tubelets = window.unflatten(2, (self.lifting.planes, self.kernel_slices)).movedim(2, 1)
        return tubelets.flatten(2, 3).flatten(0, 1)


@MODELS.register_module()
class InflatedViT(InflatedEncoder):
    """BEiT-B/16, DINO's ViT-B/16 and any other timm ViT: class token dropped, no final norm.

    The default taps are the paper's: after blocks 4, 6, 8 and 12. See InflatedEncoder.
    """

    def __init__(self, model: str = 'beit_base_patch16_224', **kwargs):
        super().__init__(model, **kwargs)


class PaddedSwinBlock(SwinTransformerBlock):
    """timm's block, padded to whole windows before it is shifted rather than after.

    That, and shifting where one window covers the map, is how Swin's segmentation code and with it the
    paper have it; on maps that are no multiple of the window the features differ.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        padded = pad(x, (0, 0, 0, -width % self.window_size[1], 0, -height % self.window_size[0]))
        return super()._attn(padded)[:, :height, :width]


@MODELS.register_module()
class InflatedSwin(InflatedEncoder):
    """Swin-B and any other timm model in stages: outputs before patch merging, a fresh LayerNorm on each.

    The paper's decoder follows mmseg's Swin, which norms every tap. See InflatedEncoder.
    """

    def __init__(self, model: str = 'swin_base_patch4_window7_224',
                 out_indices: Sequence[int] = (0, 1, 2, 3), drop_path_rate: float = 0.3,
                 sizes: dict | None = None, **kwargs):
        if model.removeprefix('timm/').startswith('swin_'):
            sizes = dict(always_partition=True) | (sizes or {})
        super().__init__(model, out_indices=out_indices, drop_path_rate=drop_path_rate, sizes=sizes, **kwargs)
        for block in self.model.modules():
            if type(block) is SwinTransformerBlock:
                block.__class__ = PaddedSwinBlock
        widths = [self.model.feature_info[i]['num_chs'] for i in self.out_indices]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        maps = super().forward(inputs)
        return tuple(norm(x.movedim(1, -1)).movedim(-1, 1).contiguous()
                     for norm, x in zip(self.norms, maps, strict=True))


def is_inflated(encoder: dict) -> bool:
    """Whether an encoder's config is of one that takes a lifting and a tuning: a 2D model of timm, inflated."""
    return issubclass(MODELS.get(encoder['type']), InflatedEncoder)


def timm_encoder(name: str, img_size: int | Sequence[int], model: dict) -> dict:
    """The parts of a segmentor's config that a timm model takes the place of.

    A model of one resolution gets taps after a third, a half, two thirds and all of its blocks, as the
    paper's BEiT, and a pyramid; one in stages gets a tap on each. The decoder keeps its kind.

    Args:
        name: timm's.
        img_size: input size in pixels.
        model: the config it goes into.

    Returns:
        `backbone`, `neck`, `decode_head`.

    Raises:
        UserError: the model cannot be inflated; says why.
    """
    with torch.device('meta'):
        levels = InflatedEncoder(name, slices=1, img_size=img_size, out_indices=(0,) * 4).model.feature_info
    head, depth = dict(model['decode_head']), len(levels)
    if levels[0]['reduction'] != levels[-1]['reduction']:
        if depth < 4:
            raise UserError(f'timm model {name!r} has {depth} stages, the decoder needs four; {CHOOSE}')
        kind, taps, neck = 'InflatedSwin', range(depth - 4, depth), None
    else:
        kind, taps = 'InflatedViT', [max(round(depth * part) - 1, 0) for part in (1 / 3, 1 / 2, 2 / 3, 1)]
        neck = dict(type='Feature2Pyramid', embed_dim=levels[0]['num_chs'], rescales=[4, 2, 1, 0.5],
                    norm_cfg=head['norm_cfg']) if head.get('type') != 'PooledHead' else None
    head['in_channels'] = [levels[tap]['num_chs'] for tap in taps]
    kept = {key: model['backbone'][key] for key in ('drop_path_rate', 'layer_scale', 'with_cp')
            if key in model['backbone']}
    return dict(backbone=dict(type=kind, model=name, out_indices=list(taps), **kept), neck=neck, decode_head=head)
