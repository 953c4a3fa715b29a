"""Layers whose weight is computed from their own parameter by a part that stands elsewhere.

The layer keeps its parameter and its name, so that sources load and checkpoints read as ever; whoever reads
`weight` gets what the part makes of it. (BEiT's attention does not call its layer but takes the weight: a wrapper
around the layer would be passed over. torch's own parametrizations rename the parameter.)
"""

from torch import Tensor, nn


class Computed:
    """Of a layer whose `part` takes its parameter and gives its weight."""

    @property
    def weight(self) -> Tensor:
        return self.part(self._parameters['weight'])


class ComputedLinear(Computed, nn.Linear):
    pass


class ComputedConv2d(Computed, nn.Conv2d):
    pass


KINDS = {nn.Linear: ComputedLinear, nn.Conv2d: ComputedConv2d}


def compute_weight(layer: nn.Module, part: nn.Module) -> None:
    """Let a layer's weight be what a part makes of its parameter; the part is to be another module's child."""
    layer.__class__ = KINDS[type(layer)]
    layer.__dict__['part'] = part


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """A state dict as of layers with weights of their own: these as they are computed, and without the parts."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Computed)}
    parts = {id(layer.part) for layer in layers.values()}
    inside = tuple(f'{name}.' for name, other in module.named_modules() if id(other) in parts)
    state = {name: value for name, value in module.state_dict().items() if not name.startswith(inside)}
    return state | {f'{name}.weight': layer.weight.detach() for name, layer in layers.items()}
