"""Relative positions between other tokens than those of one slice: BEiT's, and which models have others."""

import torch
from timm.models.beit import Attention
from torch import Tensor, nn

from ..errors import UserError
from . import attention_of, blocks_of, find_holders


class PlacedAttention(Attention):
    """timm's attention of BEiT, whose T tokens are others than those of its grid."""

    places: Tensor  # (P, P): rows of the table between the tokens of a plane
    origins: Tensor  # (T,): which token of a plane each token is

    def _get_rel_pos_bias(self) -> Tensor:
        bias = self.relative_position_bias_table[self.places].permute(2, 0, 1)[None]
        return bias[..., self.origins[:, None], self.origins]


def check_positions(model: nn.Module) -> None:
    """That what a model's blocks know of places can be had for other tokens than a slice's.

    Raises:
        UserError: it cannot.
    """
    for block, _ in blocks_of(model):
        attention_of(block)
    shared = any(getattr(model, name, None) is not None for name in ('shared_rel_pos', 'rel_pos_bias'))
    if shared or getattr(model, 'rope_mixed', False) or model not in find_holders(model):
        raise UserError('the positions of this model are of its own grid alone; choose another lifting, or '
                        'another encoder')


def place_tokens(attention: nn.Module, places: Tensor, origins: Tensor) -> None:
    """Let an attention with a table of relative positions look up these rows; others have no such table."""
    if getattr(attention, 'relative_position_bias_table', None) is not None:
        attention.__class__ = PlacedAttention
        attention.register_buffer('places', places, persistent=False)
        attention.register_buffer('origins', origins, persistent=False)


def rows_between(grid: tuple[int, int], height: int, width: int) -> Tensor:
    """Rows of the table of a grid for a class token and the tokens of a plane, (1 + height * width)^2.

    Offsets that the grid does not have are those of its border.
    """
    def offsets(side: int, most: int) -> Tensor:
        at = torch.arange(side)
        return (at[:, None] - at).clamp(1 - most, most - 1) + most - 1

    columns = 2 * grid[1] - 1
    rows = (offsets(height, grid[0])[:, None, :, None] * columns + offsets(width, grid[1])[:, None]
            ).reshape(height * width, height * width)
    entries = (2 * grid[0] - 1) * columns + 3  # the last three are of the class token
    places = torch.full((1 + len(rows), 1 + len(rows)), entries - 1)
    places[0, 1:], places[1:, 0], places[1:, 1:] = entries - 3, entries - 2, rows
    return places
