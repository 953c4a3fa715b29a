"""Every figure of a grid's records, with its caption."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker
from scipy import stats

from ..grid.axes import Cell
from ..grid.reader import Grid
from ..grid.tables import Published, Table
from .findings import dataset_gains, main_cells, variation_points
from .frame import Measured
from .plotting import COLOURS, STYLE, place_texts, save, styled
from .prediction_figure import draw_predictions
from .statistics import case_interval
from .tables import free_cells, main_table, varying_axes, was_run


class Drawn(NamedTuple):
    """A figure's title, what its reader must know, and its PNG; a PDF of the same name lies beside that."""
    title: str
    caption: str
    path: Path


def draw_all(measured: Measured, grid: Grid, results: Path, into: Path) -> list[Drawn]:
    """Every figure that the records allow.

    Args:
        results: the folder of the records; predictions lie beside them, where any are kept.
        into: folder to draw in.
    """
    drawn: list[Drawn] = []

    def add(title: str, caption: str, name: str, draw: Callable, *arguments) -> None:
        figure = draw(*arguments)
        if figure is not None:
            drawn.append(Drawn(title, caption, save(figure, into / f'{name}.png')))

    rows, main = rows_by_dataset(measured, grid), main_cells(measured, grid)
    alone = len(grid.datasets) == 1
    with plt.rc_context():  # a user's own matplotlibrc must not show
        plt.rcdefaults()
        plt.rcParams.update(STYLE)
        for table in grid.tables.values() if alone else ():
            if not table.figure or not was_run(table, measured, grid):
                continue
            if table.by == 'organs':
                published = _organs(table.published(grid.dataset)) is not None
                add('DSC by organ', 'Bars: mean of cases, averaged over seeds. Whiskers: 95 % interval over cases '
                    f'(bootstrap; from six cases on).{" Black dashes: published, pooled." * published}',
                    table.figure, organ_bars, table, measured, grid)
            else:
                add(f'DSC against {table.axis}' if table.axis else f'DSC of the rows of {table.name}',
                    'Grey dots: seeds. Diamonds: their mean, ± their sample standard deviation. Panels span the '
                    'same number of points.', table.figure, row_plot, table, measured, grid)
        if main and not alone:
            add(f'Gain by dataset: {main[0].what}', f'{main[0].first} minus {main[0].second}. Whiskers: 95 % '
                'interval over seeds; over cases where no row has several. Diamonds: published.', 'datasets',
                dataset_dots, measured, grid)
        cells = [cell for cell in free_cells(measured, grid) if measured.value(cell).seeds and not cell.is_method]
        for axis in varying_axes(cells):
            add(f'DSC against {axis}, free axes', 'Mean over seeds ± their sample standard deviation.',
                f'free_{axis}', free_plot, axis, cells, measured)
        if main and alone:
            add(f'Gain by {main[0].what} against slice variation', 'Each dot is an organ; further left, '
                'neighbouring slices differ more. Line: least squares. p is two-sided.', 'variation',
                variation_plot, measured, grid)
        add('DSC against cost', 'Mean over seeds; whiskers: lowest and highest seed. Time is of training and '
            'evaluation, of runs that were not interrupted.', 'cost', cost_plot, rows, measured, grid)
        add('Learning curves', 'Mean loss of each twentieth of the training; bands: lowest and highest seed.',
            'curves', curve_plot, rows, measured)
        add('DSC of every case', 'Mean over reported labels and seeds. Bars: medians. Named: cases further than '
            '1.5 interquartile ranges from the middle half, and the lowest of each row.', 'cases', case_dots, rows,
            measured)
        if alone:
            add('Five consecutive slices', 'Image, reference, and the prediction of the first seed that kept one; '
                'DSC is of the whole case.', 'predictions', draw_predictions, rows.get(grid.dataset, {}), measured,
                grid, results)
    return drawn


def _organs(published: Published | None) -> pd.DataFrame | None:
    return published and published.organs


