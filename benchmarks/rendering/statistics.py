"""How sure a figure or a difference is: one interval over new seeds and new cases, and the test that goes with it.

How often the interval covers what it should: `python benchmarks/coverage.py` -> coverage.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from .frame import Value

LEAST_SEEDS = 3  # fewer tell nothing that holds of others
LEAST_CASES = 6
CONFIDENCE = 0.95
TOO_FEW = 'not enough data'


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and cases, and where it would be again with others (Student's t).

    Args:
        value: the mean.
        low, high: its 95 % interval, which leaves zero out exactly where p < 0.05.
        p: two-sided, that it is zero.
        seeds: that the interval is over; 0: they are held fixed, and it tells nothing of others.
        cases: that it is over.
        unit: what these are: cases, or patients who have several.
    """
    value: float
    low: float
    high: float
    p: float
    seeds: int
    cases: int
    unit: str = 'cases'

    @property
    def interval(self) -> str:
        return f'{self.low:+.2f} to {self.high:+.2f}'

    @property
    def over(self) -> str:
        cases = f'{self.cases} {self.unit}'
        return f'{self.seeds} seeds, {cases}' if self.seeds else f'{cases}, these seeds'


def estimate(figures: pd.DataFrame, least: int = LEAST_CASES) -> Estimate | None:
    """The mean of a figure that every seed has of every case, as of seeds and cases drawn anew.

    Two-way random effects without replication: the mean's variance is (MS_seeds + MS_cases - MS_rest) / (S C),
    with Satterthwaite's degrees of freedom. Where the difference is less than MS_rest, which its expectation
    cannot be, MS_rest takes its place; the degrees of freedom are no fewer than those of the smaller factor. With
    fewer than three seeds the interval is of their mean, over cases alone.

    Args:
        figures: seeds x cases, or x patients as its columns are called; one that a seed lacks is left out.
        least: cases.

    Returns:
        None for fewer cases, or where nothing varies.
    """
    values = figures.dropna(axis=1).to_numpy()
    if values.shape[1] < least:
        return None
    if len(values) < LEAST_SEEDS:
        values = values.mean(0, keepdims=True)
    seeds, cases = values.shape
    mean, of_seeds, of_cases = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    freedom = np.array([seeds - 1, cases - 1, (seeds - 1) * (cases - 1)])
    squares = np.array([cases * np.square(of_seeds - mean).sum(), seeds * np.square(of_cases - mean).sum(),
                        np.square(values - of_seeds - of_cases + mean).sum()]) / np.maximum(freedom, 1)
    variance = max(squares[0] + squares[1] - squares[2], squares[2])
    if variance < 1e-12:  # records hold four digits
        return None
    satterthwaite = variance ** 2 / np.sum(squares ** 2 / np.maximum(freedom, 1))
    freedom = max(satterthwaite, freedom[freedom > 0].min())
    error = np.sqrt(variance / values.size)
    reach = error * special.stdtrit(freedom, (1 + CONFIDENCE) / 2)
    return Estimate(float(mean), float(mean - reach), float(mean + reach),
                    float(2 * special.stdtr(freedom, -abs(mean) / error)), seeds if seeds > 1 else 0, cases,
                    'patients' if figures.columns.name == 'patient' else 'cases')


def estimate_difference(first: pd.DataFrame, second: pd.DataFrame) -> Estimate | None:
    """`estimate` of first minus second (seeds x cases), by common seeds; of means over each one's if few are."""
    seeds = first.index.intersection(second.index)
    if len(seeds) < LEAST_SEEDS:
        return estimate((first.mean() - second.mean()).to_frame().T)
    return estimate(first.loc[seeds] - second.loc[seeds])


def seed_reach(first: Value, second: Value) -> float | None:
    """Half the 95 % interval of a difference of two means over seeds: did the same cases come out the same?

    Student's t of two samples; zero where all seeds have the same figure on both sides, None where one side has
    a single seed.
    """
    if first.seeds == second.seeds:
        return 0.0
    samples = [np.array(list(value.seeds.values())) for value in (first, second)]
    if min(map(len, samples)) < 2:
        return None
    freedom = sum(map(len, samples)) - 2
    variance = sum(np.square(sample - sample.mean()).sum() for sample in samples) / freedom
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
                 * np.sqrt(variance * sum(1 / len(sample) for sample in samples)))


def agreement(value: Value, other: Value) -> str:
    """Whether the same cases came out the same: whether two means differ by no more than seeds do."""
    reach = seed_reach(value, other) if value.seeds and other.seeds else None
    return 'cannot tell' if reach is None else 'yes' if abs(value.mean - other.mean) <= reach else 'no'


@dataclass(frozen=True)
class SeedTest:
    """Paired t-test over the seeds that both rows have, as the paper's: cases are held fixed.

    Args:
        n: seeds.
        difference: mean of first minus second.
        t: statistic, n - 1 degrees of freedom.
        one_sided: p that the first is not higher.
        two_sided: p.
    """
    n: int
    difference: float
    t: float
    one_sided: float
    two_sided: float


def compare_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> SeedTest | None:
    """None for fewer than three common seeds, or where all differ by the same."""
    differences = np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]).round(6)
    if len(differences) < LEAST_SEEDS or np.ptp(differences) == 0:
        return None
    t, above = stats.ttest_1samp(differences, 0, alternative='greater')
    return SeedTest(len(differences), float(differences.mean()), float(t), float(above),
                    float(2 * min(above, 1 - above)))


def holm(p_values: Sequence[float | None], planned: int = 0) -> list[float | None]:
    """Holm's step-down correction of the p-values that exist, in their order.

    Args:
        planned: tests of the family, some of which may have no p-value yet: these count as the largest.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(p * (max(len(known), planned) - rank), 1.0))
        adjusted[i] = largest
    return adjusted


def format_p(value: float | None, symbol: str = '') -> str:
    """As `0.0041`, or with a symbol `p = 0.0041`; never as zero."""
    if value is None:
        return '—'
    text = '< 0.0001' if value < 1e-4 else f'{value:.4f}'
    return f'{symbol} {text if text.startswith("<") else f"= {text}"}' if symbol else text


def rank_correlation(x: Sequence[float], y: Sequence[float]):
    """Spearman's, with `statistic` and `pvalue`, exact for up to seven points (SciPy's of four in order is 0)."""
    found = stats.spearmanr(x, y)
    if len(x) > 7:
        return found
    others = stats.rankdata(y)
    return stats.permutation_test((stats.rankdata(x),), lambda order: np.corrcoef(order, others)[0, 1],
                                  permutation_type='pairings')
