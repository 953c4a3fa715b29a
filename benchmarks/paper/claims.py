"""The paper's claims, each recomputed twice: from its own published tables and from this grid's records.

A published claim holds where the arithmetic gives the printed number. A measured one holds where the difference
has the claimed sign beyond noise (95 %), whatever its size: of seeds where cells have several, else of cases.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from ..grid.reader import Grid
from ..rendering.findings import variation_points
from ..rendering.frame import Measured
from ..rendering.statistics import SeedTest, compare_seeds, gain_between
from .published import published_axis, published_datasets, published_flops, published_methods, published_sources

HOLDS, FAILS, UNKNOWN = 'holds', 'does not hold', 'cannot tell'


@dataclass(frozen=True)
class Finding:
    """A verdict and the arithmetic behind it."""
    verdict: str
    arithmetic: str


@dataclass(frozen=True)
class Claim:
    """What the paper says, where, and what its tables and this grid's records say to it."""
    text: str
    where: str
    paper: Finding
    here: Finding
    note: str = ''


def check_claims(measured: Measured, grid: Grid) -> list[Claim]:
    """Every numeric claim, with footnotes where its arithmetic is not what its sentence says."""
    main, sources = published_methods('bcv').rows, published_sources('bcv').rows
    here = _Here(measured, grid)
    return [
        Claim('Transfer gives 11.18 points of DSC over the same encoder from random weights.', 'Section 4.2',
              _printed(main['Ours w/o D'], main['Ours w/o T&D'], 11.18),
              here.difference('2a', 'Ours w/o D', 'Ours w/o T&D')),
        Claim('Depth gives 6.07 points over the slice-based model, both from random weights.', 'Section 4.2',
              _printed(main['UNETR'], main['Ours w/o T&D'], 6.07),
              here.difference('2a', 'Ours w/o T', 'Ours w/o T&D'),
              'The 6.07 compare UNETR, another architecture, with the slice-based BEiT. On the same architecture '
              f'(w/o T against w/o T&D) the paper\'s own figures give {main["Ours w/o T"]:.2f} - '
              f'{main["Ours w/o T&D"]:.2f} = {main["Ours w/o T"] - main["Ours w/o T&D"]:.2f}; that is what is '
              'measured here.'),
        Claim('With transfer, depth gives 1.95 points over the slice-based model.', 'Section 4.2',
              _printed(main['Ours'], main['Ours w/o D'], 1.95), here.difference('2a', 'Ours', 'Ours w/o D')),
        Claim('Depth costs 0.75 % more computation.', 'Section 4.2', _published_cost(), here.cost()),
        Claim('Inflated models are better on 10 of 11 further datasets.', 'Section 4.5', _published_datasets(),
              here.datasets()),
        Claim('The gain by depth is significant at a level of 98 % (one-sided paired t-test over seeds).',
              'Section 4.2', _published_seeds(), here.seeds(),
              'p = 0.019 is one-sided; two-sided it is 0.038, a level of 96 %. The ± printed is the population '
              'deviation (ddof 0) of three runs.'),
        Claim('The larger the variation between neighbouring slices, the more depth gains.', 'Section 4.2',
              _published_variation(), here.variation(),
              'Over the eight organs Pearson\'s correlation is strong and Spearman\'s is not: it rests on the '
              'gallbladder and the pancreas, not on an order of all.'),
        Claim('Self-supervision on medical images transfers worse than on natural ones.', 'Section 4.3',
              _ordered(sources['DINO'], sources['CT-DINO']), here.difference('2b', 'DINO', 'CT-DINO')),
        Claim('Centering is better than average inflation.', 'Section 4.4',
              _ordered(*_table4('initialization', 'centering', 'average')),
              here.difference('4b', 'centering', 'average', 'all')),
        Claim('Predicting the centre slice is better than predicting all slices.', 'Section 4.4',
              _ordered(*_table4('target', 'center', 'all')), here.difference('4a', 'center', 'all', 'all')),
        Claim('A few neighbours are enough: 5 slices are better than 21.', 'Section 4.4',
              _ordered(*_table4('slices', '5', '21')), here.difference('4d', '5', '21', 'all')),
    ]


def claim_table(claims: list[Claim]) -> pd.DataFrame:
    """One line per claim, footnotes numbered in its first column."""
    rows, notes = [], 0
    for claim in claims:
        notes += bool(claim.note)
        rows.append({'Claim': claim.text + (f' [{notes}]' if claim.note else ''), 'in': claim.where,
                     'published figures': claim.paper.verdict, 'their arithmetic': claim.paper.arithmetic,
                     'this grid (sign)': claim.here.verdict, 'its arithmetic': claim.here.arithmetic})
    return pd.DataFrame(rows)


def footnotes(claims: list[Claim]) -> list[str]:
    return [claim.note for claim in claims if claim.note]


def _printed(first: float, second: float, claimed: float) -> Finding:
    difference = first - second
    return Finding(HOLDS if abs(difference - claimed) < 0.005 else FAILS,
                   f'{first:.2f} - {second:.2f} = {difference:.2f}')


def _ordered(first: float, second: float) -> Finding:
    return Finding(HOLDS if first > second else FAILS, f'{first:.2f} - {second:.2f} = {first - second:.2f}')


def _table4(axis: str, *values: str) -> list[float]:
    return [published_axis(axis, 'bcv').rows[value] for value in values]


def _published_cost() -> Finding:
    flat, deep = published_flops().values()
    return Finding(HOLDS if f'{(deep / flat - 1) * 100:.3f}'.startswith('0.75') else FAILS,
                   f'{deep:,} / {flat:,} - 1 = {(deep / flat - 1) * 100:.3f} %')


