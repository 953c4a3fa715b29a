"""What a grid found, in the page's first sentences: differences between rows with their 95 % interval."""

from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pandas as pd

from ..grid.axes import Cell
from ..grid.reader import Grid
from ..grid.tables import Difference, Table
from .frame import Measured
from .statistics import Gain, gain_between
from .tables import main_table


def main_findings(measured: Measured, grid: Grid, most: int = 5) -> list[str]:
    """At most `most` sentences, from records alone: each table's first before any second."""
    told = []
    for table in grid.tables.values() if len(grid.datasets) == 1 else ():
        if table.by == 'metrics':
            sentences = [_difference(each, table, measured, grid) for each in table.shown_differences]
            sentences += _ranked(table, measured) if table.ranks else []
            told.append([sentence for sentence in sentences if sentence])
    told.append(filter(None, [_datasets(measured, grid)]))
    return [sentence for turn in zip_longest(*told) for sentence in turn if sentence][:most]


def _difference(difference: Difference, table: Table, measured: Measured, grid: Grid) -> str | None:
    names = difference.first, difference.second
    cells = [table.rows[name] for name in names]
    figures = [measured.value(cell, labels=table.labels).mean for cell in cells]
    if np.isnan(figures).any():
        return None
    gain = gain_between(*cells, measured, table.labels)
    sentence = (f'{difference}: {_points(gain, figures)} ({names[0]} {figures[0]:.2f}, {names[1]} {figures[1]:.2f}'
                f'{", all labels" if table.labels == "all" else ""}).')
    published = table.published(grid.dataset)
    if set(names) <= set(published.rows):
        paper = published.rows[names[0]] - published.rows[names[1]]
        sentence += f' In the {published.heading}: {paper:+.2f}.'
    return sentence


def _points(gain: Gain | None, figures: list[float]) -> str:
    if gain is None:
        return f'{figures[0] - figures[1]:+.2f} points of DSC; too few seeds and cases to say how sure'
    word = 'beyond' if gain.beyond_noise else 'within'
    kind = '' if gain.over == 'seeds' else ' per case'
    return (f'{gain.value:+.2f} points of DSC{kind}, 95 % interval {gain.low:+.2f} to {gain.high:+.2f}, '
            f'{word} noise')


def main_cells(measured: Measured, grid: Grid) -> tuple[Difference | None, list[tuple[Cell, Cell]]]:
    """The main table's first difference, if it has one, and its two cells on every dataset where both were run."""
    table = main_table(measured, grid)
    if not table or not table.shown_differences:
        return None, []
    difference = table.shown_differences[0]
    pairs = [tuple(replace(table.rows[row], dataset=dataset) for row in (difference.first, difference.second))
             for dataset in grid.datasets]
    return difference, [pair for pair in pairs
                        if all(measured.value(cell, labels=table.labels).seeds for cell in pair)]


def dataset_gains(measured: Measured, grid: Grid) -> dict[str, Gain]:
    """Dataset -> the main difference there, where there is enough to tell."""
    _, pairs = main_cells(measured, grid)
    gains = {pair[0].dataset: gain_between(*pair, measured, main_table(measured, grid).labels) for pair in pairs}
    return {dataset: gain for dataset, gain in gains.items() if gain}


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


def _datasets(measured: Measured, grid: Grid) -> str | None:
    gains = [*dataset_gains(measured, grid).values()]
    if len(grid.datasets) == 1 or not gains:
        return None
    difference, _ = main_cells(measured, grid)
    labels = ', all labels' if main_table(measured, grid).labels == 'all' else ''
    better, worse = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    return (f'{difference}, on {len(gains)} datasets: better beyond noise on {better}, worse on {worse}; '
            f'{np.mean([gain.value for gain in gains]):+.2f} points of DSC on average{labels}.')


def _ranked(table: Table, measured: Measured) -> list[str]:
    """The highest row against the next and against random weights, and the lowest against those."""
    rows = {name: (measured.value(cell, labels=table.labels).mean, cell) for name, cell in table.rows.items()}
    ranked = sorted((item for item in rows.items() if not np.isnan(item[1][0])), key=lambda item: -item[1][0])
    random = next((item for item in ranked if item[1][1].source == 'none'), None)
    others = [item for item in ranked if item is not random]
    if len(others) < 2:
        return []
    pairs = [('Highest', others[0], others[1]), ('Highest', others[0], random), ('Lowest', others[-1], random)]
    return [f'{place} of {len(others)} {table.ranks} is {name}, {figure:.2f}; against {other}, {less:.2f}: '
            f'{_points(gain_between(first, second, measured, table.labels), [figure, less])}.'
            for place, (name, (figure, first)), (other, (less, second)) in (pair for pair in pairs if pair[2])]
