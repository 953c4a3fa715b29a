"""Divided attention (Bertasius et al., "Is space-time attention all you need for video understanding?", 2021).

Before each pre-trained block comes an attention over the D tokens of one position, which starts from the block's
own weights; its last layer is zero, and so is what tells planes apart, so that all blocks start as the 2D model's.
(The original's special case for the first block has no effect. Unlike there, class tokens attend over depth too.)
"""

import copy

from torch import Tensor, nn

from . import Block, PlacedLifting, attend, attention_of, blocks_of, register_lifting, run_block


@register_lifting('divided')
class Divided(PlacedLifting):
    """x + Fc(Attention(LayerNorm(x))) over depth, then the block; see Lifting."""

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__(model, planes, centre, widths)
        self.layers = nn.ModuleList()
        for block, width in blocks_of(model):
            attention = copy.deepcopy(attention_of(block))
            attention.relative_position_bias_table = None  # of the positions within a slice
            self.layers.append(nn.ModuleDict(dict(
                norm=copy.deepcopy(block.norm1), attention=attention,
                last=nn.Linear(width, width))))

    def start(self, model: nn.Module) -> None:
        for layer, (block, _) in zip(self.layers, blocks_of(model), strict=True):
            layer.norm.load_state_dict(block.norm1.state_dict())
            own = layer.attention.state_dict()
            layer.attention.load_state_dict({key: value for key, value in block.attn.state_dict().items()
                                             if key in own})
            nn.init.zeros_(layer.last.weight)
            nn.init.zeros_(layer.last.bias)

    def run(self, number: int, block: Block, x: Tensor, **context) -> Tensor:
        layer, x = self.layers[number], self.place(number, x)
        found = attend(layer.attention, layer.norm(x).movedim(1, -2)).movedim(-2, 1)
        return run_block(block, x + layer.last(found), **context)
