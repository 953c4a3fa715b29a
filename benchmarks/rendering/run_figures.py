"""Plots of the runs themselves: what they cost, how they learnt, and every case."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from ..axes import Cell
from ..cells import Grid
from .plotting import COLOURS, place_texts, styled
from .tables import Measured, free_cells, varying_axes


def rows_by_dataset(measured: Measured, grid: Grid) -> dict[str, dict[str, Cell]]:
    """What figures of rows show: Table 2(a)'s that were run, else another table's, else free cells."""
    first = [table for table in ('2a', '2b', '5') if table in grid.tables]
    ran = (rows for rows in (grid.tables[table] for table in [*first, *grid.tables])
           if any(measured.done(cell) for cell in grid.on_each(rows.values())))
    if (rows := next(ran, None)) is None:
        cells = free_cells(measured, grid)[:len(COLOURS)]
        axes = varying_axes(cells)
        rows = {', '.join(f'{axis} {getattr(cell, axis)}' for axis in axes) or 'the cell': cell for cell in cells}
    found = {}
    for dataset in grid.datasets:
        placed = {label: grid_cell for label, cell in rows.items() for grid_cell in grid.on_each([cell])
                  if grid_cell.dataset == dataset and measured.done(grid_cell)}
        if placed:
            found[dataset] = placed
    return found


def cost_plot(rows: dict[str, dict[str, Cell]], measured: Measured, grid: Grid):
    """DSC against FLOPs of a window and against training time; rows in colour, the grid's other cells hollow."""
    if len(rows) != 1 or len(grid.datasets) > 1:  # DSC of several datasets has no common axis
        return None
    [named] = rows.values()
    finished = [cell for cell in measured.cells() if measured.done(cell) and not cell.is_method]
    if not finished:
        return None
    others = [cell for cell in finished if cell not in named.values()]
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 3.2), sharey=True)
    largest = max(record['cost']['flops'] for cell in finished for record in measured.done(cell))
    scale, unit = (1e9, 'GFLOPs') if largest >= 1e9 else (1e6, 'MFLOPs')
    plain = dict(color='#777777', marker='o', mfc='white', ms=4)
    drawn = [('other cells of the grid', cell, plain) for cell in others]
    drawn += [(label, cell, dict(styled(number), ms=6)) for number, (label, cell) in enumerate(named.items())
              if cell in finished]
    for label, cell, style in drawn:
        score = measured.value(cell, 'dsc_pooled')
        runs = measured.done(cell)
        amounts = ([run['cost']['flops'] / scale for run in runs],
                   [run['cost']['seconds'] for run in runs if not run['cost'].get('resumed_from')])
        for panel, amount in zip(panels, amounts, strict=True):
            if amount:
                seeds = list(score.seeds.values())
                panel.errorbar(np.mean(amount), score.mean, **_reach(amount, 'xerr'), **_reach(seeds, 'yerr'),
                               lw=0, elinewidth=0.7, label=label, **style)
    panels[0].set_xlabel(f'{unit} per window, whole model')
    panels[1].set_xlabel('time of a run (s)')
    panels[0].set_ylabel('DSC pooled (%), reported labels')
    labelled = {label: bars[0] for bars, label in zip(*panels[0].get_legend_handles_labels(), strict=True)}
    figure.legend(labelled.values(), labelled, loc='upper center', bbox_to_anchor=(0.5, 0),
                  ncols=1 if max(map(len, labelled)) > 36 else 2 if max(map(len, labelled)) > 20 else 3)
    figure.tight_layout()
    return figure


def _reach(values: Sequence[float], key: str) -> dict:
    """An error bar from the lowest to the highest."""
    mean = np.mean(values)  # may round to beside equal values
    return {key: [[max(mean - min(values), 0)], [max(max(values) - mean, 0)]]}


