from .accuracy import ImageAccuracy
from .assembly import OverlapAverage
from .metrics import METRICS, Pair, register_metric
from .scores import CaseMetric, Scores

__all__ = ['METRICS', 'CaseMetric', 'ImageAccuracy', 'OverlapAverage', 'Pair', 'Scores', 'register_metric']
