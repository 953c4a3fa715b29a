"""Position tables for another grid than the one they were trained on."""

import math

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from torch import Tensor
from torch.nn.functional import interpolate


def resize_absolute_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions of a square grid for another, without the class token's: bilinear, corners on corners.

    That is how TransUNet's authors resize them (Chen et al. 2021, `scipy.ndimage.zoom` of order 1).

    Args:
        table: (1, h w, E), or (1, 1 + h w, E) with the class token's first; h = w, or (h, w) is the new grid and
            h w neither a square nor 1 more.
        grid: (H, W) patches of the new table.

    Returns:
        Table (1, H W, E).

    Raises:
        ValueError: its grid is neither.
    """
    size = math.isqrt(table.shape[1])
    if table.shape[1] - size * size not in (0, 1):
        if table.shape[1] == math.prod(grid):
            return table
        raise ValueError(f'{table.shape[1]} positions are not of a square grid')
    old = table[:, table.shape[1] - size * size:]
    if grid == (size, size):
        return old
    planes = old.movedim(1, 2).unflatten(2, (size, size))
    return interpolate(planes, grid, mode='bilinear', align_corners=True).flatten(2).movedim(2, 1)


def resize_beit_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a relative-position table as BEiT's authors do (Bao et al. 2021, and the paper's code).

    Offsets of the source lie on a geometric grid, dense around 0, that spans the wanted offsets; a
    bicubic spline through them gives the new table. timm takes the same grid but interpolates linearly,
    which moves the tables by 9 to 20 %.

    Args:
        table: ((2h-1)(2w-1) + 3, heads), the last 3 rows the class token's; h = w, or (h, w) is the new grid.
        grid: (H, W) patches of the new table.

    Returns:
        Table ((2H-1)(2W-1) + 3, heads) in the source's dtype.
    """
    offsets, extra = table[:-3], table[-3:]
    size, wanted = round(len(offsets) ** 0.5), [2 * length - 1 for length in grid]
    if len(offsets) not in (size * size, math.prod(wanted)):
        raise ValueError(f'{len(table)} rows are not a square grid of offsets and 3 more')
    if wanted == [size, size] or len(offsets) != size * size:
        return table
    y, x = (_geometric_offsets(size, length) for length in wanted)
    dy, dx = (np.arange(length) - length // 2 for length in wanted)
    planes = offsets.T.reshape(-1, size, size).double().numpy()
    resized = np.stack([RectBivariateSpline(y, x, plane, s=0)(dy, dx) for plane in planes])
    return torch.cat([torch.from_numpy(resized).flatten(1).T.to(table.dtype), extra])


def _geometric_offsets(size: int, wanted: int) -> np.ndarray:
    """Where `size` offsets lie so that, growing by one ratio, they reach `wanted // 2`."""
    if size == wanted:
        return np.arange(size) - size // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio ** (size // 2)) / (1 - ratio) > wanted // 2:
            high = ratio
        else:
            low = ratio
    half = np.cumsum(ratio ** np.arange(size // 2))
    return np.concatenate([-half[::-1], [0], half])


def inflate_swin_table(table: Tensor, depth: int) -> Tensor:
    """A 2D Swin's table for 3D windows: every depth offset gets the 2D one (Liu et al. 2021, Video Swin).

    Args:
        table: ((2h-1)(2w-1), heads).
        depth: the window's depth.

    Returns:
        Table ((2 depth - 1)(2h-1)(2w-1), heads).
    """
    return table.repeat(2 * depth - 1, 1)
