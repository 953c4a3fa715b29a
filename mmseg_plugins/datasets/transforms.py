"""Augmentation of windows and crops, in-plane but for the depth flip: depth is never zoomed.

All work on `window` (C * S, H, W) and `planes` (label planes, H, W) and touch only pixels that
survive. Order and probabilities follow the paper's Table 6 and released code (zoom, crop, flips,
rotation, shift, pad); scaling to [-1, 1] happens on the device, in WindowPreProcessor. Randomness is
numpy's global generator, which PreparedDataset seeds for every sample.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample

from ..errors import check_number
from .planes import check_enlarge, empty, resize_planes, turn_planes


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
        enlarge: `area` or `bilinear`, where the network's input is the larger (`resize_planes`).
    """

    def __init__(self, size: Sequence[int], enlarge: str = 'bilinear'):
        self.size, self.enlarge = tuple(size), check_enlarge(enlarge)

    def transform(self, results: dict) -> dict:
        if results['window'].shape[1:] != self.size:
            results['window'] = resize_planes(results['window'], self.size, enlarge=self.enlarge)
        return results


@TRANSFORMS.register_module()
class RandomZoomCrop(BaseTransform):
    """Zoom the slice, brought to `size`, by a random factor; crop (> 1) or pad (< 1) back to `size`.

    Args:
        size: (height, width) of the result.
        zoom: (least, most) factor.
        enlarge: `area` or `bilinear`, what a slice is enlarged by (`resize_planes`).
    """

    def __init__(self, size: Sequence[int], zoom: Sequence[float] = (0.5, 2.0), enlarge: str = 'bilinear'):
        least, most = zoom
        self.size, self.enlarge = tuple(size), check_enlarge(enlarge)
        self.zoom = check_number('zoom', least, 0.01, most), check_number('zoom', most, least)

    def transform(self, results: dict) -> dict:
        window, planes = results['window'], results['planes']
        native, size = np.array(window.shape[1:]), np.array(self.size)
        zoom = np.random.uniform(*self.zoom)
        if zoom >= 1:
            # The crop is taken from the source before anything is resized.
            extent = np.maximum(np.round(native / zoom).astype(int), 1)
            y, x = np.random.randint(0, native - extent + 1)
            region = np.s_[y:y + extent[0], x:x + extent[1]]
            results['window'] = resize_planes(window, self.size, region=region, enlarge=self.enlarge)
            results['planes'] = resize_planes(planes, self.size, True, region)
            return results
        inner = np.maximum(np.round(size * zoom).astype(int), 1)
        y, x = (size - inner) // 2
        region = np.s_[:, y:y + inner[0], x:x + inner[1]]
        padded = empty((len(window), *self.size), window.dtype)
        fill = fill_values(results)[:, None, None]
        for border in (np.s_[:, :y], np.s_[:, y + inner[0]:],
                       np.s_[:, y:y + inner[0], :x], np.s_[:, y:y + inner[0], x + inner[1]:]):
            padded[border] = fill
        resize_planes(window, tuple(inner), out=padded[region], enlarge=self.enlarge)
        labels = np.zeros((len(planes), *self.size), planes.dtype)
        resize_planes(planes, tuple(inner), True, out=labels[region])
        results['window'], results['planes'] = padded, labels
        return results


@TRANSFORMS.register_module()
class RandomTranslate(BaseTransform):
    """Move the slice by up to `pixels` along each axis; the edge is repeated, its label background.

    Args:
        pixels: largest displacement.
    """

    def __init__(self, pixels: int):
        self.pixels = int(check_number('pixels', pixels, 0))

    def transform(self, results: dict) -> dict:
        shift = np.random.randint(-self.pixels, self.pixels + 1, size=2)
        height, width = results['window'].shape[1:]
        rows, columns = np.arange(height) + shift[0], np.arange(width) + shift[1]
        inside = rows.clip(0, height - 1), columns.clip(0, width - 1)
        results['window'], labels = (np.asarray(results[name]).take(inside[0], 1).take(inside[1], 2)
                                     for name in ('window', 'planes'))
        labels[:, (rows < 0) | (rows >= height)] = 0
        labels[:, :, (columns < 0) | (columns >= width)] = 0
        results['planes'] = labels
        return results


