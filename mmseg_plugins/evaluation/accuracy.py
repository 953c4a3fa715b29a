"""Accuracy of classified images, for pre-training on photographs."""

from collections.abc import Sequence

import numpy as np
from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS as EVALUATORS


@EVALUATORS.register_module()
class ImageAccuracy(BaseMetric):
    """Images whose class is the predicted one, in percent: of all, and the mean of the classes' own shares.

    The latter is what is reported of sets whose classes differ in size, as Caltech-101's do. An image's class is
    the largest id of its label map (PooledHead); the same figures for any number of processes.

    Args:
        headline: taken for every evaluator of a config; without a meaning here.
    """
    default_prefix = ''

    def __init__(self, headline: Sequence[int] | None = None, prefix: str | None = None):
        super().__init__(collect_device='cpu', prefix=prefix)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        self.results += [(int(sample['gt_sem_seg']['data'].long().max()),
                          int(sample['pred_sem_seg']['data'].flatten()[0])) for sample in data_samples]

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge over processes and score. mmengine's own collection would cut uneven shares off."""
        shares, self.results = all_gather_object(self.results), []
        return self.compute_metrics(sum(shares, []))

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        label, predicted = np.array(results).T
        right = label == predicted
        return dict(accuracy=100 * float(right.mean()), mean_class_accuracy=100 * float(
            np.mean([right[label == one].mean() for one in np.unique(label)])))
