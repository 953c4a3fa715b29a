"""What a grid found, in the page's first sentences: its contrasts, each with its interval and its test."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..grid.tables import Contrast
from .contrasts import Judged
from .frame import Measured
from .statistics import TOO_FEW, format_p
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
        by_effect: dict[str, list[Judged]] = {}
        for each in told:
            by_effect.setdefault(str(each.contrast), []).append(each)
        sentences = [_over_datasets(effect, each) for effect, each in by_effect.items()]
    return sentences if told and told[0].contrast.registered else sentences[:MOST]


def _best_of_others(measured: Measured, grid: Grid) -> list[str]:
    """Where the highest mean of all rows is of another system than the main table's reference."""
    rows = {row: cell for table in reversed(grid.tables.values()) for row, cell in table.rows.items()}
    means = {row: value.mean for row, cell in rows.items() if (value := measured.value(cell, 'dsc')).seeds}
    table = main_table(measured, grid)
    if not table or table.reference not in means:
        return []

    def system(cell: Cell) -> str:
        config = grid.configs.get(cell.encoder)  # of which several may be options of one
        return config if isinstance(config, str) else cell.encoder

    own = [row for row in means if system(rows[row]) == system(rows[table.reference])]
    best, ours = (max(names, key=means.__getitem__) for names in (means, own))
    return [] if best == ours else [
        f'The highest mean of all rows is not of this encoder: {best} has a DSC case of {means[best]:.2f}, the '
        f'best row of this encoder ({ours}) {means[ours]:.2f}.']


def told_first(judged: Sequence[Judged]) -> list[Judged]:
    """The contrasts that a page is about: those that its grid registers, else its tables' effects, else all."""
    overall = [each for each in judged if isinstance(each.contrast.labels, str)]
    return ([each for each in overall if each.contrast.registered]
            or [each for each in overall if each.contrast.name] or overall)


def _difference(judged: Judged, measured: Measured, grid: Grid) -> str:
    contrast, found = judged.contrast, judged.estimate
    case, pooled = ([measured.value(cell, metric, contrast.labels).mean for cell in contrast.cells]
                    for metric in ('dsc', 'dsc_pooled'))
    labels = ', all labels' if contrast.labels == 'all' else ''
    verdict = (f'95 % interval {found.interval} ({found.over}), {format_p(found.p, "p")}, by Holm '
               f'{format_p(judged.holm, "p")}, {"" if judged.beyond_noise else "not "}beyond noise'
               if found else f'{TOO_FEW} to say how sure')
    sentence = (f'{contrast}: {found.value if found else case[0] - case[1]:+.2f} points of DSC case{labels}, '
                f'{verdict} ({contrast.first} {case[0]:.2f}, {contrast.second} {case[1]:.2f}). '
                f'Pooled: {pooled[0] - pooled[1]:+.2f}')
    published = published_difference(contrast, grid)
    return sentence + (f', in the paper {published:+.2f}.' if published is not None else '.')


def published_difference(contrast: Contrast, grid: Grid) -> float | None:
    """A contrast of published figures; None where one of its rows has none on its dataset."""
    rows = grid.tables[contrast.table].published(contrast.cells[0].dataset).rows if contrast.table else {}
    both = contrast.first in rows and contrast.second in rows
    return rows[contrast.first] - rows[contrast.second] if both else None


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
