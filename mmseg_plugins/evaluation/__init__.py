from .assembly import OverlapAverage
from .scores import CaseMetric, CaseScores, case_scores

__all__ = ['CaseMetric', 'CaseScores', 'OverlapAverage', 'case_scores']
