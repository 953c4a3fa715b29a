"""What a grid found, in the page's first sentences: its contrasts, each with its interval and its test."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..grid.tables import Contrast
from .contrasts import Judged, difference, means
from .frame import Measured
from .statistics import TOO_FEW, estimate_difference, format_p
from .tables import main_table

MOST = 5  # sentences, where no contrast is registered


def main_findings(judged: Sequence[Judged], measured: Measured, grid: Grid) -> list[str]:
    """A sentence for each contrast that the grid registers; without any, for the first effects of its tables.

    Before them one where another system does best, as that is what a reader has to know first.

    Args:
        judged: all of the page.
    """
    told = told_first(judged)
    if len(grid.datasets) == 1:
        sentences = [*_best_of_others(measured, grid), *(_difference(each, measured, grid) for each in told)]
    else:
        by_effect: dict[tuple, list[Judged]] = {}
        for each in told:
            by_effect.setdefault((str(each.contrast), each.contrast.table), []).append(each)
        effects = [effect for effect, _ in by_effect]
        sentences = [_over_datasets(f'{effect} ({table})' if effects.count(effect) > 1 else effect, each)
                     for (effect, table), each in by_effect.items()]
    return sentences if told and told[0].contrast.registered else sentences[:MOST]


def _best_of_others(measured: Measured, grid: Grid) -> list[str]:
    """Where the highest mean of all rows is of another system than the main table's reference."""
    found = {cell: value.mean for cell in grid.in_tables() if (value := measured.value(cell, 'dsc')).seeds}
    table, names = main_table(measured, grid), {}
    for name, (*_, cell) in grid.named_rows().items():  # without its table, where that is enough
        names[cell] = min(names.get(cell, name), name, key=len)
    if not table or not table.reference or table.rows[table.reference] not in found:
        return []

    def system(cell: Cell) -> str:
        config = grid.configs.get(cell.encoder)  # of which several may be options of one
        return config if isinstance(config, str) else cell.encoder

    own = [cell for cell in found if system(cell) == system(table.rows[table.reference])]
    best, ours = (max(cells, key=found.__getitem__) for cells in (found, own))
    if best == ours:
        return []
    sure = estimate_difference(*measured.pair_patients(best, ours))
    return [f'The highest mean of all rows is not of this encoder: {names[best]} has a DSC case of '
            f'{found[best]:.2f}, the best row of this encoder ({names[ours]}) {found[ours]:.2f}'
            + (f'; looked up, {sure.value:+.2f}, 95 % interval {sure.interval}.' if sure else '.')]


def told_first(judged: Sequence[Judged]) -> list[Judged]:
    """The contrasts that a page is about: those that its grid registers, else its tables' effects, else all."""
    overall = [each for each in judged if isinstance(each.contrast.labels, str)]
    return ([each for each in overall if each.contrast.registered]
            or [each for each in overall if each.contrast.name] or overall)


def _difference(judged: Judged, measured: Measured, grid: Grid) -> str:
    contrast, found = judged.contrast, judged.estimate
    case, pooled = (means(contrast, measured, metric) for metric in ('dsc', 'dsc_pooled'))
    labels = ', all labels' if contrast.labels == 'all' else ''
    verdict = (f'95 % interval {found.interval} ({found.over}), {format_p(found.p, "p")}, by Holm '
               f'{format_p(judged.holm, "p")}, {"" if judged.beyond_noise else "not "}beyond noise'
               if found else f'{TOO_FEW} to say how sure')
    sentence = (f'{contrast}: {difference(judged, measured):+.2f} points of DSC case{labels}, '
                f'{verdict} ({contrast.first} {case[0]:.2f}, {contrast.second} {case[1]:.2f}). '
                f'Pooled: {pooled[0] - pooled[1]:+.2f}')
    published = published_difference(contrast, grid)
    return sentence + (f', in the paper {published:+.2f}.' if published is not None else '.')


def published_difference(contrast: Contrast, grid: Grid) -> float | None:
    """A contrast of published pooled figures; None where one of its rows has none on its dataset."""
    if not contrast.table:
        return None
    published = grid.tables[contrast.table].published(contrast.cells[0].dataset)
    first, second = (np.nan if row in published.per_case else published.rows.get(row, np.nan)
                     for row in (contrast.first, contrast.second))
    return None if np.isnan(first - second) else first - second


def _over_datasets(effect: str, judged: Sequence[Judged]) -> str:
    found = [(each.estimate, each.beyond_noise) for each in judged if each.estimate]
    if not found:
        return f'{effect}: {TOO_FEW} on any dataset.'
    better, worse = (sum(beyond and sign * one.value > 0 for one, beyond in found) for sign in (1, -1))
    labels = ', all labels' if judged[0].contrast.labels == 'all' else ''
    return (f'{effect}, on {len(found)} datasets: better beyond noise on {better}, worse on {worse}; '
            f'{np.mean([one.value for one, _ in found]):+.2f} points of DSC case on average{labels}.')


def variation_points(measured: Measured, *cells: Cell) -> pd.DataFrame:
    """Of two cells on one dataset, per reported organ: `similarity`, the mean Dice between neighbouring slices'
    labels, and `gain`, the first's DSC minus the second's."""
    summary, points = measured.data.get(cells[0].dataset, dict(headline=())), {}
    for organ in summary['headline']:
        first, second = (measured.value(cell, labels=[organ]) for cell in cells)
        if first.seeds and second.seeds and summary['variation'][organ] is not None:
            points[summary['labels'][organ]] = dict(similarity=summary['variation'][organ],
                                                    gain=first.mean - second.mean)
    return pd.DataFrame(points).T
