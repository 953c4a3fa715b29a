"""Surface metrics of one case, in mm at native resolution; MONAI computes them, organ by organ."""

from collections.abc import Sequence

import numpy as np

TOLERANCE = 2.0  # mm


def surface_scores(label: np.ndarray, prediction: np.ndarray, classes: int, spacing: Sequence[float],
                   tolerance: float = TOLERANCE) -> tuple[np.ndarray, np.ndarray]:
    """95th percentile Hausdorff distance and normalized surface Dice of every label of a case.

    Args:
        label: ids (D, H, W) uint8.
        prediction: ids (D, H, W) uint8.
        classes: K.
        spacing: mm along (D, H, W).
        tolerance: mm by which surfaces may differ in NSD (Nikolov et al. 2021; surface elements weighted by area).

    Returns:
        HD95 in mm (K,): the larger of both directions, NaN where label or prediction lacks the organ.
        NSD in percent (K,): NaN where both lack it, 0 where one does.
        Background has none (NaN).
    """
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    spacing = tuple(float(size) for size in spacing)
    distance, surface_dice = np.full(classes, np.nan), np.full(classes, np.nan)
    for organ in range(1, classes):
        masks = [array == organ for array in (label, prediction)]
        present = [mask.any() for mask in masks]
        if not any(present):
            continue
        surface_dice[organ] = 0.0
        if not all(present):
            continue
        box = _bounding_box(masks[0] | masks[1])
        # an empty rim: the image's edge is no end of the organ's surface
        truth, found = (torch.from_numpy(np.pad(mask[box], 1)[None, None]).float() for mask in masks)
        distance[organ] = compute_hausdorff_distance(
            found, truth, include_background=True, percentile=95, spacing=spacing).item()
        surface_dice[organ] = 100 * compute_surface_dice(
            found, truth, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True).item()
    return distance, surface_dice


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    sides = []
    for axis in range(3):
        held = np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))
        sides.append(slice(held[0], held[-1] + 1))
    return tuple(sides)
