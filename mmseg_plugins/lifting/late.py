"""Late fusion: the 2D model slice by slice, and the slices' maps meet before the decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..inflation import Separable
from . import Lifting, register_lifting


@register_lifting('late')
class Late(Lifting):
    """A depth-wise convolution over all slices, which starts as the centre slice alone; see Lifting."""
    of_blocks = False
    lr_mult = Separable.lr_mult  # which weighs slices too

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__(model, planes, centre, widths)
        self.weights = nn.ParameterList(torch.empty(planes, width) for width in widths)

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        for weight in self.weights:
            weight.zero_()[self.centre] = 1.0

    def fuse(self, number: int, maps: Tensor) -> Tensor:
        return torch.einsum('bdchw,dc->bchw', maps, self.weights[number])


@register_lifting('late_attention')
class LateAttention(Lifting):
    """The centre slice, and what it finds in all slices at each position, by a layer that starts at zero."""
    of_blocks = False

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__(model, planes, centre, widths)
        # the last layer is zero, so that these need not be
        self.pos_embed = nn.ParameterList(torch.randn(planes, width) for width in widths)
        self.layers = nn.ModuleList(nn.ModuleDict(dict(
            norm=nn.LayerNorm(width), query=nn.Linear(width, width), both=nn.Linear(width, 2 * width),
            last=nn.Linear(width, width))) for width in widths)

    def start(self, model: nn.Module) -> None:
        for layer in self.layers:
            nn.init.zeros_(layer.last.weight)
            nn.init.zeros_(layer.last.bias)

    def fuse(self, number: int, maps: Tensor) -> Tensor:
        layer, centre = self.layers[number], maps[:, self.centre]
        x = layer.norm(maps.permute(0, 3, 4, 1, 2)) + self.pos_embed[number]  # (B, h, w, D, C)
        found = functional.scaled_dot_product_attention(layer.query(x[..., self.centre, :].unsqueeze(-2)),
                                             *layer.both(x).chunk(2, -1))
        return centre + layer.last(found.squeeze(-2)).permute(0, 3, 1, 2)
