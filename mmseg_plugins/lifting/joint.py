"""Joint attention over all tokens of a window (Arnab et al., "ViViT", ICCV 2021, model 1).

A token is of a patch of `tubelet` slices, over which the patch kernel is inflated. Positions, rotary and
relative ones too, are those of a slice, the same for all planes; a depth embedding that starts at zero tells these
apart. With tubelets of the whole window this is the lifting `kernel`.
"""

import torch
from torch import Tensor, nn

from . import Block, Lifting, register_lifting
from .positions import check_positions, place_tokens, rows_between


@register_lifting('joint')
class Joint(Lifting):
    """Every block on the tokens of all planes at once; see Lifting.

    Args:
        tubelet: slices of a token. One of the tubelets has the window's centre slice in its own centre; where the
            first and the last then go beyond the window, its border slices are repeated.
    """

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int], tubelet: int = 1):
        super().__init__(model, planes, centre, widths)
        check_positions(model, 'joint')
        self.depth = nn.Parameter(torch.zeros(planes, 1, model.embed_dim))
        within = torch.arange(self.grid[0] * self.grid[1]) + 1
        origins = torch.cat([torch.zeros(planes, dtype=torch.long), within.repeat(planes)])
        for block in model.blocks:
            place_tokens(block.attn, rows_between(self.grid, *self.grid), origins)
            if hasattr(block.attn, 'num_prefix_tokens'):  # EVA's, which rotates all others
                block.attn.num_prefix_tokens = planes * self.prefix

    def run(self, number: int, block: Block, x: Tensor, **context) -> Tensor:
        if number == 0:
            x = x + self.depth
        if context.get('rope') is not None:
            context['rope'] = context['rope'].repeat(self.planes, 1)
        first, patches = x[:, :, :self.prefix], x[:, :, self.prefix:]
        tokens = block(torch.cat([first.flatten(1, 2), patches.flatten(1, 2)], 1), **context)
        first, patches = tokens.split([first.shape[1] * first.shape[2], patches.shape[1] * patches.shape[2]], 1)
        return torch.cat([part.unflatten(1, (self.planes, -1)) for part in (first, patches) if part.shape[1]], 2)
