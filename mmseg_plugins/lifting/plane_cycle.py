"""PlaneCycle (2026; github.com/HINTLab/PlaneCycle): pre-trained blocks on planes HW, DW, DH, HW, HW, ... in turn.

There are no new parameters. Tokens that are no patches belong to the planes that were looked at last, and are
averaged or repeated to as many as the next have (its commits 0b0c72a and 3ab47e3; those in between, on the branch
`main`, bring them back to D planes each time). Positions, rotary or relative, are those of the plane.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d

from ..errors import UserError
from . import Block, Lifting, register_lifting
from .positions import check_positions, place_tokens, rows_between

CYCLE = (1, 2, 3, 1)  # the axis of (B, D, H, W, C) that a block's planes are counted along


@register_lifting('plane_cycle')
class PlaneCycle(Lifting):
    """Each block on the planes across one axis; see Lifting."""

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int]):
        super().__init__(model, planes, centre, widths)
        check_positions(model)
        self.sides = sides = {axis: [side for at, side in enumerate((planes, *self.grid), 1) if at != axis]
                              for axis in sorted(set(CYCLE))}
        for number, block in enumerate(model.blocks):
            places = rows_between(self.grid, *sides[CYCLE[number % len(CYCLE)]])
            place_tokens(block.attn, places, torch.arange(len(places)))
        self.last, self.ropes = len(model.blocks) - 1, nn.ModuleDict()
        if getattr(model, 'rope', None) is not None:
            if not hasattr(model.rope, 'update_feat_shape'):  # of an older timm
                raise UserError('this timm cannot tell rotary positions of another grid; update it, or choose '
                                'another lifting')
            for axis in sides:
                self.ropes[str(axis)] = copy.deepcopy(model.rope)
                self.ropes[str(axis)].update_feat_shape(sides[axis])
        self.others: Tensor | None = None  # (B, planes, prefix, C), while the blocks are gone through

    def run(self, number: int, block: Block, x: Tensor, **context) -> Tensor:
        axis = CYCLE[number % len(CYCLE)]
        others = x[:, :, :self.prefix] if number == 0 else self.others
        volume = x[:, :, self.prefix:].unflatten(2, self.grid).movedim(axis, 1)  # (B, planes, rows, columns, C)
        if self.ropes:
            context['rope'] = self.ropes[str(axis)].get_embed(shape=self.sides[axis])
        tokens = torch.cat([pool(others, volume.shape[1]), volume.flatten(2, 3)], 2)
        tokens = block(tokens.flatten(0, 1), **context).unflatten(0, tokens.shape[:2])
        self.others = tokens[:, :, :self.prefix] if number < self.last else None
        volume = tokens[:, :, self.prefix:].reshape(volume.shape).movedim(1, axis)
        return torch.cat([x[:, :, :self.prefix], volume.flatten(2, 3)], 2)


def pool(tokens: Tensor, planes: int) -> Tensor:
    """Averaged or repeated along the planes: (B, P, prefix, C) -> (B, planes, prefix, C)."""
    moved = tokens.movedim(1, -1)  # (B, prefix, C, P)
    pooled = adaptive_avg_pool1d(moved.flatten(0, -2)[:, None], planes)
    return pooled.reshape(*moved.shape[:-1], planes).movedim(-1, 1)
