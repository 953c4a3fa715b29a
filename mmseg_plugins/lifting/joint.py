"""Joint attention over all tokens of a window (Arnab et al., "ViViT", ICCV 2021, model 1).

A token is of a patch of `tubelet` slices, over which the patch kernel is inflated. In `joint`, positions, rotary
and relative ones too, are those of a slice, the same for all planes, which a depth embedding that starts at zero
tells apart; with tubelets of the whole window it is the lifting `kernel`. In `joint_rotary`, rotary positions are
of planes too.
"""

import torch
from torch import Tensor, nn

from ..errors import UserError
from . import Block, PlacedLifting, register_lifting
from .positions import check_positions, place_tokens, rows_between


@register_lifting('joint')
class Joint(PlacedLifting):
    """Every block on the tokens of all planes at once; see Lifting.

    Args:
        tubelet: slices of a token. One of the tubelets has the window's centre slice in its own centre; where the
            first and the last then go beyond the window, its border slices are repeated.
    """

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int], tubelet: int = 1):
        super().__init__(model, planes, centre, widths)
        check_positions(model)
        within = torch.arange(self.grid[0] * self.grid[1]) + 1
        origins = torch.cat([torch.zeros(planes, dtype=torch.long), within.repeat(planes)])
        for block in model.blocks:
            place_tokens(block.attn, rows_between(self.grid, *self.grid), origins)
            if hasattr(block.attn, 'num_prefix_tokens'):  # EVA's, which rotates all others
                block.attn.num_prefix_tokens = planes * self.prefix

    def run(self, number: int, block: Block, x: Tensor, **context) -> Tensor:
        x = self.place(number, x)
        if context.get('rope') is not None:
            context['rope'] = self.turn(context['rope'])
        first, patches = x[:, :, :self.prefix], x[:, :, self.prefix:]
        tokens = block(torch.cat([first.flatten(1, 2), patches.flatten(1, 2)], 1), **context)
        first, patches = tokens.split([first.shape[1] * first.shape[2], patches.shape[1] * patches.shape[2]], 1)
        return torch.cat([part.unflatten(1, (self.planes, -1)) for part in (first, patches) if part.shape[1]], 2)

    def turn(self, rope: Tensor) -> Tensor:
        """Rotary positions, sines and cosines, of a plane's patches -> all planes': (h w, 2 c) -> (D h w, 2 c)."""
        return rope.repeat(self.planes, 1)


@register_lifting('joint_rotary')
class JointRotary(Joint):
    """Joint attention, with rotary positions in 3D.

    Of the pairs of channels that turn with a token's row, and of those that turn with its column, every third
    turns with its plane instead: from plane to plane by as much as before from patch to patch, and at the centre
    plane by nothing. (V-JEPA 2, Assran et al. 2025, has a third of a head's channels for each axis.)
    """

    def __init__(self, model: nn.Module, planes: int, centre: int, widths: list[int], tubelet: int = 1):
        super().__init__(model, planes, centre, widths, tubelet)
        if getattr(model, 'rope', None) is None:
            raise UserError('this model has no rotary positions; choose joint, or another encoder')
        if min(self.grid) < 2:
            raise UserError(f'of {self.grid[0]} x {self.grid[1]} patches there is no step to the next row and '
                            'column to take over; set a larger experiment.img_size')
        attention = model.blocks[0].attn
        channels = model.embed_dim // attention.num_heads
        if channels % 4 or channels < 12:
            raise UserError(f'heads of {channels} channels have too few pairs for three axes; choose joint, or '
                            'another encoder')
        pair = torch.arange(channels)
        pair = pair % (channels // 2) if getattr(attention, 'rotate_half', False) else pair // 2
        self.register_buffer('by_plane', pair % (channels // 4) % 3 == 2, persistent=False)

    def turn(self, rope: Tensor) -> Tensor:
        sine, cosine = rope.unflatten(0, self.grid).chunk(2, -1)
        angle = torch.atan2(sine, cosine)
        step = angle[1, 0] + angle[0, 1] - 2 * angle[0, 0]  # each channel turns along one of the two
        along = torch.arange(self.planes, device=rope.device)[:, None, None, None] - self.centre
        turned = (along * step).expand(-1, *angle.shape[:2], -1)
        return torch.cat([torch.where(self.by_plane, turned.sin(), sine),
                          torch.where(self.by_plane, turned.cos(), cosine)], -1).flatten(0, 2)
