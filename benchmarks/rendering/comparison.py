"""Are two rows different? Over seeds and over cases; a test that its data cannot carry gives None."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEAST_SEEDS = 3
LEAST_CASES = 6  # with five, no outcome of the signed-rank test reaches 0.05
RESAMPLES = 10_000


@dataclass(frozen=True)
class SeedTest:
    """Paired t-test over the seeds that both rows have.

    Args:
        n: seeds.
        difference: mean of first minus second.
        std: sample standard deviation of the differences.
        t: statistic, n - 1 degrees of freedom.
        one_sided: p that the first is not better.
        two_sided: p.
        effect: Cohen's d of the paired differences.
    """
    n: int
    difference: float
    std: float
    t: float
    one_sided: float
    two_sided: float
    effect: float


@dataclass(frozen=True)
class CaseTest:
    """Paired comparison over cases.

    Args:
        n: cases.
        difference: mean of first minus second.
        interval: 95 % of it, by resampling cases.
        p: two-sided, Wilcoxon's signed-rank test.
        effect: matched-pairs rank-biserial correlation, -1 to 1.
    """
    n: int
    difference: float
    interval: tuple[float, float]
    p: float
    effect: float


def compare_seeds(first: Mapping[int, float], second: Mapping[int, float], higher_is_better: bool = True
                  ) -> SeedTest | None:
    """None for fewer than three common seeds, or where all differ by the same."""
    shared = sorted(first.keys() & second.keys())
    differences = _differences(first, second, shared)
    if len(shared) < LEAST_SEEDS or np.ptp(differences) == 0:
        return None
    mean, std = differences.mean(), differences.std(ddof=1)
    t = mean / std * np.sqrt(len(shared))
    above = stats.t.sf(t, len(shared) - 1)
    worse = above if higher_is_better else 1 - above
    return SeedTest(len(shared), float(mean), float(std), float(t), float(worse),
                    float(2 * min(above, 1 - above)), float(mean / std))


def compare_cases(first: Mapping[str, float], second: Mapping[str, float]) -> CaseTest | None:
    """None for fewer than six common cases, or where all are equal."""
    shared = sorted(first.keys() & second.keys())
    differences = _differences(first, second, shared)
    moved = differences[differences != 0]
    if len(shared) < LEAST_CASES or not len(moved):
        return None
    rng = np.random.default_rng(0)  # the same records, the same interval
    means = differences[rng.integers(0, len(shared), (RESAMPLES, len(shared)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    ranks = stats.rankdata(np.abs(moved))
    return CaseTest(len(shared), float(differences.mean()), (float(low), float(high)),
                    float(stats.wilcoxon(differences).pvalue),
                    float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum()))


def _differences(first: Mapping, second: Mapping, shared: Sequence) -> np.ndarray:
    # records hold four digits: what is left behind the sixth is the subtraction's own rounding
    return np.array([first[key] - second[key] for key in shared]).round(6)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of the p-values that exist, in their order."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(p * (len(known) - rank), 1.0))
        adjusted[i] = largest
    return adjusted
