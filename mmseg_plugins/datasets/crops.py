"""Crops and whole volumes of prepared cases, for networks that take volumes.

A crop is a window whose slices all lie within it and are all labelled, so that the augmentation of windows serves
it (transforms.py), and so do their sampler and their intensity scaling.
"""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import DATASETS, TRANSFORMS

from ..errors import check_number
from .planes import Planes, empty, resize_planes
from .transforms import fill_values
from .windows import PreparedDataset


@DATASETS.register_module()
class CropDataset(PreparedDataset):
    """One sample per case of a split: a random crop in training (LoadCrop), all of it in evaluation (LoadVolume).

    WindowSampler deals the cases out in an endless shuffle, each time with another seed and so for another crop.

    Args:
        data_root, split, protocol: PreparedDataset's.
        crop: (D, H, W) in voxels.
        spacing: mm of a voxel along (D, H, W) that volumes are resampled to; None: each as it is.

    A sample starts as dict(case, depth, crop, resampled, intensity_range, ...); `resampled` is the whole case's
    (D, H, W) at that spacing.
    """

    def __init__(self, data_root: str, split: str, crop: Sequence[int], spacing: Sequence[float] | None = None,
                 **kwargs):
        self.crop, self.voxel = tuple(crop), spacing
        super().__init__(data_root, split, **kwargs)

    def list_samples(self, case: str) -> list[dict]:
        common = self.describe_case(case)
        shape = (common['depth'], *common['ori_shape'])
        return [common | dict(crop=self.crop, resampled=resampled_shape(shape, common['spacing'], self.voxel))]


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], voxel: Sequence[float] | None
                    ) -> tuple[int, int, int]:
    """(D, H, W) of a volume with voxels of another size, at least one along each axis.

    Args:
        shape: (D, H, W) as it is.
        spacing: mm of its voxels along (D, H, W).
        voxel: mm that they are to have; None: the same.
    """
    return tuple(max(round(side * have / want), 1)
                 for side, have, want in zip(shape, spacing, voxel or spacing, strict=True))


def resample(planes: Planes, size: Sequence[int], nearest: bool = False,
             region: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
    """Slices (C * D, H, W), cut to a region of the plane, as (C * D', H', W').

    In the plane as `resize_planes` does it; in depth linearly between two slices, which keeps labels apart by
    taking the nearest one.

    Args:
        size: (D', H', W').
    """
    depth = len(planes.indices)
    flat = resize_planes(planes, tuple(size[1:]), nearest, region)
    if depth == size[0]:
        return flat
    stack = flat.reshape(planes.channels, depth, *size[1:])
    places = ((np.arange(size[0]) + 0.5) * depth / size[0] - 0.5).clip(0, depth - 1)
    if nearest:
        return stack[:, np.floor(places + 0.5).astype(int)].reshape(-1, *size[1:])
    out = empty((planes.channels, size[0], *size[1:]), planes.dtype)
    for number, place in enumerate(places):
        lower = int(place)
        upper, share = min(lower + 1, depth - 1), np.float32(place - lower)
        between = stack[:, lower] + (stack[:, upper].astype(np.float32) - stack[:, lower]) * share
        out[:, number] = between if planes.dtype.kind == 'f' else between.round()
    return out.reshape(-1, *size[1:])


@TRANSFORMS.register_module()
class LoadCrop(BaseTransform):
    """Read a random crop; where a volume is smaller than it, the volume in its middle.

    Around is what augmentation fills with: the low end of the intensities, and background.

    Args:
        foreground: share of the crops in whose middle is a labelled voxel, any with the same probability, as far
            as the volume's ends allow. The others lie anywhere within the volume.

    Sets `window` (C * D, H, W) in the volume's dtype, `planes` (D, H, W) uint8, and `slice`, the crop's middle one
    in the volume.
    """

    def __init__(self, foreground: float = 0.5):
        self.foreground = check_number('foreground', foreground, 0, 1)

    def transform(self, results: dict) -> dict:
        store, case, crop = results.pop('store'), results['case'], np.array(results['crop'])
        shape = np.array((results['depth'], *results['ori_shape']))
        scale = np.array(results['resampled']) / shape
        extent = np.maximum(np.round(crop / scale).astype(int), 1)  # of the crop in stored voxels
        start = self._choose(store, case, shape, extent)
        first, last = np.maximum(start, 0), np.minimum(start + extent, shape)
        size = np.clip(np.round((last - first) * crop / extent).astype(int), 1, crop)
        place = np.clip(np.round((first - start) * crop / extent).astype(int), 0, crop - size)
        indices, region = list(range(first[0], last[0])), tuple(map(slice, first[1:], last[1:]))
        window = resample(store.window(case, indices), size, region=region)
        planes = resample(store.label(case, indices), size, True, region)
        results |= dict(window=window, planes=planes, slices=int(crop[0]), slice=int((first[0] + last[0]) // 2))
        if (size < crop).any():
            inside = tuple(map(slice, place, place + size))
            fill = fill_values(results).reshape(-1, crop[0], 1, 1)
            padded = np.broadcast_to(fill, (len(fill), *crop)).copy()
            padded[(slice(None), *inside)] = window.reshape(-1, *size)
            results['window'] = padded.reshape(-1, *crop[1:])
            results['planes'] = np.zeros(tuple(crop), planes.dtype)
            results['planes'][inside] = planes
        return results

    def _choose(self, store, case: str, shape: np.ndarray, extent: np.ndarray) -> np.ndarray:
        """The crop's first voxel (z, y, x), below 0 where it is larger than the volume."""
        start = np.random.randint(0, np.maximum(shape - extent, 0) + 1)
        labelled = store.labelled(case)
        if np.random.rand() < self.foreground and (total := labelled.sum()):
            z = int(np.searchsorted(np.cumsum(labelled), np.random.randint(total), side='right'))
            rows, columns = np.nonzero(np.asarray(store.label(case, [z]))[0])
            chosen = np.random.randint(len(rows))
            start = np.array((z, rows[chosen], columns[chosen])) - extent // 2
            start = np.clip(start, 0, np.maximum(shape - extent, 0))
        return np.where(extent > shape, (shape - extent) // 2, start)


@TRANSFORMS.register_module()
class LoadVolume(BaseTransform):
    """Read a whole case: `window` (C * D', H', W') at the dataset's spacing, and `planes` (D, H, W) as stored."""

    def transform(self, results: dict) -> dict:
        store, indices = results.pop('store'), list(range(results['depth']))
        results['window'] = resample(store.window(results['case'], indices), results['resampled'])
        results['planes'] = store.label(results['case'], indices)
        results['slices'] = results['resampled'][0]
        return results
