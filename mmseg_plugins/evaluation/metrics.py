"""Metrics: one registered function each, which evaluation, records, tables and comparisons find here by name.

Add one with one function, in a module that a config or a grid imports:

    @register_metric('volume_error', unit='ml', higher_is_better=False)
    def volume_error(pair):                     # a Pair: label map and prediction of one case
        label, prediction = pair.confusion.sum(1), pair.confusion.sum(0)
        return abs(prediction - label) * np.prod(pair.spacing) / 1000       # (K,), a figure for every label
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage

from ..datasets.catalogue import NSD_TOLERANCE
from ..errors import UserError, nearest
from ..keys import KEYS
from ..registering import register_once

PHYSICAL = re.compile(r'([mc]?m|[mcd]?l)(\^?[23]|[²³])?', re.IGNORECASE)  # units of length, area and volume
# Columns of a frame of results, beside those of metrics.
RESERVED = {'run', 'seed', 'label_id', 'label', 'headline', 'case', 'dataset', *KEYS}


@dataclass(frozen=True)
class Pair:
    """A label map and its prediction.

    Args:
        confusion: (K, K) int64 voxels, rows the label, columns the prediction.
        label, prediction: ids (D, H, W); None where the pair is all cases together.
        spacing: mm along (D, H, W).
        tolerance: mm by which surfaces may differ and still agree (`surface_tolerance`).
    """
    confusion: np.ndarray
    label: np.ndarray | None = None
    prediction: np.ndarray | None = None
    spacing: Sequence[float] = ()
    tolerance: float = NSD_TOLERANCE

    @property
    def labels(self) -> int:
        """K, background included."""
        return len(self.confusion)

    def masks(self, label: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Where label map and prediction have a label other than background: (d, h, w) bool each.

        Both are cut to the box around it with an empty rim, as the image's edge is no end of its surface. None: it
        is in neither.
        """
        boxes = [found[label - 1] for found in self._boxes if found[label - 1]]
        if not boxes:
            return None
        box = tuple(slice(min(side.start for side in sides), max(side.stop for side in sides))
                    for sides in zip(*boxes, strict=True))
        return tuple(np.pad(ids[box] == label, 1) for ids in (self.label, self.prediction))

    @cached_property
    def _boxes(self) -> list[list[tuple[slice, ...] | None]]:
        return [ndimage.find_objects(ids, self.labels - 1) for ids in (self.label, self.prediction)]


@dataclass(frozen=True)
class Metric:
    """A registered metric; called with a Pair it gives (K,) float64, NaN where a label has no figure.

    Args:
        name: in records, frames and options.
        title: in tables.
        unit: of its figures, `''` for a bare number. One in mm, mm3, ml or the like has no figures of a dataset
            whose voxel sizes are nominal, and neither has one at a tolerance.
        higher_is_better: whether a greater figure is a better one.
        per_case: whether it is of every case, and a row's figure the mean of cases; else of all cases together,
            whose summed confusion matrix is all that it gets.
        best: what counts for a label that a case lacks and a row rightly leaves out, beside a row that predicts
            it; None: such a label does not count.
        at_tolerance: whether it depends on the pair's tolerance, which its title then tells.
    """
    name: str
    function: Callable[[Pair], np.ndarray]
    title: str
    unit: str
    higher_is_better: bool
    per_case: bool = True
    best: float | None = None
    at_tolerance: bool = False

    @property
    def needs_spacing(self) -> bool:
        """Whether its figures are true only where voxel sizes are."""
        return self.at_tolerance or bool(PHYSICAL.fullmatch(self.unit))

    def titled(self, tolerance: tuple[float, float]) -> 'Metric':
        """The metric with its figures' tolerance in its title: the least and the most mm of all cases."""
        return replace(self, title=f'{self.title} {format_tolerance(tolerance)}') if self.at_tolerance else self

    def __call__(self, pair: Pair) -> np.ndarray:
        figures = np.asarray(self.function(pair), float)
        if figures.shape != (pair.labels,) or np.isinf(figures).any():
            raise UserError(f'metric {self.name!r} gave {str(figures)[:60]}; it must give {pair.labels} figures, '
                            'one for every label, background included, each finite or NaN')
        return figures


METRICS: dict[str, Metric] = {}


