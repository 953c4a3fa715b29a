"""Scores at native resolution: one integer confusion matrix per case, streamed slice by slice, and surfaces."""

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
from .surface import surface_scores


@dataclass(frozen=True)
class CaseScores:
    """DSC in percent from confusion matrices, and surface metrics.

    Args:
        cases: names, N.
        per_case: (N, K); NaN where a class is absent from both label and prediction, 0 where it is
            predicted but absent from the label.
        pooled: (K,) from sums over all voxels of all cases; NaN where absent from all.
        case: (K,) mean of `per_case` over the cases where it is a number.
        hd95: (N, K) in mm, nsd: (N, K) in percent (surface.py); None where they were not asked for.
    """
    cases: Sequence[str]
    per_case: np.ndarray
    pooled: np.ndarray
    case: np.ndarray
    hd95: np.ndarray | None = None
    nsd: np.ndarray | None = None


def case_scores(confusions: dict[str, np.ndarray], surfaces: dict[str, tuple[np.ndarray, np.ndarray]] | None = None
                ) -> CaseScores:
    """Scores of cases.

    Args:
        confusions: case -> (K, K) integers, rows the label, columns the prediction.
        surfaces: case -> HD95 (K,) and NSD (K,).
    """
    names = sorted(confusions)
    stacked = np.stack([confusions[name] for name in names])

    def dice(matrix):
        both = np.diagonal(matrix, axis1=-2, axis2=-1)
        sizes = matrix.sum(-1) + matrix.sum(-2)
        return np.where(sizes > 0, 200.0 * both / np.maximum(sizes, 1), np.nan)

    per_case = dice(stacked)
    hd95, nsd = (np.stack([surfaces[name][i] for name in names]) for i in (0, 1)) if surfaces else (None, None)
    return CaseScores(names, per_case, dice(stacked.sum(0)), mean_over_cases(per_case), hd95, nsd)


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


@METRICS.register_module()
class CaseMetric(BaseMetric):
    """DSC per organ, pooled and per case, HD95 and NSD; the same figures for any number of processes.

    Every process keeps the confusion matrices of its cases, which are added as integers, and the volume of
    the case at hand, whose windows must come whole and in order.

    Args:
        headline: label ids whose mean is `DSC`; None: all but background.
        surface: also HD95 and NSD, once a case is whole.
        keep: (case, slices) whose prediction stays in `kept`, (slices, H, W), to be shown.
    """
    default_prefix = ''  # mmengine warns about None

    def __init__(self, headline: Sequence[int] | None = None, surface: bool = True,
                 keep: tuple[str, Sequence[int]] | None = None, prefix: str | None = None):
        super().__init__(collect_device='cpu', prefix=prefix)
        self.headline, self.surface, self.keep = headline, surface, keep
        self.scores: CaseScores | None = None
        self.kept: np.ndarray | None = None
        self._forget()

    def _forget(self) -> None:
        self.confusions: dict[str, np.ndarray] = {}
        self.surfaces: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._assembly: tuple[str, OverlapAverage, dict[int, Tensor]] | None = None
        self._volume: list[tuple[np.ndarray, np.ndarray]] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            label = sample['gt_sem_seg']['data']
            if 'pred_sem_seg' in sample:
                pairs = [(label[0], sample['pred_sem_seg']['data'][0])]
            else:
                pairs = self._assemble(sample, label, classes)
            case = sample['case']
            for plane, prediction in pairs:
                counts = confusion_matrix(plane, prediction.to(plane.device), classes)
                self.confusions[case] = self.confusions.get(case, 0) + counts
                self._volume.append((plane.cpu().numpy(), prediction.cpu().numpy().astype(np.uint8)))
            if len(self._volume) == sample['depth']:
                self._finish(sample, classes)

    def _finish(self, sample: dict, classes: int) -> None:
        label, prediction = (np.stack(planes) for planes in zip(*self._volume, strict=True))
        self._volume = []
        if self.surface:
            self.surfaces[sample['case']] = surface_scores(label, prediction, classes, sample['spacing'])
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
        mine = self.confusions, self.surfaces, self.kept
        shares = [mine]
        if is_distributed():
            shares = [None] * get_world_size()
            torch_dist.all_gather_object(shares, mine)
        self.kept = next((kept for *_, kept in shares if kept is not None), None)
        confusions, surfaces = ({case: found for share in shares for case, found in share[i].items()}
                                for i in (0, 1))
        self._forget()
        self.scores = case_scores(confusions, surfaces)
        metrics = [self.compute_metrics([]) if is_main_process() else None]
        broadcast_object_list(metrics)
        return metrics[0]

    def compute_metrics(self, results: list) -> dict[str, float]:
        names, scores = self.dataset_meta['classes'], self.scores
        ids = list(self.headline or range(1, len(names)))
        means = {'DSC pooled': scores.pooled, 'DSC case': scores.case}
        if self.surface:
            means |= {'HD95 mm': mean_over_cases(scores.hd95), 'NSD': mean_over_cases(scores.nsd)}
        metrics = {name: mean_over_cases(values[ids, None])[0] for name, values in means.items()}
        metrics |= {f'DSC pooled/{names[i]}': scores.pooled[i] for i in range(1, len(names))}
        return {name: float(value) for name, value in metrics.items()}