@TRANSFORMS.register_module()
class RandomWindowFlip(BaseTransform):
    """Flip height, width and depth, each with probability `prob` (paper: 0.1).

    The depth flip reverses the window; with an even number of slices the centre would move off the
    labelled slice, so it is left out there. A crop, all of whose slices are labelled, it reverses always.
    """

    def __init__(self, prob: float = 0.1, depth: bool = True):
        self.prob, self.depth = check_number('prob', prob, 0, 1), depth

    def transform(self, results: dict) -> dict:
        height, width, depth = np.random.rand(3) < self.prob
        if height or width:
            code = -1 if height and width else int(width)
            for name in ('window', 'planes'):
                results[name] = turn_planes(results[name], cv2.flip, code)
        if depth and self.depth and (results['slices'] % 2 or 'crop' in results):
            window = np.asarray(results['window'])
            results['window'] = window.reshape(-1, results['slices'], *window.shape[1:])[
                :, ::-1].reshape(window.shape)
            results['planes'] = results['planes'][::-1]
        return results


@TRANSFORMS.register_module()
class RandomRotate90(BaseTransform):
    """Rotate by a random multiple of 90 degrees with probability `prob` (180 where not square)."""

    def __init__(self, prob: float = 0.1):
        self.prob = check_number('prob', prob, 0, 1)

    def transform(self, results: dict) -> dict:
        rotate, turns = np.random.rand() < self.prob, np.random.randint(1, 4)
        if rotate:
            height, width = results['window'].shape[1:]
            code = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)[
                turns - 1 if height == width else 1]
            for name in ('window', 'planes'):
                results[name] = turn_planes(results[name], cv2.rotate, code)
        return results


@TRANSFORMS.register_module()
class RandomWindowRotFlip(BaseTransform):
    """Turn and flip, else rotate by a few degrees, else nothing (TransUNet, Chen et al. 2021).

    With probability `flip_prob` a random multiple of 90 degrees (none included) and a flip of one of the two axes.
    Where that was not drawn, with probability `rotate_prob` a rotation about the centre, nearest pixel; what
    comes in from outside is the low end of the range, its label background.

    Args:
        flip_prob: of turn and flip.
        rotate_prob: of the rotation, where there is no turn.
        degree: largest angle.
    """

    def __init__(self, flip_prob: float = 0.5, rotate_prob: float = 0.5, degree: float = 20.0):
        self.flip_prob = check_number('flip_prob', flip_prob, 0, 1)
        self.rotate_prob = check_number('rotate_prob', rotate_prob, 0, 1)
        self.degree = check_number('degree', degree, 0, 180)

    def transform(self, results: dict) -> dict:
        flip, rotate = np.random.rand(2) < (self.flip_prob, self.rotate_prob)
        turns, axis = np.random.randint(4), np.random.randint(1, 3)
        angle = np.radians(np.random.uniform(-self.degree, self.degree))
        if flip:
            for name in ('window', 'planes'):
                results[name] = np.flip(np.rot90(results[name], turns, (1, 2)), axis)
        elif rotate:
            height, width = results['window'].shape[1:]
            middle, (sine, cosine) = ((height - 1) / 2, (width - 1) / 2), (np.sin(angle), np.cos(angle))
            rows, columns = np.arange(height)[:, None] - middle[0], np.arange(width) - middle[1]
            y = np.rint(cosine * rows - sine * columns + middle[0]).astype(int)
            x = np.rint(sine * rows + cosine * columns + middle[1]).astype(int)
            outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
            for name, fill in (('window', fill_values(results)), ('planes', np.zeros(1, np.uint8))):
                results[name] = np.asarray(results[name])[:, y.clip(0, height - 1), x.clip(0, width - 1)]
                results[name][:, outside] = fill[:, None]
        return results


@TRANSFORMS.register_module()
class RandomIntensityShift(BaseTransform):
    """Shift the scaled intensities, which span -1 to 1, by up to `offset` with probability `prob`.

    The paper has 0.1 and 0.5; in its code intensities span 0 to 1, so that its 0.1 is 0.2 here (docs/recipe.md).
    Only draws the value; WindowPreProcessor adds it after scaling.
    """

    def __init__(self, offset: float = 0.1, prob: float = 0.5):
        self.offset, self.prob = check_number('offset', offset, 0), check_number('prob', prob, 0, 1)

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
        window, planes = (self._tensor(np.asarray(results[name])) for name in ('window', 'planes'))
        sample = SegDataSample(gt_sem_seg=PixelData(data=planes))
        sample.set_metainfo({key: results[key] for key in self.META if key in results})
        sample.set_metainfo(dict(img_shape=window.shape[1:]))
        return dict(inputs=window, data_samples=sample)

    @staticmethod
    def _tensor(array: np.ndarray) -> torch.Tensor:
        # Only a view is copied. To numpy, a flipped axis of length one is still in order; not to torch.
        in_order = array.flags.c_contiguous and min(array.strides) > 0
        if not in_order:
            array, view = empty(array.shape, array.dtype), array
            array[:] = view
        return torch.from_numpy(array)
