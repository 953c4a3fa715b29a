"""Are two rows different? Over seeds and over cases; a test that its data cannot carry gives None."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..grid.axes import Cell
from .frame import Labels, Measured, Value

LEAST_SEEDS = 3
LEAST_CASES = 6  # with five, no outcome of the signed-rank test reaches 0.05
RESAMPLES = 10_000


@dataclass(frozen=True)
class SeedTest:
    """Paired t-test over the seeds that both rows have.

    Args:
        n: seeds.
        difference, std: mean and sample standard deviation of first minus second.
        t: statistic, n - 1 degrees of freedom.
        one_sided: p that the first is not better.
        two_sided: p.
    """
    n: int
    difference: float
    std: float
    t: float
    one_sided: float
    two_sided: float


@dataclass(frozen=True)
class CaseTest:
    """Paired comparison over cases.

    Args:
        difference: mean of first minus second.
        interval: 95 % of it, by resampling cases.
        p: two-sided, Wilcoxon's signed-rank test.
        effect: matched-pairs rank-biserial correlation, -1 to 1.
    """
    difference: float
    interval: tuple[float, float]
    p: float
    effect: float


@dataclass(frozen=True)
class Gain:
    """A difference of two mean DSC in points, and what it would be again in 95 of 100 studies.

    Args:
        value: first minus second: of pooled DSC over seeds, of the mean DSC of cases over cases.
        low, high: the interval.
        over: what varies in it, `seeds` or `cases`.
    """
    value: float
    low: float
    high: float
    over: str

    @property
    def beyond_noise(self) -> bool:
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Noise:
    """Standard deviation between seeds, from all cells that have several together, and its degrees of freedom."""
    std: float
    freedom: int

    def reach(self, *values: Value) -> float:
        """Half the width of the 95 % interval of a difference of two means (Student's t)."""
        return float(stats.t.ppf(0.975, self.freedom) * self.std
                     * np.sqrt(sum(1 / len(value.seeds) for value in values)))


def pool_noise(values: Iterable[Value]) -> Noise:
    """From all of them that have several seeds."""
    values = [value for value in values if len(value.seeds) > 1]
    freedom = sum(len(value.seeds) - 1 for value in values)
    squares = sum(value.std ** 2 * (len(value.seeds) - 1) for value in values)
    return Noise(float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom)


def seed_noise(measured: Measured, labels: Labels = 'headline', dataset: str | None = None) -> Noise:
    """The noise of pooled DSC.

    Args:
        labels: those of the figure that it is the noise of.
        dataset: of cells on this one alone; None: of all.
    """
    return pool_noise(measured.value(cell, labels=labels) for cell in measured.cells()
                      if dataset in (None, cell.dataset))


def compare_seeds(first: Mapping[int, float], second: Mapping[int, float], higher_is_better: bool = True
                  ) -> SeedTest | None:
    """None for fewer than three common seeds, or where all differ by the same."""
    differences = _differences(first, second)
    if len(differences) < LEAST_SEEDS or np.ptp(differences) == 0:
        return None
    t, above = stats.ttest_1samp(differences, 0, alternative='greater')
    return SeedTest(len(differences), float(differences.mean()), float(differences.std(ddof=1)), float(t),
                    float(above if higher_is_better else 1 - above), float(2 * min(above, 1 - above)))


def compare_cases(first: Mapping[str, float], second: Mapping[str, float]) -> CaseTest | None:
    """None for fewer than six common cases, or where all are equal."""
    differences = _differences(first, second)
    moved = differences[differences != 0]
    if len(differences) < LEAST_CASES or not len(moved):
        return None
    ranks = stats.rankdata(np.abs(moved))
    return CaseTest(float(differences.mean()), _resample(differences),
                    float(stats.wilcoxon(differences).pvalue),
                    float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum()))


def _differences(first: Mapping, second: Mapping) -> np.ndarray:
    # records hold four digits: what is left behind the sixth is the subtraction's own rounding
    return np.array([first[key] - second[key] for key in sorted(first.keys() & second.keys())]).round(6)


def _resample(figures: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean, by a bootstrap that gives the same for the same records."""
    draws = np.random.default_rng(0).integers(0, len(figures), (RESAMPLES, len(figures)))
    low, high = np.percentile(figures[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)


def case_interval(values: Mapping[str, float]) -> tuple[float, float] | None:
    """95 % interval of a mean over cases, by resampling them; None for fewer than six."""
    return _resample(np.array(list(values.values()))) if len(values) >= LEAST_CASES else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of the p-values that exist, in their order."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(p * (len(known) - rank), 1.0))
        adjusted[i] = largest
    return adjusted


def agreement(value: Value, other: Value, noise: Noise) -> str:
    """Whether two means differ by no more than seeds do (95 %)."""
    if not value.seeds or not other.seeds or not noise.freedom:
        return 'cannot tell'
    return 'yes' if abs(value.mean - other.mean) <= noise.reach(value, other) else 'no'


def measure_gain(first: Value, second: Value, noise: Noise, first_cases: Mapping[str, float],
                 second_cases: Mapping[str, float]) -> Gain | None:
    """The difference of two cells' figures; None where there are too few seeds and cases to say how sure it is.

    Args:
        first, second: of all seeds.
        noise: without freedom, cases are resampled.
        first_cases, second_cases: case -> its figure.
    """
    if not first.seeds or not second.seeds:
        return None
    if noise.freedom:
        value, reach = first.mean - second.mean, noise.reach(first, second)
        return Gain(value, value - reach, value + reach, 'seeds')
    test = compare_cases(first_cases, second_cases)
    return test and Gain(test.difference, *test.interval, 'cases')


def gain_between(first: Cell, second: Cell, measured: Measured, labels: Labels = 'headline') -> Gain | None:
    """`measure_gain` of two cells on one dataset, with the noise of these labels there."""
    return measure_gain(*(measured.value(cell, labels=labels) for cell in (first, second)),
                        seed_noise(measured, labels, first.dataset),
                        *measured.pair_cases(first, second, labels))
