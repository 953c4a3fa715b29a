"""Windows -> volume where every slice of a window is predicted (target `all`)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class OverlapAverage:
    """Average overlapping slice predictions, holding only slices that a later window can touch.

    Feed the windows of one case in the order of their centre slices.

    Args:
        depth: slices of the case.
        slices: S.
        stride: distance of neighbouring window slices, or 0.
    """

    def __init__(self, depth: int, slices: int, stride: int):
        self.depth, self.reach = depth, (slices // 2) * stride
        self.expected = 0
        self._sums: dict[int, Tensor] = {}

    def add(self, centre: int, indices: Sequence[int], planes: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Add a window's planes (S, K, H, W); yield finished slices as (index, sum (K, H, W)).

        The sum over windows has the argmax of the mean.
        """
        if centre != self.expected:
            raise ValueError(f'window {centre} came where {self.expected} was due: '
                             'one case\'s windows must come whole and in order')
        self.expected += 1
        for index, plane in zip(indices, planes, strict=True):
            held = self._sums.get(index)
            self._sums[index] = plane if held is None else torch.add(held, plane)
        last = centre == self.depth - 1
        for index in sorted(self._sums):
            # the next window's lowest slice is centre + 1 - reach, clamped at 0
            if last or index < max(centre + 1 - self.reach, 0):
                yield index, self._sums.pop(index)
