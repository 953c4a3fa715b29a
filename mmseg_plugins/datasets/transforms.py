"""Augmentation of windows, in-plane only: depth is never zoomed, the label stays the centre slice's.

All work on `window` (C * S, H, W) and `planes` (label planes, H, W) and touch only pixels that
survive. Order and probabilities follow the paper's Table 6 and released code (zoom, crop, flips,
rotation, shift, pad); scaling to [-1, 1] happens on the device, in WindowPreProcessor. Randomness is
numpy's global generator, which mmengine seeds per worker.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample

cv2.setNumThreads(0)  # the loader's workers are the parallelism


def resize_planes(planes: np.ndarray, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Resize (N, H, W) to (N, *size): by area where it shrinks, bilinear where it grows."""
    if planes.shape[1:] == tuple(size):
        return planes
    shrinks = size[0] < planes.shape[1] or size[1] < planes.shape[2]
    how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(plane, size[::-1], interpolation=how) for plane in planes])


def fill_values(results: dict) -> np.ndarray:
    """Per channel of the window: the low end of its range, or what of it the dtype can hold, as (C * S,)."""
    low = np.repeat([low for low, _ in results['intensity_range']], results['slices'])
    dtype = results['window'].dtype
    if dtype.kind in 'iu':
        low = np.clip(low, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return low.astype(dtype)


@TRANSFORMS.register_module()
class ResizeWindow(BaseTransform):
    """Resize the window (never the label) to the network's input size, for evaluation.

    Args:
        size: (height, width).
    """

    def __init__(self, size: Sequence[int]):
        self.size = tuple(size)

    def transform(self, results: dict) -> dict:
        results['window'] = resize_planes(results['window'], self.size)
        return results


@TRANSFORMS.register_module()
class RandomZoomCrop(BaseTransform):
    """Zoom the slice, brought to `size`, by a random factor; crop (> 1) or pad (< 1) back to `size`.

    Args:
        size: (height, width) of the result.
        zoom: (least, most) factor.
    """

    def __init__(self, size: Sequence[int], zoom: Sequence[float] = (0.5, 2.0)):
        self.size, self.zoom = tuple(size), tuple(zoom)

    def transform(self, results: dict) -> dict:
        window, planes = results['window'], results['planes']
        native, size = np.array(window.shape[1:]), np.array(self.size)
        zoom = np.random.uniform(*self.zoom)
        if zoom >= 1:
            # The crop is taken from the source before anything is resized.
            extent = np.maximum(np.round(native / zoom).astype(int), 1)
            y, x = np.random.randint(0, native - extent + 1)
            region = np.s_[:, y:y + extent[0], x:x + extent[1]]
            results['window'] = resize_planes(np.ascontiguousarray(window[region]), self.size)
            results['planes'] = resize_planes(np.ascontiguousarray(planes[region]), self.size, True)
            return results
        inner = np.maximum(np.round(size * zoom).astype(int), 1)
        y, x = (size - inner) // 2
        region = np.s_[:, y:y + inner[0], x:x + inner[1]]
        padded = np.empty((len(window), *self.size), window.dtype)
        padded[:] = fill_values(results)[:, None, None]
        padded[region] = resize_planes(window, tuple(inner))
        labels = np.zeros((len(planes), *self.size), planes.dtype)
        labels[region] = resize_planes(planes, tuple(inner), True)
        results['window'], results['planes'] = padded, labels
        return results


@TRANSFORMS.register_module()
class RandomTranslate(BaseTransform):
    """Move the slice by up to `pixels` along each axis; the edge is repeated, its label background.

    Args:
        pixels: largest displacement.
    """

    def __init__(self, pixels: int):
        self.pixels = pixels

    def transform(self, results: dict) -> dict:
        shift = np.random.randint(-self.pixels, self.pixels + 1, size=2)
        height, width = results['window'].shape[1:]
        rows, columns = np.arange(height) + shift[0], np.arange(width) + shift[1]
        inside = np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))
        results['window'] = results['window'][:, inside[0], inside[1]]
        labels = results['planes'][:, inside[0], inside[1]]
        labels[:, (rows < 0) | (rows >= height)] = 0
        labels[:, :, (columns < 0) | (columns >= width)] = 0
        results['planes'] = labels
        return results


@TRANSFORMS.register_module()
class RandomWindowFlip(BaseTransform):
    """Flip height, width and depth, each with probability `prob` (paper: 0.1).

    The depth flip reverses the window; with an even number of slices the centre would move off the
    labelled slice, so it is left out there.
    """

    def __init__(self, prob: float = 0.1, depth: bool = True):
        self.prob, self.depth = prob, depth

    def transform(self, results: dict) -> dict:
        height, width, depth = np.random.rand(3) < self.prob
        axes = [axis for axis, flip in ((1, height), (2, width)) if flip]
        results['window'] = np.flip(results['window'], axes)
        results['planes'] = np.flip(results['planes'], axes)
        if depth and self.depth and results['slices'] % 2:
            window = results['window']
            results['window'] = window.reshape(-1, results['slices'], *window.shape[1:])[
                :, ::-1].reshape(window.shape)
            results['planes'] = results['planes'][::-1]
        return results


@TRANSFORMS.register_module()
class RandomRotate90(BaseTransform):
    """Rotate by a random multiple of 90 degrees with probability `prob` (180 where not square)."""

    def __init__(self, prob: float = 0.1):
        self.prob = prob

    def transform(self, results: dict) -> dict:
        rotate, turns = np.random.rand() < self.prob, np.random.randint(1, 4)
        if rotate:
            height, width = results['window'].shape[1:]
            turns = turns if height == width else 2
            results['window'] = np.rot90(results['window'], turns, (1, 2))
            results['planes'] = np.rot90(results['planes'], turns, (1, 2))
        return results


@TRANSFORMS.register_module()
class RandomIntensityShift(BaseTransform):
    """Shift the scaled intensities by up to `offset` with probability `prob` (paper: 0.1, 0.5).

    Only draws the value; WindowPreProcessor adds it after scaling.
    """

    def __init__(self, offset: float = 0.1, prob: float = 0.5):
        self.offset, self.prob = offset, prob

    def transform(self, results: dict) -> dict:
        shift = np.random.uniform(-self.offset, self.offset)
        results['intensity_shift'] = float(shift) if np.random.rand() < self.prob else 0.0
        return results


@TRANSFORMS.register_module()
class PackWindow(BaseTransform):
    """Window and label planes -> what mmseg's segmentors take; dtypes stay as they are."""

    META = ('case', 'slice', 'depth', 'stride', 'indices', 'slices', 'ori_shape', 'intensity_range',
            'intensity_shift', 'spacing')

    def transform(self, results: dict) -> dict:
        sample = SegDataSample(gt_sem_seg=PixelData(
            data=torch.from_numpy(results['planes'].copy())))
        sample.set_metainfo({key: results[key] for key in self.META if key in results})
        sample.set_metainfo(dict(img_shape=results['window'].shape[1:]))
        return dict(inputs=torch.from_numpy(results['window'].copy()),
                    data_samples=sample)