def curve_plot(rows: dict[str, dict[str, Cell]], measured: Measured):
    """Training loss of every row, a panel for each dataset; None without records of it."""
    rows = {dataset: trained for dataset, named in rows.items()
            if (trained := {label: cell for label, cell in named.items() if not cell.is_method})}
    if not rows:
        return None
    columns = min(len(rows), 3)
    lines = -(-len(rows) // columns)
    size = (5.2, 3.4) if len(rows) == 1 else (3.2 * columns, 2.6 * lines)
    figure, panels = plt.subplots(lines, columns, squeeze=False, figsize=size)
    labelled = {}
    for panel, (dataset, named) in zip(panels.flat, rows.items(), strict=False):
        for number, (label, cell) in enumerate(named.items()):
            style = styled(number)
            curves = [run['training'] for run in measured.done(cell)]
            parts = min(len(training['curve']) for training in curves)
            losses = np.array([training['curve'][:parts] for training in curves])
            steps = (np.arange(parts) + 0.5) * curves[0]['steps'] / parts
            panel.fill_between(steps, losses.min(0), losses.max(0), color=style['color'], alpha=0.25, lw=0)
            labelled[label], = panel.plot(steps, losses.mean(0), lw=1.2, ms=3, **style)
        panel.set_yscale('log')
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        panel.yaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
        panel.yaxis.set_minor_locator(ticker.NullLocator())
        panel.set_xlabel('training step')
        panel.set_title(dataset)
    for panel in panels.flat[len(rows):]:
        panel.set_axis_off()
    for line in panels:
        line[0].set_ylabel('training loss')
    figure.legend(labelled.values(), labelled, loc='upper center', bbox_to_anchor=(0.5, 0),
                  ncols=1 if max(map(len, labelled)) > 24 else 3)
    figure.tight_layout()
    return figure


def case_dots(rows: dict[str, dict[str, Cell]], measured: Measured):
    """Every case of every row as a dot, those far from the others by name; None without any."""
    several = len(rows) > 1
    lines = [(f'{dataset}, {label}' if several else label, measured.per_case(cell), styled(number))
             for dataset, named in rows.items() for number, (label, cell) in enumerate(named.items())]
    lines = [line for line in lines if line[1]]
    if not lines:
        return None
    figure, axes = plt.subplots(figsize=(7.2, 0.8 + 0.55 * len(lines)))
    named, dots = [], []
    for y, (_, cases, style) in enumerate(lines):
        values = np.array(list(cases.values()))
        heights = y + _spread(values)
        axes.plot(values, heights, ls='', ms=4.5, mec='white', mew=0.4, **style)
        axes.vlines(np.median(values), y - 0.3, y + 0.3, color='#333333', lw=1.2)
        dots += zip(values, heights, strict=True)
        named += [(values[i], heights[i], list(cases)[i]) for i in _outliers(values)]
    axes.set_yticks(range(len(lines)), [label for label, *_ in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis='y', visible=False)
    axes.margins(x=0.08)
    axes.set_xlabel('DSC case (%), reported labels')
    figure.tight_layout()
    place_texts(axes, [(x, y) for x, y, _ in named], [text for *_, text in named], dots)
    return figure


def _spread(values: np.ndarray) -> np.ndarray:
    """Offsets that part dots of nearly the same value."""
    offsets, width = np.zeros(len(values)), max(np.ptp(values), 1e-9) / 40
    for rank, i in enumerate(order := np.argsort(values, kind='stable')):
        crowd = sum(values[i] - values[j] < width for j in order[max(rank - 4, 0):rank])
        offsets[i] = (0, -0.14, 0.14, -0.28, 0.28)[crowd]
    return offsets


def _outliers(values: np.ndarray) -> list[int]:
    """Tukey's: beyond 1.5 interquartile ranges of the middle half; and the lowest."""
    low, high = np.percentile(values, [25, 75])
    reach = 1.5 * (high - low)
    far = np.flatnonzero((values < low - reach) | (values > high + reach))
    return sorted({int(values.argmin()), *far.tolist()})