def format_tolerance(tolerance: tuple[float, float]) -> str:
    """As `2 mm`, or `2.5 to 5 mm`."""
    return f'{" to ".join(dict.fromkeys(f"{mm:g}" for mm in tolerance))} mm'


def register_metric(name: str, unit: str = '', *, higher_is_better: bool, per_case: bool = True,
                    title: str | None = None, best: float | None = None, at_tolerance: bool = False
                    ) -> Callable[[Callable], Callable]:
    """Register a function `(Pair) -> (K,)`; the arguments are Metric's, the title by default name and unit."""
    def register(function: Callable[[Pair], np.ndarray]) -> Callable[[Pair], np.ndarray]:
        if not name.isidentifier() or name in RESERVED:
            raise UserError(f'metric {name!r}: choose another name, an identifier that no other column of a frame '
                            f'of results has; these are {", ".join(sorted(RESERVED))}')
        shown = title or (f'{name} ({unit})' if unit else name)
        metric = Metric(name, function, shown, unit, higher_is_better, per_case, best, at_tolerance)
        register_once(METRICS, name, 'metric')(metric)
        return function
    return register


def choose_metrics(names: Sequence[str] | None = None, nominal_spacing: bool = False) -> list[Metric]:
    """Metrics by name; None: all that are registered and that the dataset can have.

    Args:
        nominal_spacing: whether the dataset's voxel sizes are nominal.

    Raises:
        UserError: no such metric, or it needs true voxel sizes.
    """
    for name in names or ():
        if name not in METRICS:
            raise UserError(f'no metric {name!r}{nearest(name, METRICS)}')
        if nominal_spacing and METRICS[name].needs_spacing:
            raise UserError(f'metric {name!r} needs true voxel sizes, and those of this dataset are nominal; '
                            'leave it out')
    chosen = [METRICS[name] for name in (METRICS if names is None else names)]
    return [metric for metric in chosen if not (nominal_spacing and metric.needs_spacing)]


def _dice(pair: Pair) -> np.ndarray:
    both, sizes = np.diagonal(pair.confusion), pair.confusion.sum(0) + pair.confusion.sum(1)
    return np.where(sizes > 0, 200.0 * both / np.maximum(sizes, 1), np.nan)


@register_metric('dsc_pooled', '%', higher_is_better=True, per_case=False, title='DSC pooled')
def dsc_pooled(pair: Pair) -> np.ndarray:
    """Dice from sums over all voxels of all cases; NaN where a label is in none of them."""
    return _dice(pair)


@register_metric('dsc', '%', higher_is_better=True, title='DSC case', best=100.0)
def dsc(pair: Pair) -> np.ndarray:
    """Dice of a case; NaN where label and prediction lack the label, 0 where one of them does."""
    return _dice(pair)


def _of_surfaces(pair: Pair, figure: Callable, one_lacks_it: float) -> np.ndarray:
    """A figure of two masks (1, 1, d, h, w), organ by organ; NaN for background and where both lack the organ."""
    import torch

    figures = np.full(pair.labels, np.nan)
    for organ in range(1, pair.labels):
        if masks := pair.masks(organ):
            truth, found = (torch.from_numpy(mask[None, None]) for mask in masks)
            figures[organ] = figure(found.float(), truth.float()) if truth.any() and found.any() else one_lacks_it
    return figures


@register_metric('hd95', 'mm', higher_is_better=False, title='HD95 (mm)')
def hd95(pair: Pair) -> np.ndarray:
    """The larger of both directions' 95th percentiles of distances; NaN where one of the two lacks the organ."""
    from monai.metrics import compute_hausdorff_distance

    spacing = tuple(map(float, pair.spacing))
    return _of_surfaces(pair, lambda found, truth: compute_hausdorff_distance(
        found, truth, include_background=True, percentile=95, spacing=spacing).item(), np.nan)


@register_metric('nsd', '%', higher_is_better=True, title='NSD', best=100.0, at_tolerance=True)
def nsd(pair: Pair) -> np.ndarray:
    """Normalized surface Dice at the pair's tolerance, 0 where one of the two lacks the organ.

    Nikolov et al. 2021; surface elements are weighted by area.
    """
    from monai.metrics import compute_surface_dice

    spacing = tuple(map(float, pair.spacing))
    return _of_surfaces(pair, lambda found, truth: 100 * compute_surface_dice(
        found, truth, [pair.tolerance], include_background=True, spacing=spacing, use_subvoxels=True).item(), 0.0)
