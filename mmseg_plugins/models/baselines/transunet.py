"""TransUNet (Chen et al. 2021, arXiv:2102.04306): a ResNet, a ViT on its features, an upsampler with skips.

On timm's parts, in timm's names of a hybrid ViT, so that a source is Google's `R50+ViT-B_16.npz` or timm's
`vit_base_r50_s16_224.orig_in21k`, which is the same. What the authors' network has otherwise than timm's hybrid:
convolutions are padded alike on all sides and standardized with 1e-5, norms have 1e-6, the norm on a shortcut has
one group for each channel, the pool is not padded, and there is no class token.
"""

from collections.abc import Sequence
from functools import partial
from math import prod

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from timm.layers import GroupNormAct, StdConv2d
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import pad

from ...acceleration import checkpoint_blocks
from ...checkpoints import Naming, State, read_checkpoint
from ...errors import UserError
from ...keys import nearest_multiples, sides
from ...positions import resize_absolute_table
from ..sourced import SourcedEncoder, replace_sizes

PATCH = 16
EPS = 1e-5  # of the weights' standardization
BASE = dict(layers=(3, 4, 9), width=64, embed_dim=768, depth=12, num_heads=12)


class HybridEmbed(nn.Module):
    """A ResNet of three stages and a linear layer on each of its features."""

    def __init__(self, channels: int, layers: Sequence[int], width: int, embed_dim: int):
        super().__init__()
        self.backbone = ResNetV2(
            layers, [4 * width * 2 ** stage for stage in range(3)], num_classes=0, in_chans=channels,
            stem_chs=width, preact=False, conv_layer=partial(StdConv2d, eps=EPS),
            norm_layer=partial(GroupNormAct, eps=1e-6))
        self.backbone.stem.pool = nn.MaxPool2d(3, 2)
        for stage in self.backbone.stages:
            shortcut = stage.blocks[0].downsample
            shortcut.norm = nn.GroupNorm(shortcut.conv.out_channels, shortcut.conv.out_channels)
        self.proj = nn.Conv2d(16 * width, embed_dim, 1)

    def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Image (B, C, H, W) -> (B, E, H / 16, W / 16), and skips of strides 2, 4 and 8."""
        stem, size = self.backbone.stem, x.shape[2:]
        x = stem.norm(stem.conv(x) * gain)
        skips = [x]
        x = stem.pool(x)
        for stage in self.backbone.stages:
            x = stage(x)
            # the pool, which is not padded, leaves one row and one column too few at stride 4
            skips.append(pad(x, (0, size[1] // 2 ** len(skips) // 2 - x.shape[3],
                                 0, size[0] // 2 ** len(skips) // 2 - x.shape[2])))
        return self.proj(x), skips[:-1]


class HybridViT(nn.Module):
    """A ViT on a ResNet's features, without class token."""

    def __init__(self, channels: int, grid: tuple[int, int], drop_rate: float, layers: Sequence[int], width: int,
                 embed_dim: int, depth: int, num_heads: int):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.patch_embed = HybridEmbed(channels, layers, width, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, prod(grid), embed_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.Sequential(*(
            Block(embed_dim, num_heads, qkv_bias=True, proj_drop=drop_rate, norm_layer=norm)
            for _ in range(depth)))
        for block in self.blocks:
            block.attn.proj_drop.p = 0.0  # dropout is the MLPs' alone
            for layer in (block.mlp.fc1, block.mlp.fc2):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)
        self.norm = norm(embed_dim)

    def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
        x, skips = self.patch_embed(x, gain)
        tokens = self.pos_drop(x.flatten(2).movedim(1, 2) + self.pos_embed)
        tokens = self.norm(self.blocks(tokens))
        return *skips, tokens.movedim(1, 2).unflatten(2, x.shape[2:])


