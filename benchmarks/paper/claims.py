"""The paper's claims, each recomputed twice: from its own published tables and from this grid's records.

A published claim holds where the arithmetic gives the printed number. A measured one holds where the difference
has the claimed sign beyond noise, whatever its size, as the page's table of contrasts judges it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from mmseg_plugins.datasets.catalogue import BCV_LABELS

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..rendering.contrasts import Judged, means
from ..rendering.findings import variation_points
from ..rendering.frame import Measured
from ..rendering.statistics import TOO_FEW, compare_seeds, format_p, rank_correlation
from .published import (
    decoder_flops,
    published_axis,
    published_datasets,
    published_flops,
    published_methods,
    published_sources,
)

HOLDS, FAILS, UNKNOWN = 'holds', 'does not hold', 'cannot tell'
CAPTION = ("Claims. What the paper says, its published figures' arithmetic, and these records'. A published claim "
           'holds where its number comes out, or where it names none, its sign; a measured one where the '
           'difference has the claimed sign, whatever its size, beyond noise: in brackets DSC case with its 95 % '
           'interval, and p by Holm, as in the table of contrasts. Datasets are counted by sign alone, as in the '
           'paper.')


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


def check_claims(judged: Sequence[Judged], measured: Measured, grid: Grid) -> list[Claim]:
    """Every numeric claim, with footnotes where its arithmetic is not what its sentence says.

    Args:
        judged: the page's contrasts, which those of the claims are among.
    """
    methods, sources = published_methods('bcv'), published_sources('bcv').rows
    main, organs, datasets = methods.rows, methods.organs, published_datasets()
    flat, deep = published_flops().values()
    ours, without = (np.mean(list(methods.seeds[row].values())) for row in ('Ours', 'Ours w/o D'))
    variation = organs.loc['slice variation'].sort_values()
    known = {(each.contrast.cells, each.contrast.labels): each for each in judged}

    def here(judge: Callable[..., Finding], table: str, *rows: str) -> Finding:
        """What this grid's cells of these rows say, if they ran."""
        cells = [grid.tables[table].rows.get(row) if table in grid.tables else None for row in rows]
        if len(grid.datasets) > 1 or not all(cells):
            return NOT_RUN
        if too_thin := _too_thin(measured, cells):
            return too_thin
        return judge(measured, cells) if all(measured.value(cell).seeds for cell in cells) else NOT_RUN

    def difference(table: str, *rows: str) -> Finding:
        """Of two rows; of several, each and the next."""
        labels = grid.tables[table].labels if table in grid.tables else ''
        return _all_of([here(lambda measured, cells: _difference(measured, known, cells, labels), table, *pair)
                        for pair in zip(rows, rows[1:], strict=False)])

    return [
        Claim('Transfer gives 11.18 points of DSC over the same encoder from random weights.', 'Section 4.2',
              _published(main['Ours w/o D'], main['Ours w/o T&D'], printed=11.18),
              difference('2a', 'Ours w/o D', 'Ours w/o T&D')),
        Claim('Depth gives 6.07 points over the slice-based model, both from random weights.', 'Section 4.2',
              _published(main['UNETR'], main['Ours w/o T&D'], printed=6.07),
              difference('2a', 'Ours w/o T', 'Ours w/o T&D'),
              'The 6.07 compare UNETR, another architecture, with the slice-based BEiT. On the same architecture '
              f'(w/o T against w/o T&D) the paper\'s own figures give {main["Ours w/o T"]:.2f} - '
              f'{main["Ours w/o T&D"]:.2f} = {main["Ours w/o T"] - main["Ours w/o T&D"]:.2f}; that is what is '
              'measured here.'),
        Claim('With transfer, depth gives 1.95 points over the slice-based model.', 'Section 4.2',
              _published(main['Ours'], main['Ours w/o D'], printed=1.95), difference('2a', 'Ours', 'Ours w/o D'),
              f'1.95 is one seed. The paper\'s three give {ours:.2f} - {without:.2f} = {ours - without:.2f}.'),
        Claim('Depth costs 0.75 % more computation.', 'Section 4.2',
              Finding(HOLDS if '= 0.75' in _more(flat, deep) else FAILS, _more(flat, deep)),
              here(_cost, '2a', 'Ours w/o D', 'Ours'),
              'That is the encoder alone. With the decoder, which is the larger part and the same for both, the '
              f'model costs {_more(flat + decoder_flops(), deep + decoder_flops())} more (tools/flops.py).'),
        Claim('It outperforms all state-of-the-art methods.', 'Section 1',
              Finding(UNKNOWN, f'{main["Ours"]:.2f} pooled against means of cases: '
                               + ', '.join(f'{row} {main[row]:.2f}' for row in methods.per_case)), NOT_RUN,
              'The others\' figures are means of cases from their own papers, which pooled figures do not compare '
              f'with. Pooled as well is UNETR, {main["UNETR"]:.2f}, which the authors trained themselves.'),
        Claim('Inflated models are better on 10 of 11 further datasets.', 'Section 4.5',
              _published_datasets(datasets.loc['Ours'] - datasets.loc['Ours w/o D']), _datasets(measured, grid),
              'The "consistent improvements on 12 datasets" of Section 5 count BCV, on which the method was '
              f'developed; these {len(datasets.columns)} comparisons are what tests it.'),
        Claim('The gain by depth is significant at a level of 98 % (one-sided paired t-test over seeds).',
              'Section 4.2', _significance(methods.seeds['Ours'], methods.seeds['Ours w/o D']),
              here(_seeds, '2a', 'Ours', 'Ours w/o D'),
              'p = 0.019 is one-sided; two-sided it is 0.038, a level of 96 %. The ± printed is the population '
              'deviation (ddof 0) of three runs. The test holds the cases fixed: it says nothing of new ones.'),
        Claim('The larger the variation between neighbouring slices, the more depth gains.', 'Section 4.2',
              _correlation(variation, (organs.loc['Ours'] - organs.loc['Ours w/o D'])[variation.index]),
              here(_variation, '2a', 'Ours', 'Ours w/o D'),
              'Over the eight organs Pearson\'s correlation is strong and Spearman\'s is not: it rests on the '
              'gallbladder and the pancreas, not on an order of all.'),
        Claim('Gallbladder, pancreas and stomach gain most, as they vary most between slices.', 'Table 3',
              _most_varying(variation, ('gallbladder', 'pancreas', 'stomach')), NOT_RUN,
              'Slice variation is the mean Dice of neighbouring slices\' labels: the lower, the more they vary.'),
        Claim('Self-supervision on medical images transfers worse than on natural ones.', 'Section 4.3',
              _published(sources['DINO'], sources['CT-DINO']), difference('2b', 'DINO', 'CT-DINO')),
        Claim('Supervision on top of self-supervision transfers better than that alone.', 'Section 4.3',
              _published(sources['BEiT'], sources['BEiT-SSL']), difference('2b', 'BEiT', 'BEiT-SSL'),
              'BEiT is the one encoder that has both. Across encoders the lowest supervised, SwinT '
              f'({sources["SwinT"]:.2f}), is above the highest self-supervised, DINO ({sources["DINO"]:.2f}).'),
        Claim('Centering is better than average inflation.', 'Section 4.4',
              _published(*_table4('initialization', 'centering', 'average')),
              difference('4b', 'centering', 'average')),
        Claim('Average inflation is better than random.', 'Section 4.4',
              _published(*_table4('initialization', 'average', 'random')), difference('4b', 'average', 'random')),
        Claim('Predicting the centre slice is better than predicting all slices.', 'Section 4.4',
              _published(*_table4('target', 'center', 'all')), difference('4a', 'center', 'all')),
        Claim('The closer the slices, the better: stride 1, then 2, then 3.', 'Section 4.4',
              _published(*_table4('stride', '1', '2', '3')), difference('4c', '1', '2', '3')),
        Claim('A few neighbours are enough: 5 slices are better than 21.', 'Section 4.4',
              _published(*_table4('slices', '5', '21')), difference('4d', '5', '21')),
        Claim('So it is with Video Swin: 5 slices are better than 9.', 'Section 4.4',
              _published(*_table4('videoswin_slices', '5', '9')), NOT_RUN),
    ]


