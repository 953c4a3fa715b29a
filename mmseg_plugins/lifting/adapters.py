"""Bottlenecks before the pre-trained blocks that mix planes: by a convolution, or by the block's own attention.

`adapter_conv`: Pan et al., "ST-Adapter", NeurIPS 2022; one before each block, its width half of the block's, the
depth-wise convolution over three planes zero. `adapter_conv_pair`: Chen et al., "MA-SAM", Medical Image Analysis
2024; one before and one within each block, with norm and GELU, and nothing in it starts at zero.
`adapter_attention`: the temporal adaptation of Yang et al., "AIM", ICLR 2023, without its adapters within a slice;
its depth embedding and its last layer start at zero.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from . import Block, Lifting, PlacedLifting, attend, attention_of, blocks_of, register_lifting, run_block

AIM, MA_SAM = 0.25, 0.3  # of a bottleneck to the width; MA-SAM's code has 384 beside the 1280 of its ViT-H


class ConvAdapter(nn.Module):
    """x + W2 conv(W1 x) over the planes of each position; (B, D, ..., C), of which the first tokens pass by.

    Args:
        width: C.
        inner: channels of the bottleneck.
        prefix: tokens of a plane that are no patches.
        dense: MA-SAM's: a norm, a convolution of all channels, a GELU; else ST-Adapter's, depth-wise.
    """

    def __init__(self, width: int, inner: int, prefix: int, dense: bool):
        super().__init__()
        self.prefix, self.dense = prefix, dense
        self.norm = nn.LayerNorm(width) if dense else nn.Identity()
        self.down, self.up = (nn.Linear(*sizes, bias=not dense) for sizes in ((width, inner), (inner, width)))
        self.conv = nn.Conv1d(inner, inner, 3, padding=1, groups=1 if dense else inner)
        if not dense:  # zeros between two layers: at the rate itself they would hardly add to a token
            self.conv.lr_mult = 10.0

    def forward(self, x: Tensor) -> Tensor:
        first, patches = x[:, :, :self.prefix], x[:, :, self.prefix:]
        inner = self.down(self.norm(patches)).movedim(1, -1)  # (B, ..., c, D)
        inner = self.conv(inner.flatten(0, -3)).unflatten(0, inner.shape[:-2]).movedim(-1, 1)
        return torch.cat([first, patches + self.up(gelu(inner) if self.dense else inner)], 2)


@register_lifting('adapter_conv')
class AdapterConv(Lifting):
    """A depth-wise convolution over three planes before each block; see Lifting."""

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__(model, planes, centre, widths)
        self.layers = nn.ModuleList(ConvAdapter(width, width // 2, self.prefix, dense=False)
                                    for _, width in blocks_of(model))

    def start(self, model: nn.Module) -> None:
        for layer in self.layers:
            for tensor in (layer.conv.weight, layer.conv.bias, layer.down.bias, layer.up.bias):
                nn.init.zeros_(tensor)

    def run(self, number: int, block: Block, x: Tensor, **context) -> Tensor:
        return run_block(block, self.layers[number](x), **context)


@register_lifting('adapter_conv_pair')
class AdapterConvPair(Lifting):
    """A convolutional bottleneck before each block's attention, and one before its MLP; see Lifting."""

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__(model, planes, centre, widths)
        self.layers = nn.ModuleList(
            nn.ModuleList(ConvAdapter(width, int(width * MA_SAM), self.prefix, dense=True) for _ in range(2))
            for block, width in blocks_of(model) if attention_of(block))

    def run(self, number: int, block: nn.Module, x: Tensor, **context) -> Tensor:
        apart = partial(self._run_apart, number, block)
        if getattr(block, 'checkpointed', False):  # its own forward pass, which computes twice then, is not called
            return checkpoint(apart, x, use_reentrant=False, **context)
        return apart(x, **context)

    def _run_apart(self, number: int, block: nn.Module, x: Tensor, **context) -> Tensor:
        def attention(planes: Tensor, **context) -> Tensor:
            within = getattr(block, '_attn', block.attn)  # Swin's, in windows
            return scale_branch(block, 1, within(block.norm1(planes), **context))

        def mlp(planes: Tensor) -> Tensor:
            return scale_branch(block, 2, block.mlp(block.norm2(planes)))

        first, second = self.layers[number]
        x = first(x)
        x = second(x + run_block(attention, x, **context))
        return x + run_block(mlp, x)


def scale_branch(block: nn.Module, number: int, x: Tensor) -> Tensor:
    """A branch of one of timm's blocks as it is added: behind layer scale and stochastic depth."""
    gamma = getattr(block, f'gamma_{number}', None)  # BEiT's and EVA's; ViT's is a module
    x = getattr(block, f'ls{number}', nn.Identity())(x) if gamma is None else gamma * x
    return getattr(block, f'drop_path{number}')(x)


@register_lifting('adapter_attention')
class AdapterAttention(PlacedLifting):
    """x + Adapter(Attention(LayerNorm(x))) by the block's own attention and norm; see Lifting."""

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__(model, planes, centre, widths)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, int(width * AIM)), nn.GELU(), nn.Linear(int(width * AIM), width))
            for block, width in blocks_of(model) if attention_of(block))

    def start(self, model: nn.Module) -> None:
        for layer in self.layers:
            nn.init.zeros_(layer[-1].weight)
            nn.init.zeros_(layer[-1].bias)

    def run(self, number: int, block: nn.Module, x: Tensor, **context) -> Tensor:
        x = self.place(number, x)
        found = attend(block.attn, block.norm1(x).movedim(1, -2)).movedim(-2, 1)
        return run_block(block, x + self.layers[number](found), **context)
