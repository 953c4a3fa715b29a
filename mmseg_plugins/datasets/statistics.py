"""Facts of a case that are computed once, when it is read: what tables, checks and ranges are made from."""

import hashlib

import numpy as np

from .intensity import channel_statistics
from .volumes import Volume


def describe_volume(volume: Volume, classes: int) -> dict:
    """A volume's geometry, intensities, labels and content, ready for JSON.

    Args:
        volume: with its label.
        classes: K with background.

    Returns:
        `shape` (D, C, H, W), `dtype`, `stored` (dtypes in the files), `spacing` in mm along (D, H, W), `affine`,
        `axes`, `flips`, `orientation`, the five per-channel statistics of intensity.py, `voxels`, `slices` and
        `variation` per label (see `label_statistics`), `image_sha256`, and `sha256` of image and label.
    """
    image = np.ascontiguousarray(volume.image)
    content = hashlib.sha256(image)
    image_hash = content.hexdigest()
    content.update(np.ascontiguousarray(volume.label))
    return dict(
        shape=list(image.shape), dtype=str(image.dtype), stored=list(volume.stored), spacing=volume.spacing,
        affine=volume.affine.tolist(), axes=volume.axes, flips=volume.flips, orientation=volume.orientation,
        **channel_statistics(image), **label_statistics(volume.label, classes), notes=list(volume.notes),
        image_sha256=image_hash, sha256=content.hexdigest())


def label_statistics(label: np.ndarray, classes: int) -> dict[str, list]:
    """What the paper's Table 3 counts of each label.

    Args:
        label: (D, H, W).
        classes: K.

    Returns:
        Lists of K: `voxels`; `slices` that hold the label; `variation` as (sum, number) of the Dice in percent
        between the label in a slice and in the next, over pairs of slices of which at least one holds it.
    """
    depth = len(label)
    planes = label.reshape(depth, -1)
    counts = np.stack([np.bincount(plane, minlength=classes) for plane in planes])
    both = np.stack([np.bincount(here[here == after], minlength=classes)
                     for here, after in zip(planes[:-1], planes[1:], strict=True)]
                    ) if depth > 1 else np.zeros((0, classes), np.int64)
    sizes = counts[:-1] + counts[1:]
    dice = np.where(sizes > 0, 200.0 * both / np.maximum(sizes, 1), 0.0)
    return dict(voxels=counts.sum(0).tolist(), slices=(counts > 0).sum(0).tolist(),
                variation=[[round(float(total), 4), int(number)]
                           for total, number in zip(dice.sum(0), (sizes > 0).sum(0), strict=True)])
