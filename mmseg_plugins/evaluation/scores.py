"""Scores at native resolution: an integer confusion matrix per case, streamed slice by slice, and whole cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS as EVALUATORS  # mmseg's word for what computes all of ours
from torch import Tensor

from ..datasets.catalogue import NSD_TOLERANCE, surface_tolerance
from .assembly import OverlapAverage
from .metrics import Metric, Pair, choose_metrics


@dataclass(frozen=True)
class Scores:
    """Figures of cases by metric.

    Args:
        cases: names, N.
        figures: metric -> (N, K), or (K,) where it is of all cases together; NaN where a label has none.
        tolerance: the least and the most mm of all cases by which surfaces may differ and still agree.
        confusion: of all cases together, of which the latter are made; (K, K), and a label more where cases of
            label maps are missing, whose voxels are predicted as that.
    """
    cases: Sequence[str]
    figures: dict[str, np.ndarray]
    tolerance: tuple[float, float]
    confusion: np.ndarray

    def by_label(self, metric: str) -> np.ndarray:
        """(K,): the mean of the cases that have a figure, or that of all cases together."""
        figures = self.figures[metric]
        return mean_over_cases(figures) if figures.ndim == 2 else figures


@dataclass(frozen=True)
class ScoredCase:
    """What is kept of a case: its confusion matrix (K, K), and (K,) of every metric that is per case."""
    confusion: np.ndarray
    figures: dict[str, np.ndarray]
    tolerance: float = NSD_TOLERANCE


def score_case(pair: Pair, metrics: Sequence[Metric]) -> ScoredCase:
    return ScoredCase(pair.confusion, {metric.name: metric(pair) for metric in metrics if metric.per_case},
                      pair.tolerance)


def collect_scores(cases: dict[str, ScoredCase], metrics: Sequence[Metric]) -> Scores:
    """The scores of all cases, by name."""
    names = sorted(cases)
    together = Pair(sum(case.confusion for case in cases.values()))
    tolerances = [case.tolerance for case in cases.values()]
    return Scores(names, {metric.name: np.stack([cases[name].figures[metric.name] for name in names])
                          if metric.per_case else metric(together) for metric in metrics},
                  (min(tolerances), max(tolerances)), together.confusion)


def compare(label: np.ndarray, prediction: np.ndarray, labels: int, spacing: Sequence[float],
            tolerance: float = NSD_TOLERANCE) -> Pair:
    """A case's label map and prediction (D, H, W), whose ids are below `labels`, as a Pair.

    Args:
        tolerance: the dataset's, in mm.
    """
    counts = (confusion_matrix(*map(torch.from_numpy, planes), labels)
              for planes in zip(label, prediction, strict=True))
    return Pair(sum(counts), label, prediction, spacing, surface_tolerance(tolerance, spacing))


def mean_over_cases(values: np.ndarray) -> np.ndarray:
    """(N, K) -> (K,), over the cases where it is a number; NaN where it is nowhere."""
    counted = (~np.isnan(values)).sum(0)
    return np.where(counted > 0, np.nansum(values, 0) / np.maximum(counted, 1), np.nan)


def confusion_matrix(label: Tensor, prediction: Tensor, classes: int) -> np.ndarray:
    """(K, K) int64 counts, rows the label, columns the prediction; exact for any size.

    A voxel becomes one code, of a byte where that holds K * K values, and codes are counted where the
    tensors are: from a GPU only the counts come back. Plane by plane is fastest, as codes stay in the cache.

    Raises:
        ValueError: an id is not in 0..K-1.
    """
    for name, ids in (('label', label), ('prediction', prediction)):
        low, high = map(int, torch.aminmax(ids))
        if low < 0 or high >= classes:
            raise ValueError(f'{name} {low if low < 0 else high} outside 0..{classes - 1}')
    code = torch.uint8 if classes <= 16 else torch.int32
    codes = torch.add(prediction.flatten().to(code), label.flatten().to(code), alpha=classes)
    return torch.bincount(codes, minlength=classes * classes).reshape(classes, classes).cpu().numpy()


@EVALUATORS.register_module()
class CaseMetric(BaseMetric):
    """Every registered metric of every label; the same figures for any number of processes.

    Every process keeps what was scored of its cases, and the volume of the case at hand, whose windows must come
    whole and in order.

    Args:
        headline: label ids whose mean is given; None: all but background.
        only: names of the only metrics that are wanted (metrics.py); None: all that the dataset can have.
            mmengine takes a part that says `metrics` for an evaluator.
        keep: (case, slices) whose prediction stays in `kept`, (slices, H, W), to be shown.
    """
    default_prefix = ''  # mmengine warns about None

    def __init__(self, headline: Sequence[int] | None = None, only: Sequence[str] | None = None,
                 keep: tuple[str, Sequence[int]] | None = None, prefix: str | None = None):
        super().__init__(collect_device='cpu', prefix=prefix)
        self.headline, self.keep, self.only, self.metrics = headline, keep, only, choose_metrics(only)
        self.scores: Scores | None = None
        self.kept: np.ndarray | None = None
        self._forget()

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = meta
        self.metrics = choose_metrics(self.only, meta.get('nominal_spacing', False))

    def _forget(self) -> None:
        self._scored: dict[str, ScoredCase] = {}
        self._confusion: np.ndarray | int = 0
        self._assembly: tuple[str, OverlapAverage, dict[int, Tensor]] | None = None
        self._volume: list[tuple[np.ndarray, np.ndarray]] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            label = sample['gt_sem_seg']['data']
            if 'pred_sem_seg' in sample:
                pairs = zip(label, sample['pred_sem_seg']['data'], strict=True)
            else:
                pairs = self._assemble(sample, label, classes)
            for plane, prediction in pairs:
                self._confusion += confusion_matrix(plane, prediction.to(plane.device), classes)
                self._volume.append((plane.cpu().numpy(), prediction.cpu().numpy().astype(np.uint8)))
            if len(self._volume) == sample['depth']:
                self._finish(sample)

    def _finish(self, sample: dict) -> None:
        label, prediction = (np.stack(planes) for planes in zip(*self._volume, strict=True))
        tolerance = surface_tolerance(self.dataset_meta.get('nsd_tolerance', NSD_TOLERANCE), sample['spacing'])
        pair = Pair(self._confusion, label, prediction, sample['spacing'], tolerance)
        self._scored[sample['case']] = score_case(pair, self.metrics)
        self._volume, self._confusion = [], 0
        if self.keep and self.keep[0] == sample['case']:
            self.kept = prediction[list(self.keep[1])]

    def _assemble(self, sample: dict, label: Tensor, classes: int):
        indices = sample['indices']
        if self._assembly is None or self._assembly[0] != sample['case']:
            overlap = OverlapAverage(sample['depth'], len(indices), sample['stride'])
            self._assembly = (sample['case'], overlap, {})
        _, overlap, labels = self._assembly
        labels.update(zip(indices, label, strict=True))
        planes = sample['seg_logits']['data'].unflatten(0, (len(indices), classes))
        return [(labels.pop(index), total.argmax(0))
                for index, total in overlap.add(sample['slice'], indices, planes)]

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge over processes and score. mmengine's own collection would cut uneven shares off."""
        shares = all_gather_object((self._scored, self.kept))
        self.kept = next((kept for _, kept in shares if kept is not None), None)
        self.scores = collect_scores({case: found for scored, _ in shares for case, found in scored.items()},
                                     self.metrics)
        self._forget()
        metrics = [self.compute_metrics([]) if is_main_process() else None]
        broadcast_object_list(metrics)
        return metrics[0]

    def compute_metrics(self, results: list) -> dict[str, float]:
        names = self.dataset_meta['classes']
        ids = list(self.headline or range(1, len(names)))
        by_label = {metric.titled(self.scores.tolerance).title: self.scores.by_label(metric.name)
                    for metric in self.metrics}
        means = {title: mean_over_cases(values[ids, None])[0] for title, values in by_label.items()}
        pooled = self.scores.figures.get('dsc_pooled', ())
        organs = {f'DSC pooled/{name}': figure for name, figure in list(zip(names, pooled, strict=False))[1:]}
        return {name: float(value) for name, value in (means | organs).items()}
