"""CoTr: a convolutional encoder whose two coarsest scales a deformable Transformer relates (Xie et al. 2021,
"CoTr: Efficiently Bridging CNN and Transformer for 3D Medical Image Segmentation", arXiv:2103.03024).

Written from the paper, and from facts about the authors' code (github.com/YtongXie/CoTr, commit 521b4cc), which is
GPL and of which nothing is copied. That code offers weight-standardised convolutions and other norms as well; the
authors' training uses neither, and they are left out.
"""

import math
from collections.abc import Sequence

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import gelu, grid_sample, interpolate, leaky_relu

from .monai_networks import check_crop

SLOPE = 0.01  # of every leaky ReLU
STEM_STRIDE = (1, 2, 2)  # CT has fewer slices than rows
STRIDE = tuple(stem * 2 ** 3 for stem in STEM_STRIDE)  # of the coarsest scale
COORDINATES = {'dwh': (0, 1, 2), 'whd': (1, 2, 0)}  # D, W, H in the order that grid_sample receives them


@MODELS.register_module()
class CoTr(nn.Module):
    """CoTr (Xie et al. 2021, figure 2); with the defaults its size is the published one.

    The stem has stride (1, 2, 2), the three stages behind it stride 2 each. The Transformer takes the outputs of
    the last two, the decoder adds the others to its own maps.

    Args:
        in_channels: C.
        out_channels: K, classes with background.
        crop: (D, H, W), multiples of (8, 16, 16).
        widths: channels of the stem, of the first stage, and of the other two.
        blocks: residual blocks of the three stages.
        layers: of the Transformer.
        heads: of its attention.
        points: that a head samples at each of the two scales.
        dropout: rate in the Transformer.
        deep_supervision: whether training returns the logits of all four scales of the decoder.
        coordinates: the order in which the points D, W, H reach `grid_sample`, which takes W, H, D. `dwh`: as they
            are, as in the authors' code, so that a query at the fractions (d, h, w) of the volume samples around
            (h, w, d). `whd`: brought into its order, so that a query samples around its own place.

    Input: (B, C, D, H, W). Output: logits (B, K, D, H, W); in training with
    `deep_supervision` a list of four, finest first, behind which come strides (1, 2, 2), (2, 4, 4) and (4, 8, 8).

    Raises:
        UserError: the strides do not divide the crop.
        ValueError: sizes that do not fit one another.
    """

    def __init__(self, in_channels: int, out_channels: int, crop: Sequence[int],
                 widths: Sequence[int] = (64, 192, 384), blocks: Sequence[int] = (3, 3, 2), layers: int = 6,
                 heads: int = 6, points: int = 4, dropout: float = 0.1, deep_supervision: bool = True,
                 coordinates: str = 'dwh'):
        super().__init__()
        check_crop('CoTr', crop, STRIDE)
        stem, first, width = widths
        self.stem = nn.Sequential(*_convolution(in_channels, stem, 7, STEM_STRIDE), _activation())
        self.stages = nn.ModuleList(_stage(*sizes) for sizes in zip((stem, first, width), (first, width, width),
                                                                    blocks, strict=True))
        self.transformer = DeformableTransformer(width, layers, heads, points, scales=2, dropout=dropout,
                                                 coordinates=coordinates)
        self.enlarge = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2, bias=False)
                                     for coarse, fine in ((width, width), (width, first), (first, stem)))
        self.refine = nn.ModuleList(_DecoderBlock(fine) for fine in (width, first, stem))
        self.heads = nn.ModuleList(nn.Conv3d(fine, out_channels, 1) for fine in
                                   ((width, first, stem) if deep_supervision else ()))
        self.head = nn.Conv3d(stem, out_channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out')

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        fine = [self.stem(images)]
        for stage in self.stages:
            fine.append(stage(fine[-1]))
        *fine, x = [*fine[:2], *self.transformer(fine[2:])]
        outputs = []
        for enlarge, refine, skip in zip(self.enlarge, self.refine, reversed(fine), strict=True):
            x = refine(enlarge(x) + skip)
            outputs.append(x)
        logits = self.head(interpolate(x, scale_factor=STEM_STRIDE, mode='trilinear'))
        if not (self.training and self.heads):
            return logits
        return [logits, *(head(x) for head, x in zip(reversed(self.heads), reversed(outputs), strict=True))]


class DeformableTransformer(nn.Module):
    """Layers of deformable attention over all voxels of several scales at once (Xie et al. 2021, section 3.2).

    Input and output: maps (B, E, D_s, H_s, W_s), one for each scale.

    Args:
        width: E, divisible by 6 for the sines and cosines of three axes, and by `heads`.
    """

    def __init__(self, width: int, layers: int, heads: int, points: int, scales: int, dropout: float,
                 coordinates: str):
        super().__init__()
        if width % 6:
            raise ValueError(f'width {width}: must be divisible by 6')
        self.scale_embed = nn.Parameter(torch.randn(scales, width))
        self.layers = nn.ModuleList(_Layer(width, heads, points, scales, dropout, coordinates)
                                    for _ in range(layers))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        shapes = [tuple(one.shape[2:]) for one in maps]
        x = torch.cat([one.flatten(2).mT for one in maps], 1)  # (B, N, E)
        positions = torch.cat([encode_positions(shape, x) + scale
                               for shape, scale in zip(shapes, self.scale_embed, strict=True)])
        places = torch.cat([reference_points(shape, x) for shape in shapes])
        for layer in self.layers:
            x = layer(x, positions, places, shapes)
        return [part.mT.unflatten(2, shape)
                for part, shape in zip(x.split([math.prod(shape) for shape in shapes], 1), shapes, strict=True)]


class _Layer(nn.Module):
    """Deformable attention and two linear layers, each normalised behind its residual sum."""

    def __init__(self, width: int, heads: int, points: int, scales: int, dropout: float, coordinates: str):
        super().__init__()
        self.attention = DeformableAttention(width, heads, points, scales, coordinates)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor, positions: Tensor, places: Tensor, shapes: Sequence[tuple]) -> Tensor:
        x = self.norms[0](x + self.dropout(self.attention(x + positions, x, places, shapes)))
        hidden = self.dropout(gelu(self.expand(x)))
        return self.norms[1](x + self.dropout(self.contract(hidden)))


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al. 2021, arXiv:2010.04159) over three axes, in plain torch.

    Every query averages what it samples at `points` places of each scale. Offsets, in voxels of the scale, and
    weights are linear in the query; no key is compared with it.
    """

    def __init__(self, width: int, heads: int, points: int, scales: int, coordinates: str):
        super().__init__()
        if width % heads:
            raise ValueError(f'width {width}: must be divisible by heads ({heads})')
        if coordinates not in COORDINATES:
            raise ValueError(f"coordinates {coordinates!r}: must be 'dwh' or 'whd'")
        self.order, self.samples = COORDINATES[coordinates], (heads, scales, points)
        self.offsets = nn.Linear(width, math.prod(self.samples) * 3)
        self.weights = nn.Linear(width, math.prod(self.samples))
        self.values, self.output = nn.Linear(width, width), nn.Linear(width, width)
        for linear in (self.offsets, self.weights):
            nn.init.zeros_(linear.weight)
        for linear in (self.values, self.output):
            nn.init.xavier_uniform_(linear.weight)
        for linear in (self.weights, self.values, self.output):
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(self._starting_offsets().flatten())

    def _starting_offsets(self) -> Tensor:
        """(heads, scales, points, 3): a direction for each head, its points 1, 2, ... voxels away."""
        heads, scales, points = self.samples
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin() * angles.cos(), angles.sin() ** 2], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, points + 1.0)
        return (directions[:, None, None] * steps[:, None]).expand(-1, scales, -1, -1)

    def forward(self, queries: Tensor, x: Tensor, places: Tensor, shapes: Sequence[tuple]) -> Tensor:
        """Attend.

        Args:
            queries: (B, N, E).
            x: what is sampled, (B, N, E), the voxels of all scales in turn.
            places: of the queries, (N, 3), as `reference_points` has them.
            shapes: (D, H, W) of each scale.

        Returns:
            (B, N, E).
        """
        heads, scales, _ = self.samples
        weights = self.weights(queries).unflatten(2, (heads, -1)).softmax(-1).unflatten(3, (scales, -1))
        offsets = self.offsets(queries).unflatten(2, (*self.samples, 3))
        values = _by_head(self.values(x).unflatten(2, (heads, -1))).mT  # (B * heads, E / heads, N)
        values = values.split([math.prod(shape) for shape in shapes], 2)
        sampled = 0
        for scale, (depth, height, width) in enumerate(shapes):
            points = places[:, None, None] + offsets[:, :, :, scale] / offsets.new_tensor([depth, width, height])
            grid = _by_head((2 * points - 1)[..., self.order])  # (B * heads, N, points, 3)
            maps = values[scale].unflatten(2, (depth, height, width)).to(grid.dtype)  # places are never rounded
            found = grid_sample(maps, grid[:, :, :, None], align_corners=False)[..., 0]
            sampled = sampled + (found * _by_head(weights[:, :, :, scale])[:, None]).sum(-1)
        return self.output(sampled.unflatten(0, (-1, heads)).flatten(1, 2).mT)


def _by_head(x: Tensor) -> Tensor:
    """(B, N, heads, ...) as (B * heads, N, ...)."""
    return x.transpose(1, 2).flatten(0, 1)


def reference_points(shape: Sequence[int], like: Tensor) -> Tensor:
    """Centres of all voxels of a scale (D, H, W) as fractions of the volume: (D * H * W, 3), ordered D, W, H."""
    d, h, w = torch.meshgrid(*(_centres(side, like) for side in shape), indexing='ij')
    return torch.stack([d, w, h], -1).flatten(0, 2)


def encode_positions(shape: Sequence[int], like: Tensor) -> Tensor:
    """Sines and cosines of every voxel's place in a scale (D, H, W): (D * H * W, E), a third of E for each axis.

    As in the authors' code frequencies go in steps of three channels, while sine and cosine alternate.
    """
    share = like.shape[-1] // 3
    channel = torch.arange(share, device=like.device)
    frequencies = 10000.0 ** -(channel.div(3, rounding_mode='floor') * 3 / share)

    def encode(side: int) -> Tensor:
        angles = 2 * math.pi * _centres(side, like)[:, None] * frequencies
        return torch.where(channel % 2 == 0, angles.sin(), angles.cos())

    depth, height, width = (encode(side) for side in shape)
    axes = (depth[:, None, None], height[None, :, None], width[None, None])
    return torch.cat([axis.expand(*shape, share) for axis in axes], -1).flatten(0, 2)


def _centres(side: int, like: Tensor) -> Tensor:
    precision = torch.promote_types(like.dtype, torch.float32)
    return (torch.arange(side, device=like.device, dtype=precision) + 0.5) / side


def _convolution(incoming: int, outgoing: int, kernel: int, stride: int | Sequence[int] = 1) -> list[nn.Module]:
    return [nn.Conv3d(incoming, outgoing, kernel, stride, kernel // 2, bias=False),
            nn.InstanceNorm3d(outgoing, affine=True)]


def _activation() -> nn.Module:
    return nn.LeakyReLU(SLOPE, inplace=True)


def _stage(incoming: int, outgoing: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_EncoderBlock(incoming, outgoing, 2),
                         *(_EncoderBlock(outgoing, outgoing) for _ in range(blocks - 1)))


class _EncoderBlock(nn.Module):
    """One convolution and a residual; a projected one where the block halves."""

    def __init__(self, incoming: int, outgoing: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(*_convolution(incoming, outgoing, 3, stride))
        self.shortcut = nn.Sequential(*(_convolution(incoming, outgoing, 1, stride) if stride > 1 else ()))

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(self.body(x) + self.shortcut(x), SLOPE)


class _DecoderBlock(nn.Module):
    """Two convolutions, each activated before the residual is added."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(*(module for _ in range(2) for module in (
            *_convolution(width, width, 3), _activation())))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