def claim_findings(claims: Sequence[Claim]) -> list[str]:
    """A sentence of how the claims fared here, those that failed by their words; none where none was tested."""
    tested = [claim for claim in claims if claim.here != NOT_RUN]
    if not tested:
        return []
    held, failed, open_ = ([claim for claim in tested if claim.here.verdict == verdict]
                           for verdict in (HOLDS, FAILS, UNKNOWN))
    failing = f' ({" ".join(claim.text for claim in failed)})' if failed else ''
    hold, do = 'holds' if len(held) == 1 else 'hold', 'does' if len(failed) == 1 else 'do'
    return [f'Of {len(tested)} claims of the paper that were tested here, {len(held)} {hold}, '
            f'{len(failed)} {do} not{failing}, and of {len(open_)} these runs cannot tell.']


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


def _published(*figures: float, printed: float | None = None) -> Finding:
    """Each published figure minus the next, which is as printed, or at least above zero."""
    pairs = list(zip(figures, figures[1:], strict=False))
    holds = all(first > second if printed is None else abs(first - second - printed) < 0.005
                for first, second in pairs)
    return Finding(HOLDS if holds else FAILS, ', '.join(_minus(*pair) for pair in pairs))


def _minus(first: float, second: float) -> str:
    return f'{first:.2f} - {second:.2f} = {first - second:.2f}'