@MODELS.register_module()
class TransUNet(SourcedEncoder):
    """TransUNet's encoder, R50 + ViT-B/16 (Chen et al. 2021), on single slices.

    A source's first kernel, of three colours, becomes one for C channels as everywhere here. Since every pass
    standardizes it, which undoes its scale, `gain` holds how much less the source's would have been scaled up, one
    number for each output: a gray image gives the features that three equal colours give in the source's network.

    Args:
        slices: 1.
        channels: C, image channels.
        inflation: registered method: how the first kernel becomes one for C channels.
        source: path of `R50+ViT-B_16.npz` or of timm's copy, or None for random weights.
        img_size: input height and width in pixels (one number: square), multiples of 16.
        drop_rate: dropout of the tokens and in the MLPs.
        with_cp: activation checkpointing, block by block.
        sizes: replace R50 + ViT-B/16's layers (units of each stage), width (of the root), embed_dim, depth and
            num_heads.
        init_cfg: mmengine's; leave it out, `source` is the way to load weights.

    Input: (B, C, H, W). Output: skips (B, w, H/2, W/2), (B, 4w, H/4, W/4) and (B, 8w, H/8, W/8) of the ResNet of
    width w, and the ViT's tokens as (B, E, H/16, W/16).

    Raises:
        UserError: another size or number of slices, an unknown inflation, or a source that does not fit.
    """

    def __init__(self, slices: int = 1, channels: int = 1, inflation: str = 'centering', source: str | None = None,
                 img_size: int | Sequence[int] = 512, drop_rate: float = 0.1, with_cp: bool = False,
                 sizes: dict | None = None, init_cfg: dict | None = None):
        super().__init__(slices, channels, inflation, source, img_size, init_cfg)
        if slices != 1:
            raise UserError(f'TransUNet takes windows of 1 slice, not {slices}; set experiment.slices to 1')
        for side in sides(img_size):
            if side % PATCH:
                raise UserError(f'TransUNet: input size {side} is no multiple of {PATCH}; set experiment.img_size '
                                f'to {nearest_multiples(side, PATCH)}')
        self.sizes = replace_sizes('TransUNet', BASE, sizes)
        self.grid = tuple(side // PATCH for side in sides(img_size))
        self.model = HybridViT(channels, self.grid, drop_rate, **self.sizes)
        self.register_buffer('gain', torch.ones(self.sizes['width'], 1, 1))
        if with_cp:
            stages = self.model.patch_embed.backbone.stages
            checkpoint_blocks([*(unit for stage in stages for unit in stage.blocks), *self.model.blocks])

    @property
    def naming(self) -> Naming:
        def translate(source: State) -> State:
            rest = {key: value for key, value in source.items() if key != 'cls_token'}
            return rest | dict(pos_embed=resize_absolute_table(source['pos_embed'], self.grid))
        return Naming(frozenset(self.model.state_dict()), translate, 'patch_embed.backbone.stem.conv.weight',
                      {'^cls_token$': 'class token, which a segmentation network has no use for'})

    def init_weights(self) -> None:
        super().init_weights()
        if self.load_report and self.inflation != 'random':
            here, there = (kernel.var((1, 2, 3), correction=0).add(EPS).sqrt() for kernel in
                           (self.model.get_parameter(self.naming.kernel).detach(), self.load_report.kernel))
            own = self.load_report.root.removesuffix('model.') + 'gain'  # a checkpoint of this project has it
            self.gain.copy_(read_checkpoint(self.source).get(own, 1) * (here / there)[:, None, None])

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return self.model(inputs, self.gain)


@MODELS.register_module()
class TransUNetHead(BaseDecodeHead):
    """TransUNet's cascaded upsampler (Chen et al. 2021, section 3.2).

    Four times: twice as large (bilinear, corners on corners), beside the skip of that size, two convolutions.

    Args:
        in_channels: widths of the skips of strides 2, 4 and 8 and of the tokens.
        channels: width at full size.
        hidden: width of the tokens' convolution.
        widths: of the steps at strides 8, 4 and 2.

    Input: maps as TransUNet's. Output: logits (B, K, H, W).
    """

    def __init__(self, in_channels: Sequence[int] = (64, 256, 512, 768), channels: int = 16, hidden: int = 512,
                 widths: Sequence[int] = (256, 128, 64), dropout_ratio: float = 0.0, init_cfg: dict | None = None,
                 **kwargs):
        super().__init__(in_channels=list(in_channels), in_index=[0, 1, 2, 3], input_transform='multiple_select',
                         channels=channels, dropout_ratio=dropout_ratio, init_cfg=init_cfg, **kwargs)

        def convolve(inner: int, outer: int) -> ConvModule:
            return ConvModule(inner, outer, 3, padding=1, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)

        *skips, tokens = in_channels
        outer = [*widths, channels]
        self.conv_tokens = convolve(tokens, hidden)
        self.steps = nn.ModuleList(
            nn.Sequential(convolve(inner + skip, out), convolve(out, out))
            for inner, skip, out in zip([hidden, *widths], [*skips[::-1], 0], outer, strict=True))
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 3, padding=1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        *skips, x = self._transform_inputs(inputs)
        x = self.conv_tokens(x)
        for step, skip in zip(self.steps, [*skips[::-1], None], strict=True):
            x = resize(x, scale_factor=2, mode='bilinear', align_corners=True)
            x = step(x if skip is None else torch.cat([x, skip], 1))
        return self.cls_seg(x)
