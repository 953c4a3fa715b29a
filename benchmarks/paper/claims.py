"""The paper's claims, each recomputed twice: from its own published tables and from this grid's records.

A published claim holds where the arithmetic gives the printed number. A measured one holds where the difference
has the claimed sign beyond noise (95 %), whatever its size: of seeds where cells have several, else of cases.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from ..grid.axes import Cell
from ..grid.reader import Grid
from ..rendering.findings import variation_points
from ..rendering.frame import Measured
from ..rendering.statistics import compare_seeds, gain_between
from .published import published_axis, published_datasets, published_flops, published_methods, published_sources

HOLDS, FAILS, UNKNOWN = 'holds', 'does not hold', 'cannot tell'
CAPTION = ("Claims. What the paper says, its published figures' arithmetic, and these records'. A published claim "
           'holds where its number comes out; a measured one where the difference has the claimed sign, whatever '
           'its size: its 95 % interval, in brackets, is above zero (over seeds where cells have several, else '
           'over cases). Datasets are counted by sign alone, as in the paper.')


@dataclass(frozen=True)
class Finding:
    """A verdict and the arithmetic behind it."""
    verdict: str
    arithmetic: str


NOT_RUN = Finding(UNKNOWN, 'not run')


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
    methods, sources = published_methods('bcv'), published_sources('bcv').rows
    main, organs, datasets = methods.rows, methods.organs, published_datasets()

    def here(judge: Callable[..., Finding], table: str, *rows: str, **options) -> Finding:
        """What this grid's cells of these rows say, if they ran."""
        cells = [grid.tables[table].rows.get(row) if table in grid.tables else None for row in rows]
        if len(grid.datasets) > 1 or not all(cell and measured.value(cell).seeds for cell in cells):
            return NOT_RUN
        return judge(measured, grid, *cells, **options)

    return [
        Claim('Transfer gives 11.18 points of DSC over the same encoder from random weights.', 'Section 4.2',
              _published(main['Ours w/o D'], main['Ours w/o T&D'], 11.18),
              here(_difference, '2a', 'Ours w/o D', 'Ours w/o T&D')),
        Claim('Depth gives 6.07 points over the slice-based model, both from random weights.', 'Section 4.2',
              _published(main['UNETR'], main['Ours w/o T&D'], 6.07),
              here(_difference, '2a', 'Ours w/o T', 'Ours w/o T&D'),
              'The 6.07 compare UNETR, another architecture, with the slice-based BEiT. On the same architecture '
              f'(w/o T against w/o T&D) the paper\'s own figures give {main["Ours w/o T"]:.2f} - '
              f'{main["Ours w/o T&D"]:.2f} = {main["Ours w/o T"] - main["Ours w/o T&D"]:.2f}; that is what is '
              'measured here.'),
        Claim('With transfer, depth gives 1.95 points over the slice-based model.', 'Section 4.2',
              _published(main['Ours'], main['Ours w/o D'], 1.95), here(_difference, '2a', 'Ours', 'Ours w/o D')),
        Claim('Depth costs 0.75 % more computation.', 'Section 4.2', _published_cost(),
              here(_cost, '2a', 'Ours w/o D', 'Ours')),
        Claim('Inflated models are better on 10 of 11 further datasets.', 'Section 4.5',
              _published_datasets(datasets.loc['Ours'] - datasets.loc['Ours w/o D']), _datasets(measured, grid)),
        Claim('The gain by depth is significant at a level of 98 % (one-sided paired t-test over seeds).',
              'Section 4.2', _significance(methods.seeds['Ours'], methods.seeds['Ours w/o D']),
              here(_seeds, '2a', 'Ours', 'Ours w/o D'),
              'p = 0.019 is one-sided; two-sided it is 0.038, a level of 96 %. The ± printed is the population '
              'deviation (ddof 0) of three runs.'),
        Claim('The larger the variation between neighbouring slices, the more depth gains.', 'Section 4.2',
              _correlation(organs.loc['slice variation'], organs.loc['Ours'] - organs.loc['Ours w/o D']),
              here(_variation, '2a', 'Ours', 'Ours w/o D'),
              'Over the eight organs Pearson\'s correlation is strong and Spearman\'s is not: it rests on the '
              'gallbladder and the pancreas, not on an order of all.'),
        Claim('Self-supervision on medical images transfers worse than on natural ones.', 'Section 4.3',
              _published(sources['DINO'], sources['CT-DINO']), here(_difference, '2b', 'DINO', 'CT-DINO')),
        Claim('Centering is better than average inflation.', 'Section 4.4',
              _published(*_table4('initialization', 'centering', 'average')),
              here(_difference, '4b', 'centering', 'average', labels='all')),
        Claim('Predicting the centre slice is better than predicting all slices.', 'Section 4.4',
              _published(*_table4('target', 'center', 'all')),
              here(_difference, '4a', 'center', 'all', labels='all')),
        Claim('A few neighbours are enough: 5 slices are better than 21.', 'Section 4.4',
              _published(*_table4('slices', '5', '21')), here(_difference, '4d', '5', '21', labels='all')),
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


def _table4(axis: str, *values: str) -> list[float]:
    return [published_axis(axis, 'bcv').rows[value] for value in values]


def _published(first: float, second: float, printed: float | None = None) -> Finding:
    """A difference of published figures, which is as printed, or at least above zero."""
    holds = first > second if printed is None else abs(first - second - printed) < 0.005
    return Finding(HOLDS if holds else FAILS, f'{first:.2f} - {second:.2f} = {first - second:.2f}')


def _difference(measured: Measured, grid: Grid, *cells: Cell, labels: str = 'headline') -> Finding:
    first, second = (measured.value(cell, labels=labels).mean for cell in cells)
    text = f'{first:.2f} - {second:.2f} = {first - second:.2f}'
    gain = gain_between(*cells, measured, labels)
    if gain is None:
        return Finding(UNKNOWN, text + '; too few seeds and cases')
    per_case = f'; per case {gain.value:+.2f}' if gain.over == 'cases' else ''
    return Finding(HOLDS if gain.low > 0 else FAILS if gain.high < 0 else UNKNOWN,
                   f'{text}{per_case} [{gain.low:.2f}, {gain.high:.2f}]')


def _published_cost() -> Finding:
    text = _more(*published_flops().values())
    return Finding(HOLDS if '= 0.75' in text else FAILS, text)


def _cost(measured: Measured, grid: Grid, *cells: Cell) -> Finding:
    if any(cell.without_config for cell in cells):
        return NOT_RUN
    flops = [measured.done(cell)[0]['cost']['encoder_flops'] for cell in cells]
    if flops == [*published_flops().values()]:
        return Finding(HOLDS, _more(*flops))
    return Finding(UNKNOWN, f"{_more(*flops)}; another encoder than the paper's")


def _more(flat: int, deep: int) -> str:
    return f'{deep:,} / {flat:,} - 1 = {(deep / flat - 1) * 100:.3f} %'


def _published_datasets(gains: pd.Series) -> Finding:
    better = int((gains > 0).sum())
    others = ', '.join(f'{name} {gain:+.2f}' for name, gain in gains[gains <= 0].items())
    return Finding(HOLDS if (better, len(gains)) == (10, 11) else FAILS,
                   f'{better} of {len(gains)} better; not: {others}')


def _datasets(measured: Measured, grid: Grid) -> Finding:
    rows = grid.tables['5'].rows if '5' in grid.tables else {}
    gains = {}
    for dataset in grid.datasets if {'Ours', 'Ours w/o D'} <= set(rows) else ():
        deep, flat = (measured.value(replace(rows[row], dataset=dataset)) for row in ('Ours', 'Ours w/o D'))
        if deep.seeds and flat.seeds:
            gains[dataset] = deep.mean - flat.mean
    if not gains:
        return NOT_RUN
    better = sum(gain > 0 for gain in gains.values())
    return Finding(UNKNOWN if len(gains) < 11 else HOLDS if better >= 10 else FAILS,
                   f'{better} of {len(gains)} better: '
                   + ', '.join(f'{name} {gain:+.2f}' for name, gain in gains.items()))


def _seeds(measured: Measured, grid: Grid, *cells: Cell) -> Finding:
    return _significance(*(measured.value(cell).seeds for cell in cells))


def _significance(*seeds: Mapping[int, float]) -> Finding:
    """The claim's own level and side, for published and measured seeds alike."""
    test = compare_seeds(*seeds)
    if test is None:
        return Finding(UNKNOWN, 'not enough seeds')
    return Finding(HOLDS if test.one_sided < 0.02 else FAILS if test.one_sided > 0.98 else UNKNOWN,
                   f't({test.n - 1}) = {test.t:.2f}, p = {test.one_sided:.3f} one-sided, {test.two_sided:.3f} '
                   f'two-sided ({test.n} seeds)')


def _variation(measured: Measured, grid: Grid, *cells: Cell) -> Finding:
    points = variation_points(measured, *cells)
    if len(points) < 4 or np.ptp(points['gain']) == 0:
        return NOT_RUN if points.empty else Finding(UNKNOWN, f'{len(points)} organs are too few')
    return _correlation(points['similarity'], points['gain'])


def _correlation(similarity: pd.Series, gain: pd.Series) -> Finding:
    """Both coefficients between neighbouring slices' Dice and gain: negative is what the claim says."""
    pearson, spearman = stats.pearsonr(similarity, gain), stats.spearmanr(similarity, gain)
    signs = {np.sign(test.statistic) * (test.pvalue < 0.05) for test in (pearson, spearman)}
    verdict = HOLDS if signs == {-1} else FAILS if signs == {1} else UNKNOWN
    return Finding(verdict, f'Pearson r = {pearson.statistic:.2f} (p = {pearson.pvalue:.3f}), Spearman rho = '
                            f'{spearman.statistic:.2f} (p = {spearman.pvalue:.2f}), {len(gain)} organs')
