"""Tuning: which of an encoder's pre-trained weights are trained, and how fast. Decoder and lifting always are.

    full            all, at the asked rate
    layer_decay(d)  all; a block's rate is d times that of the next, d = 0.9, the embedding's is the lowest (BEiT)
    two_group(r)    all, at the asked rate divided by r, r = 3
    lora(k)         matrices of rank k beside the blocks' linear layers, k = 16 (Hu et al., "LoRA", ICLR 2022)
    bitfit          biases (Ben Zaken et al., "BitFit", ACL 2022)
    frozen          none

Where the patch kernel spans several slices it is how depth enters, and where it is not a source's it has learnt
nothing: then it is trained with all of them. Beside the source's weights, parts of the encoder with an attribute
`lr_mult` learn at so many times the asked rate, whatever the tuning: LoRA's matrices at 10 times. Their weight
decay per step is that of others.

Add one with a function; a keyword argument with a default is its number, as in `lora(16)`:

    @register_tuning('norms')
    def norms(encoder):                     # .model is timm's
        train_only(encoder, lambda name: 'norm' in name)
        return {}                           # factors of the rate by the model's parameters, where they are not 1
"""

import math
from collections.abc import Callable

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from .computed import compute_weight
from .registering import parse_entry, register_once

Method = Callable[..., dict[str, float]]
TUNINGS: dict[str, Method] = {}


def register_tuning(name: str) -> Callable[[Method], Method]:
    """Register a method `(encoder) -> {parameter of encoder.model: factor of its rate}`."""
    return register_once(TUNINGS, name, 'tuning')


def parse_tuning(text: str) -> tuple[Method, dict[str, float]]:
    """`lora(16)` -> (lora, {'rank': 16}).

    Raises:
        UserError: no such method, or a number that it does not take.
    """
    name, options = parse_entry(text, TUNINGS, 'tuning', {'lora': 1, 'layer_decay': 0, 'two_group': 1e-6})
    return TUNINGS[name], options


def train_only(encoder: nn.Module, chosen: Callable[[str], bool]) -> None:
    """Freeze the model's parameters but those chosen by name, a kernel that spans slices, and a fresh one with its
    bias."""
    naming = encoder.naming
    trained = {naming.kernel, naming.bias} if encoder.starts_random else set()
    trained |= {naming.kernel} if encoder.kernel_slices > 1 else set()
    for name, parameter in encoder.model.named_parameters():
        parameter.requires_grad_(chosen(name) or name in trained)


@register_tuning('full')
def full(encoder: nn.Module) -> dict[str, float]:
    return {}


@register_tuning('layer_decay')
def layer_decay(encoder: nn.Module, decay: float = 0.9) -> dict[str, float]:
    model = encoder.model
    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last = max(layer for name, layer in layers.items() if 'blocks.' in name)
    # what timm's rules leave out, and put last, is of the embedding: registers, frequencies of rotary positions
    return {name: decay ** (last + 1 - (layer if layer <= last else 0)) for name, layer in layers.items()}


@register_tuning('two_group')
def two_group(encoder: nn.Module, ratio: float = 3.0) -> dict[str, float]:
    return {name: 1 / ratio for name, _ in encoder.model.named_parameters()}


class LowRank(nn.Module):
    """A linear layer's weight, to which (out, rank) zeros times (rank, in) are added."""
    lr_mult = 10.0  # as is usual: what is a product of small numbers moves less at the same rate

    def __init__(self, layer: nn.Linear, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down, math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


@register_tuning('lora')
def lora(encoder: nn.Module, rank: int = 16) -> dict[str, float]:
    train_only(encoder, lambda name: False)
    encoder.low_rank = nn.ModuleDict()
    for name, layer in encoder.model.named_modules():
        if type(layer) is nn.Linear and '.blocks.' in f'.{name}':
            encoder.low_rank[name.replace('.', '_')] = added = LowRank(layer, rank)
            compute_weight(layer, added)
    return {}


@register_tuning('bitfit')
def bitfit(encoder: nn.Module) -> dict[str, float]:
    train_only(encoder, lambda name: name.endswith('bias'))
    return {}


@register_tuning('frozen')
def frozen(encoder: nn.Module) -> dict[str, float]:
    train_only(encoder, lambda name: False)
    return {}