def _published_datasets() -> Finding:
    rows = published_datasets()
    gains = rows.loc['Ours'] - rows.loc['Ours w/o D']
    better = int((gains > 0).sum())
    others = ', '.join(f'{name} {gain:+.2f}' for name, gain in gains[gains <= 0].items())
    return Finding(HOLDS if (better, len(gains)) == (10, 11) else FAILS,
                   f'{better} of {len(gains)} better; not: {others}')


def _published_seeds() -> Finding:
    seeds = published_methods('bcv').seeds
    return _significance(compare_seeds(seeds['Ours'], seeds['Ours w/o D']))


def _significance(test: SeedTest | None) -> Finding:
    """The claim's own level and side, for published and measured seeds alike."""
    if test is None:
        return Finding(UNKNOWN, 'not enough seeds')
    text = (f't({test.n - 1}) = {test.t:.2f}, p = {test.one_sided:.3f} one-sided, {test.two_sided:.3f} two-sided '
            f'({test.n} seeds)')
    return Finding(HOLDS if test.one_sided < 0.02 else FAILS if test.one_sided > 0.98 else UNKNOWN, text)


def _published_variation() -> Finding:
    rows = published_methods('bcv').organs
    gain = rows.loc['Ours'] - rows.loc['Ours w/o D']
    return _correlation(rows.loc['slice variation'].to_numpy(), gain.to_numpy())


def _correlation(similarity: np.ndarray, gain: np.ndarray) -> Finding:
    """Both coefficients between neighbouring slices' Dice and gain: negative is what the claim says."""
    pearson, spearman = stats.pearsonr(similarity, gain), stats.spearmanr(similarity, gain)
    negative = [test.statistic < 0 and test.pvalue < 0.05 for test in (pearson, spearman)]
    positive = [test.statistic > 0 and test.pvalue < 0.05 for test in (pearson, spearman)]
    verdict = HOLDS if all(negative) else FAILS if all(positive) else UNKNOWN
    return Finding(verdict, f'Pearson r = {pearson.statistic:.2f} (p = {pearson.pvalue:.3f}), Spearman rho = '
                            f'{spearman.statistic:.2f} (p = {spearman.pvalue:.2f}), {len(gain)} organs')


class _Here:
    """The same from this grid's records."""

    def __init__(self, measured: Measured, grid: Grid):
        self.measured, self.grid = measured, grid

    def _cells(self, table: str, *rows: str) -> list | None:
        found = self.grid.tables[table].rows if table in self.grid.tables else {}
        cells = [found.get(row) for row in rows]
        ran = all(cell is not None and self.measured.value(cell).seeds for cell in cells)
        return cells if ran else None

    def difference(self, table: str, first: str, second: str, labels: str = 'headline') -> Finding:
        cells = self._cells(table, first, second)
        if cells is None:
            return Finding(UNKNOWN, 'not run')
        one, two = (self.measured.value(cell, labels=labels).mean for cell in cells)
        text = f'{one:.2f} - {two:.2f} = {one - two:.2f}'
        gain = gain_between(*cells, self.measured, self.grid, labels)
        if gain is None:
            return Finding(UNKNOWN, text + '; too few seeds and cases')
        if gain.over == 'cases':
            text += f'; per case {gain.value:+.2f}'
        return Finding(HOLDS if gain.low > 0 else FAILS if gain.high < 0 else UNKNOWN,
                       f'{text} [{gain.low:.2f}, {gain.high:.2f}]')

    def cost(self) -> Finding:
        cells = self._cells('2a', 'Ours w/o D', 'Ours')
        if cells is None:
            return Finding(UNKNOWN, 'not run')
        flat, deep = (self.measured.done(cell)[0]['cost']['encoder_flops'] for cell in cells)
        published = [*published_flops().values()]
        verdict = HOLDS if [flat, deep] == published else UNKNOWN
        own = '' if verdict == HOLDS else '; another encoder than the paper\'s'
        return Finding(verdict, f'{deep:,} / {flat:,} - 1 = {(deep / flat - 1) * 100:.3f} %{own}')

    def datasets(self) -> Finding:
        rows = self.grid.tables['5'].rows if '5' in self.grid.tables else {}
        gains = {}
        for dataset in self.grid.datasets if {'Ours', 'Ours w/o D'} <= set(rows) else ():
            deep, flat = (self.measured.value(replace(rows[row], dataset=dataset))
                          for row in ('Ours', 'Ours w/o D'))
            if deep.seeds and flat.seeds:
                gains[dataset] = deep.mean - flat.mean
        if not gains:
            return Finding(UNKNOWN, 'not run')
        better = sum(gain > 0 for gain in gains.values())
        text = (f'{better} of {len(gains)} better: '
                + ', '.join(f'{name} {gain:+.2f}' for name, gain in gains.items()))
        return Finding(UNKNOWN if len(gains) < 11 else HOLDS if better >= 10 else FAILS, text)

    def seeds(self) -> Finding:
        cells = self._cells('2a', 'Ours', 'Ours w/o D')
        if cells is None:
            return Finding(UNKNOWN, 'not run')
        return _significance(compare_seeds(*(self.measured.value(cell).seeds for cell in cells)))

    def variation(self) -> Finding:
        cells = self._cells('2a', 'Ours', 'Ours w/o D') if len(self.grid.datasets) == 1 else None
        points = variation_points(self.measured, *cells) if cells else pd.DataFrame()
        if len(points) < 4:
            return Finding(UNKNOWN, 'not run' if points.empty else f'{len(points)} organs are too few')
        return _correlation(points['similarity'].to_numpy(), points['gain'].to_numpy())
