"""Planes of a volume: read, cropped, resized and turned.

Fresh memory costs more than the work done in it, since the system clears it page by page. So a plane is
read, cropped and resized through memory that is used again and again, straight into the one new array,
which is the result.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterator

import blosc2
import cv2
import numpy as np

from ..errors import UserError

# The loader's workers are the parallelism.
blosc2.set_nthreads(1)
cv2.setNumThreads(0)
HUGE_PAGE = 2**21
_scratch = threading.local()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to be filled; a large one on huge pages, which are cleared many times faster.

    numpy asks the system for huge pages from 4 MB on; they fit where an address is a multiple of their size.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < HUGE_PAGE // 2:
        return np.empty(shape, dtype)
    memory = np.empty(size + 2 * HUGE_PAGE, np.uint8)  # what is never touched takes no memory
    start = -memory.ctypes.data % HUGE_PAGE
    return memory[start:start + size].view(dtype).reshape(shape)


def scratch(use: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to pass through, in memory that the next call for this use (in this thread) gets again."""
    size = math.prod(shape) * dtype.itemsize
    memory = vars(_scratch).get(use)
    if memory is None or memory.nbytes < size:
        memory = vars(_scratch)[use] = empty((size,), np.dtype(np.uint8))
    return memory[:size].view(dtype).reshape(shape)


class Planes:
    """Chosen planes of a stored array, themselves an array (N, H, W) whose pixels are read when asked for.

    To numpy it is any array, read as a whole. `read` is for those who need a part of each plane.

    Args:
        array: (D, H, W) or (D, C, H, W), numpy's or blosc2's.
        indices: slices, any number of times each. N is their number, times C, channel-major.
    """
    ndim = 3

    def __init__(self, array: np.ndarray | blosc2.NDArray, indices: list[int]):
        self.array, self.indices, self.dtype = array, indices, array.dtype
        self.channels = array.shape[1] if array.ndim == 4 else 1
        self.shape = (self.channels * len(indices), *array.shape[-2:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key) -> np.ndarray:
        return np.asarray(self)[key]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        out = empty(self.shape, self.dtype)
        for places, plane in self.read():
            out[places] = plane
        return out if dtype is None else out.astype(dtype, copy=False)

    def read(self, rows: slice = slice(None), held: int = 1) -> Iterator[tuple[list[int], np.ndarray]]:
        """The rows of each distinct plane with all its places (clamped windows repeat the edge slice).

        Args:
            rows: without a step; others are not decompressed.
            held: how many of the arrays are used at a time; a later one takes an earlier one's memory.
        """
        start, stop, _ = rows.indices(self.shape[1])
        compressed = not isinstance(self.array, np.ndarray)
        if compressed:
            buffers = itertools.cycle(scratch('read', (held, stop - start, self.shape[2]), self.dtype))
        for z in dict.fromkeys(self.indices):
            places = [k for k, index in enumerate(self.indices) if index == z]
            for channel in range(self.channels):
                leading = (z, channel)[:self.array.ndim - 2]
                if compressed:
                    plane = next(buffers)
                    try:
                        self.array.get_slice_numpy(plane, ((*leading, start, 0),
                                                           (*(i + 1 for i in leading), stop, self.shape[2])))
                    except RuntimeError as error:
                        raise UserError(f'{self.array.schunk.urlpath}: damaged at slice {z}; delete its folder '
                                        'and prepare the dataset again') from error
                else:
                    plane = self.array[leading][rows]
                yield [channel * len(self.indices) + k for k in places], plane


def resize_planes(planes: np.ndarray | Planes, size: tuple[int, int], nearest: bool = False,
                  region: tuple[slice, slice] = (slice(None), slice(None)),
                  out: np.ndarray | None = None, enlarge: str = 'bilinear') -> np.ndarray:
    """Crop (N, H, W) to a region and resize it: by area where it shrinks, as `enlarge` says where it grows.

    Args:
        planes: (N, H, W).
        size: (height, width) of the result.
        nearest: keep label values.
        region: rows and columns, without a step.
        out: where to write, (N, *size); None makes an array.
        enlarge: `bilinear`, or `area`: a pixel is the mean of those that it touches, one or two along each axis.
            That is torch's adaptive average pooling, and what MONAI's transforms do when told `area`.
    """
    rows, columns = (range(*part.indices(whole)) for part, whole in zip(region, planes.shape[1:], strict=True))
    shrinks = size[0] < len(rows) or size[1] < len(columns)
    how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    by_area = how == cv2.INTER_LINEAR and enlarge == 'area'
    # Four channels at once cost the area method as much as two planes would.
    together = 4 if how == cv2.INTER_AREA else 1
    out = empty((len(planes), *size), planes.dtype) if out is None else out
    source = (planes.read(region[0], together) if isinstance(planes, Planes)
              else (([k], plane[region[0]]) for k, plane in enumerate(planes)))
    while group := list(itertools.islice(source, together)):
        crops, first = [plane[:, region[1]] for _, plane in group], [out[places[0]] for places, _ in group]
        if (len(rows), len(columns)) == size:
            first[0][:] = crops[0]
        elif by_area:  # rows are copied much faster than columns
            wide = cv2.transpose(_enlarge_rows(cv2.transpose(crops[0]), size[1]))
            _enlarge_rows(wide, size[0], first[0])
        elif len(group) == 1:
            cv2.resize(crops[0], size[::-1], dst=first[0], interpolation=how)
        else:
            merged = cv2.merge(crops, dst=scratch('merged', (*crops[0].shape, len(crops)), planes.dtype))
            resized = cv2.resize(merged, size[::-1], interpolation=how,
                                 dst=scratch('resized', (*size, len(crops)), planes.dtype))
            cv2.mixChannels([resized], first, [*np.repeat(range(len(group)), 2)])
        for places, _ in group:
            out[places[1:]] = out[places[0]]
    return out


def check_enlarge(enlarge: str) -> str:
    """`enlarge` of `resize_planes`; raises a ValueError for anything else."""
    if enlarge not in ('area', 'bilinear'):
        raise ValueError(f"enlarge {enlarge!r}: must be 'area' or 'bilinear'")
    return enlarge


def _enlarge_rows(plane: np.ndarray, number: int, out: np.ndarray | None = None) -> np.ndarray:
    """(H, W) -> (number, W), number >= H: each the mean of the first and the last row that it touches."""
    places = np.arange(number)
    first, last = places * len(plane) // number, -(-(places + 1) * len(plane) // number) - 1
    return cv2.addWeighted(plane.take(first, 0), 0.5, plane.take(last, 0), 0.5, 0, dst=out)


def turn_planes(planes: np.ndarray | Planes, turn: Callable, code: int) -> np.ndarray:
    """Turn each plane of (N, H, W) by cv2.flip or cv2.rotate: several times faster than copying numpy's view."""
    planes = np.asarray(planes)
    out = empty((len(planes), *turn(planes[0], code).shape), planes.dtype)
    for plane, place in zip(planes, out, strict=True):
        turn(plane, code, dst=place)
    return out
