"""Dice at native resolution: one integer confusion matrix per case, streamed slice by slice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as torch_dist
from mmengine.dist import broadcast_object_list, get_world_size, is_distributed, is_main_process
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS
from torch import Tensor

from .assembly import OverlapAverage


@dataclass(frozen=True)
class DiceScores:
    """DSC in percent from confusion matrices.

    Args:
        cases: names, N.
        per_case: (N, K); NaN where a class is absent from both label and prediction, 0 where it is
            predicted but absent from the label.
        pooled: (K,) from sums over all voxels of all cases; NaN where absent from all.
        case: (K,) mean of `per_case` over the cases where it is a number.
    """
    cases: Sequence[str]
    per_case: np.ndarray
    pooled: np.ndarray
    case: np.ndarray


def dice_scores(confusions: dict[str, np.ndarray]) -> DiceScores:
    """Both kinds of DSC from {case: (K, K) integers, rows the label, columns the prediction}."""
    names = sorted(confusions)
    stacked = np.stack([confusions[name] for name in names])

    def dice(matrix):
        both = np.diagonal(matrix, axis1=-2, axis2=-1)
        sizes = matrix.sum(-1) + matrix.sum(-2)
        return np.where(sizes > 0, 200.0 * both / np.maximum(sizes, 1), np.nan)

    per_case = dice(stacked)
    counted = (~np.isnan(per_case)).sum(0)
    mean = np.where(counted > 0, np.nansum(per_case, 0) / np.maximum(counted, 1), np.nan)
    return DiceScores(names, per_case, dice(stacked.sum(0)), mean)


def confusion_matrix(label: Tensor, prediction: Tensor, classes: int) -> np.ndarray:
    """(K, K) int64 counts, rows the label, columns the prediction; exact for any size."""
    pairs = label.flatten().long() * classes + prediction.flatten().long()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes).cpu().numpy()


@METRICS.register_module()
class CaseDice(BaseMetric):
    """Pooled and per-case DSC per organ; the same figures for any number of processes.

    Every process keeps the confusion matrices of its cases; they are added as integers.

    Args:
        headline: label ids whose mean is `DSC`; None: all but background.
    """
    default_prefix = ''  # mmengine warns about None

    def __init__(self, headline: Sequence[int] | None = None, prefix: str | None = None):
        super().__init__(collect_device='cpu', prefix=prefix)
        self.headline = headline
        self.confusions: dict[str, np.ndarray] = {}
        self.scores: DiceScores | None = None
        self._assembly: tuple[str, OverlapAverage, dict[int, Tensor]] | None = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            label = sample['gt_sem_seg']['data']
            if 'pred_sem_seg' in sample:
                pairs = [(label[0], sample['pred_sem_seg']['data'][0])]
            else:
                pairs = self._assemble(sample, label, classes)
            for plane, prediction in pairs:
                counts = confusion_matrix(plane, prediction.to(plane.device), classes)
                case = sample['case']
                self.confusions[case] = self.confusions.get(case, 0) + counts

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
        shares = [self.confusions]
        if is_distributed():
            shares = [None] * get_world_size()
            torch_dist.all_gather_object(shares, self.confusions)
        merged: dict[str, np.ndarray] = {}
        for share in shares:
            for case, counts in share.items():
                merged[case] = merged.get(case, 0) + counts
        self.confusions, self._assembly = {}, None
        self.scores = dice_scores(merged)
        metrics = [self.compute_metrics([]) if is_main_process() else None]
        broadcast_object_list(metrics)
        return metrics[0]

    def compute_metrics(self, results: list) -> dict[str, float]:
        names, scores = self.dataset_meta['classes'], self.scores
        ids = list(self.headline or range(1, len(names)))
        with np.errstate(all='ignore'):
            metrics = {'DSC pooled': np.nanmean(scores.pooled[ids]),
                       'DSC case': np.nanmean(scores.case[ids])}
        metrics |= {f'DSC pooled/{names[i]}': scores.pooled[i] for i in range(1, len(names))}
        return {name: float(value) for name, value in metrics.items()}