def _difference(measured: Measured, known: Mapping[tuple, Judged], cells: Sequence[Cell], labels: str) -> Finding:
    """Of two cells, as the page judges their contrast, whichever of them comes first in it."""
    sign = 1 if (tuple(cells), labels) in known else -1
    judged = known[tuple(cells[::sign]), labels]
    arithmetic = _minus(*means(judged.contrast, measured)[::sign])
    if (found := judged.estimate) is None:
        return Finding(UNKNOWN, f'{arithmetic} [{TOO_FEW}]')
    low, high = sorted((sign * found.low, sign * found.high))
    verdict = UNKNOWN if not judged.beyond_noise else HOLDS if low > 0 else FAILS
    return Finding(verdict, f'{arithmetic} [{sign * found.value:+.2f}, {low:+.2f} to {high:+.2f}, '
                            f'{format_p(judged.holm, "Holm p")}]')


def _all_of(findings: Sequence[Finding]) -> Finding:
    """That all of them hold; one that fails is enough against it."""
    verdicts = {finding.verdict for finding in findings}
    verdict = FAILS if FAILS in verdicts else UNKNOWN if UNKNOWN in verdicts else HOLDS
    return Finding(verdict, ', '.join(dict.fromkeys(finding.arithmetic for finding in findings)))


def _too_thin(measured: Measured, cells: Sequence[Cell]) -> Finding | None:
    """That volumes have fewer slices than a window spans, so that more of them only repeat the ends."""
    spans = [(cell.slices - 1) * cell.stride + 1 for cell in cells if cell.of_windows]
    summary = measured.data.get(cells[0].dataset)
    if not summary or not spans or max(spans) <= (depth := summary['size'][2]):
        return None
    return Finding(UNKNOWN, f'a window spans {max(spans)} slices, a volume has {depth:.0f}: what lies beyond its '
                            'ends is the last slice again')


def _most_varying(variation: pd.Series, named: Sequence[str]) -> Finding:
    """Whether these organs are those of the least Dice between neighbouring slices."""
    names = dict(enumerate(BCV_LABELS))
    order = [names[i] for i in variation.index]
    text = ', '.join(f'{names[i]} {figure:.2f}' for i, figure in variation.items())
    return Finding(HOLDS if set(order[:len(named)]) == set(named) else FAILS, text)


def _cost(measured: Measured, cells: Sequence[Cell]) -> Finding:
    if not all(cell.of_windows for cell in cells):
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


def _seeds(measured: Measured, cells: Sequence[Cell]) -> Finding:
    return _significance(*(measured.value(cell).seeds for cell in cells))


def _significance(*seeds: Mapping[int, float]) -> Finding:
    """The claim's own level and side, for published and measured seeds alike."""
    test = compare_seeds(*seeds)
    if test is None:
        return Finding(UNKNOWN, 'not enough seeds')
    return Finding(HOLDS if test.one_sided < 0.02 else FAILS if test.one_sided > 0.98 else UNKNOWN,
                   f't({test.n - 1}) = {test.t:.2f}, {format_p(test.one_sided, "p")} one-sided, '
                   f'{format_p(test.two_sided)} two-sided ({test.n} seeds)')


def _variation(measured: Measured, cells: Sequence[Cell]) -> Finding:
    points = variation_points(measured, *cells)
    if len(points) < 4 or np.ptp(points['gain']) == 0:
        return NOT_RUN if points.empty else Finding(UNKNOWN, f'{len(points)} organs are too few')
    return _correlation(points['similarity'], points['gain'])


def _correlation(similarity: pd.Series, gain: pd.Series) -> Finding:
    """Both coefficients between neighbouring slices' Dice and gain: negative is what the claim says."""
    pearson, spearman = stats.pearsonr(similarity, gain), rank_correlation(similarity, gain)
    signs = {np.sign(test.statistic) * (test.pvalue < 0.05) for test in (pearson, spearman)}
    verdict = HOLDS if signs == {-1} else FAILS if signs == {1} else UNKNOWN
    return Finding(verdict, f'Pearson r = {pearson.statistic:.2f} ({format_p(pearson.pvalue, "p")}), '
                            f'Spearman rho = {spearman.statistic:.2f} ({format_p(spearman.pvalue, "p")}), '
                            f'{len(gain)} organs')