def organ_bars(table: Table, measured: Measured, grid: Grid):
    """Bars by organ: per-case DSC with its interval over cases; published pooled figures as black marks."""
    scores, published, rows = measured.done()[0]['scores'], table.published(grid.dataset), table.rows
    organs, paper = scores['headline'], _organs(published)
    figure, axes = plt.subplots(figsize=(min(max(5.0, 1.15 * len(organs)), 11), 3.6))
    width = 0.8 / len(rows)
    for number, (label, cell) in enumerate(rows.items()):
        x = np.arange(len(organs)) + (number - (len(rows) - 1) / 2) * width
        values = [measured.value(cell, 'dsc', [organ]).mean for organ in organs]
        axes.bar(x, values, width * 0.92, color=COLOURS[number % len(COLOURS)], label=label)
        for place, organ in zip(x, organs, strict=True):
            if interval := case_interval(measured.per_case(cell, [organ])):
                axes.vlines(place, *interval, color='#333333', lw=0.8)
        if paper is not None and label in paper.index:
            axes.plot(x, paper.loc[label, organs], 'k_', ms=6, mew=1.4,
                      label=f'{published.heading}, pooled' if number == 0 else None)
    axes.set_xticks(range(len(organs)), [scores['labels'][i].replace(' ', '\n') for i in organs])
    axes.set_ylabel('DSC case (%), 95 % over cases')
    axes.set_ylim(0, 100)
    axes.grid(axis='x', visible=False)
    figure.legend(ncols=3, loc='upper center', bbox_to_anchor=(0.5, 0))
    figure.tight_layout()
    return figure


def dataset_dots(measured: Measured, grid: Grid):
    """The main difference on every dataset, the published one beside it; None where no dataset has one."""
    gains = {dataset: gain for dataset, gain in dataset_gains(measured, grid).items() if gain}
    if not gains:
        return None
    difference, _ = main_cells(measured, grid)
    figure, axes = plt.subplots(figsize=(5.6, 0.9 + 0.32 * len(gains)))
    for y, gain in enumerate(gains.values()):
        axes.hlines(y, gain.low, gain.high, color=COLOURS[3], lw=1)
        axes.plot(gain.value, y, 'o', color=COLOURS[3], label='measured' if y == 0 else None)
    rows = [(y, published.rows) for y, dataset in enumerate(gains)
            if (published := main_table(measured, grid).published(dataset))
            and {difference.first, difference.second} <= set(published.rows)]
    if rows:
        axes.plot([paper[difference.first] - paper[difference.second] for _, paper in rows],
                  [y for y, _ in rows], 'D', color=COLOURS[2], ms=5, label='published')
    axes.axvline(0, color='#333333', lw=0.8)
    axes.set_yticks(range(len(gains)), gains)
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.set_xlabel(f'gain by {difference.what}, DSC pooled (points)')
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1))
    return figure


def row_plot(table: Table, measured: Measured, grid: Grid):
    """Measured DSC of a table's rows, every seed a dot, and what is published beside it at the same scale."""
    rows, published = list(table.rows), table.published(grid.dataset)
    size = (6.4 if published else 3.4, 2.8)
    figure, panels = plt.subplots(1, 2 if published else 1, figsize=size, squeeze=False)
    left = panels[0, 0]
    joined = '-' if all(row.isdigit() for row in rows) else ''
    values = [measured.value(cell, labels=table.labels) for cell in table.rows.values()]
    for x, value in enumerate(values):
        left.plot([x - 0.12] * len(value.seeds), list(value.seeds.values()), 'o', color=COLOURS[0], ms=3.5)
    left.errorbar(range(len(rows)), [v.mean for v in values], yerr=[np.nan_to_num(v.std) for v in values],
                  fmt='D' + joined, color=COLOURS[3], ms=5, elinewidth=0.8, capsize=2)
    left.set_title('measured')
    if published:
        right = panels[0, 1]
        right.plot(range(len(rows)), [published.rows.get(row, np.nan) for row in rows], 'D' + joined,
                   color=COLOURS[2], ms=5)
        right.set_title(published.heading)
    span = max(np.ptp(axes.get_ylim()) for axes in panels[0])
    for axes in panels[0]:
        middle = np.mean(axes.get_ylim())
        axes.set_ylim(middle - span / 2, middle + span / 2)
        axes.set_xticks(range(len(rows)), rows)
        axes.set_xlim(-0.4, len(rows) - 0.6)
        axes.set_xlabel(table.axis)
    left.set_ylabel(f'DSC pooled (%), {"all" if table.labels == "all" else "reported"} labels')
    figure.tight_layout()
    return figure


