"""What a grid found: differences between rows with their 95 % interval, and the page's first sentences."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..axes import Cell
from ..cells import Grid
from .comparison import LEAST_CASES, RESAMPLES, compare_cases
from .published import BCV_ORGANS, published
from .tables import Measured, Value, seed_noise

# What sets the rows apart, table, rows whose difference it is, labels: in order of interest
DIFFERENCES = (
    ('depth, with transfer', '2a', ('Ours', 'Ours w/o D'), 'headline'),
    ('transfer, slice by slice', '2a', ('Ours w/o D', 'Ours w/o T&D'), 'headline'),
    ('centering instead of average inflation', '4b', ('centering', 'average'), 'all'),
    ('depth, without transfer', '2a', ('Ours w/o T', 'Ours w/o T&D'), 'headline'),
)


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

    def __str__(self) -> str:
        return f'{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]'


def measure_gain(first: Value, second: Value, noise: Mapping[str, float], first_cases: Mapping[str, float],
                 second_cases: Mapping[str, float]) -> Gain | None:
    """The difference of two cells' figures; None where there are too few seeds and cases to say how sure it is.

    Args:
        first, second: of all seeds.
        noise: deviation between seeds and its freedom (`tables.seed_noise`); with no freedom, cases are resampled.
        first_cases, second_cases: case -> its figure (`Measured.per_case`).
    """
    if not first.seeds or not second.seeds:
        return None
    value = first.mean - second.mean
    if noise['freedom']:
        reach = (stats.t.ppf(0.975, noise['freedom']) * noise['std']
                 * np.sqrt(1 / len(first.seeds) + 1 / len(second.seeds)))
        return Gain(value, value - reach, value + reach, 'seeds')
    test = compare_cases(first_cases, second_cases)
    return test and Gain(test.difference, *test.interval, 'cases')


def gain_between(first: Cell, second: Cell, measured: Measured, grid: Grid,
                 labels: list[int] | str = 'headline') -> Gain | None:
    """`measure_gain` of two cells on one dataset of a grid, with the noise of these labels there."""
    return measure_gain(*(measured.value(cell, 'dsc_pooled', labels) for cell in (first, second)),
                        seed_noise(measured, grid, labels, first.dataset),
                        *measured.pair_cases(first, second, labels))


def case_interval(values: Mapping[str, float]) -> tuple[float, float] | None:
    """95 % interval of a mean over cases, by resampling them; None for fewer than six."""
    figures = np.array(list(values.values()))
    if len(figures) < LEAST_CASES:
        return None
    rng = np.random.default_rng(0)  # the same records, the same interval
    means = figures[rng.integers(0, len(figures), (RESAMPLES, len(figures)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def main_findings(measured: Measured, grid: Grid, most: int = 3) -> list[str]:
    """At most `most` sentences, from records alone."""
    sentences = [_difference(what, grid.tables[table], rows, labels, table, measured, grid)
                 for what, table, rows, labels in DIFFERENCES if set(rows) <= set(grid.tables.get(table, ()))]
    sentences += [_datasets(measured, grid), *_sources(measured, grid)]
    return [sentence for sentence in sentences if sentence][:most]


def _difference(what: str, rows: dict[str, Cell], names: tuple[str, str], labels: str, table: str,
                measured: Measured, grid: Grid) -> str | None:
    cells = [rows[name] for name in names]
    figures = [measured.value(cell, 'dsc_pooled', labels).mean for cell in cells]
    if np.isnan(figures).any():
        return None
    sentence = (f'{what[0].upper()}{what[1:]}: {_points(gain_between(*cells, measured, grid, labels), figures)} '
                f'({names[0]} {figures[0]:.2f}, {names[1]} {figures[1]:.2f}'
                f'{", all labels" if labels == "all" else ""}).')
    paper = published(table, grid)
    if set(names) <= set(paper):
        of = 'on BCV' if grid.dataset in BCV_ORGANS else 'on this dataset'
        sentence += f' The paper {of}: {paper[names[0]] - paper[names[1]]:+.2f}.'
    return sentence


def _points(gain: Gain | None, figures: list[float]) -> str:
    if gain is None:
        return f'{figures[0] - figures[1]:+.2f} points of DSC; too few seeds and cases to say how sure'
    word = 'beyond' if gain.beyond_noise else 'within'
    kind = '' if gain.over == 'seeds' else ' per case'
    return (f'{gain.value:+.2f} points of DSC{kind}, 95 % interval {gain.low:+.2f} to {gain.high:+.2f}, '
            f'{word} noise')


def dataset_gains(measured: Measured, grid: Grid) -> dict[str, Gain | None]:
    """Dataset -> gain by depth, where both rows of Table 5 were run."""
    rows, found = grid.tables.get('5', {}), {}
    if {'Ours', 'Ours w/o D'} <= set(rows):
        pairs = zip(grid.on_each([rows['Ours']]), grid.on_each([rows['Ours w/o D']]), strict=True)
        for deep, flat in pairs:
            if measured.value(deep, 'dsc_pooled').seeds and measured.value(flat, 'dsc_pooled').seeds:
                found[deep.dataset] = gain_between(deep, flat, measured, grid)
    return found


def _datasets(measured: Measured, grid: Grid) -> str | None:
    gains = dataset_gains(measured, grid)
    known = {dataset: gain for dataset, gain in gains.items() if gain}
    if not known:
        return None
    better = [dataset for dataset, gain in known.items() if gain.low > 0]
    worse = [dataset for dataset, gain in known.items() if gain.high < 0]
    return (f'Depth, with transfer, on {len(known)} datasets: better beyond noise on {len(better)}, worse on '
            f'{len(worse)}; {np.mean([gain.value for gain in known.values()]):+.2f} points of DSC on average.')


def _sources(measured: Measured, grid: Grid) -> list[str]:
    """Table 2(b): the highest source against the next and against random weights, and the lowest against those."""
    rows = {name: (measured.value(cell, 'dsc_pooled').mean, cell)
            for name, cell in grid.tables.get('2b', {}).items()}
    ranked = sorted((item for item in rows.items() if not np.isnan(item[1][0])), key=lambda item: -item[1][0])
    random = next((item for item in ranked if item[1][1].source == 'none'), None)
    others = [item for item in ranked if item is not random]
    if len(others) < 2:
        return []
    pairs = [('Highest', others[0], others[1]), ('Highest', others[0], random), ('Lowest', others[-1], random)]
    return [f'{place} of {len(others)} sources is {name}, {figure:.2f}; against {other}, {less:.2f}: '
            f'{_points(gain_between(first, second, measured, grid), [figure, less])}.'
            for place, (name, (figure, first)), (other, (less, second)) in (pair for pair in pairs if pair[2])]