def free_plot(axis: str, cells: list[Cell], measured: Measured):
    """Measured DSC of free cells along one axis, a line for every combination of the others."""
    values = sorted({getattr(cell, axis) for cell in cells}, key=lambda value: (value is None, value))
    others = [other for other in varying_axes(cells) if other != axis]
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        lines.setdefault(', '.join(f'{other} {getattr(cell, other)}' for other in others), []).append(cell)
    figure, axes = plt.subplots(figsize=(5.0, 3.0))
    for number, (label, members) in enumerate(lines.items()):
        members.sort(key=lambda cell: values.index(getattr(cell, axis)))
        scores = [measured.value(cell) for cell in members]
        axes.errorbar([values.index(getattr(cell, axis)) for cell in members], [score.mean for score in scores],
                      yerr=[np.nan_to_num(score.std) for score in scores], ms=4, lw=1, capsize=2,
                      label=label or None, **styled(number + 3))
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlabel(axis)
    axes.set_ylabel('DSC pooled (%), reported labels')
    if any(lines):
        axes.legend(loc='upper left', bbox_to_anchor=(1, 1))
    return figure


def variation_plot(measured: Measured, grid: Grid):
    """The main difference against neighbouring slices' Dice by organ, and the published one; None if not run."""
    difference, pairs = main_cells(measured, grid)
    points = variation_points(measured, *pairs[0]) if pairs else ()
    if len(points) < 2:
        return None
    published = main_table(measured, grid).published(grid.dataset)
    panels = {'measured': (points['similarity'], points['gain'])}
    if (paper := _organs(published)) is not None:
        paper = paper.rename(columns=dict(enumerate(measured.done()[0]['scores']['labels'])))
        panels[published.heading] = (paper.loc['slice variation'],
                                     paper.loc[difference.first] - paper.loc[difference.second])
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.6), squeeze=False)
    for panel, colour, (title, (similarity, gain)) in zip(axes[0], (COLOURS[3], COLOURS[2]), panels.items(),
                                                          strict=False):
        panel.plot(similarity, gain, 'o', color=colour, ms=5)
        panel.axhline(0, color='#333333', lw=0.5, ls=':')
        correlations = f'{len(gain)} organs: too few for a fit'
        if len(gain) > 3:
            fit, ends = np.polyfit(similarity, gain, 1), np.array([similarity.min(), similarity.max()])
            panel.plot(ends, np.polyval(fit, ends), color='#333333', lw=1, zorder=1)
            pearson, spearman = stats.pearsonr(similarity, gain), stats.spearmanr(similarity, gain)
            correlations = (f'Pearson r = {pearson.statistic:.2f} (p = {pearson.pvalue:.3f}), '
                            f'Spearman ρ = {spearman.statistic:.2f} (p = {spearman.pvalue:.2f})')
        panel.set_title(f'{title}\n{correlations}', fontsize=8)
        panel.set_xlabel('Dice between neighbouring slices (%)')
        panel.margins(0.12)
        place_texts(panel, list(zip(similarity, gain, strict=True)), list(similarity.index))
    axes[0, 0].set_ylabel(f'gain by {difference.what}, DSC pooled (points)')
    figure.tight_layout()
    return figure


def rows_by_dataset(measured: Measured, grid: Grid) -> dict[str, dict[str, Cell]]:
    """What figures of rows show, by dataset: the main table's that were run, or else free cells."""
    if table := main_table(measured, grid):
        rows = table.rows
    else:
        cells = free_cells(measured, grid)[:len(COLOURS)]
        axes = varying_axes(cells)
        rows = {', '.join(f'{axis} {getattr(cell, axis)}' for axis in axes) or 'the cell': cell for cell in cells}
    placed = {dataset: {label: same for label, cell in rows.items()
                        if measured.done(same := replace(cell, dataset=dataset))} for dataset in grid.datasets}
    return {dataset: found for dataset, found in placed.items() if found}


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
        score = measured.value(cell)
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
