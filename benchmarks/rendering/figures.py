"""Every figure of a grid's records, with its caption."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from ..axes import Cell
from ..cells import Grid
from .claims import variation_points
from .findings import case_interval, dataset_gains
from .plotting import COLOURS, STYLE, place_texts, save, styled
from .prediction_figure import draw_predictions
from .published import AXIS, paper_column, published, published_datasets, published_organs
from .run_figures import case_dots, cost_plot, curve_plot, rows_by_dataset
from .tables import Measured, free_cells, varying_axes


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

    def ran(table: str) -> bool:
        return any(measured.value(cell, 'dsc_pooled').seeds for cell in grid.tables.get(table, {}).values())

    rows = rows_by_dataset(measured, grid)
    with plt.rc_context():  # a user's own matplotlibrc must not show
        plt.rcdefaults()
        plt.rcParams.update(STYLE)
        if ran('3') and len(grid.datasets) == 1:
            paper = ' Black dashes: the paper, pooled.' if published_organs(grid) is not None else ''
            add('DSC by organ', 'Bars: mean of cases, averaged over seeds. Whiskers: 95 % interval over cases '
                f'(bootstrap; from six cases on).{paper}', 'organs', organ_bars, measured, grid)
        add('Gain by dataset', 'Depth against none, both with transfer. Whiskers: 95 % interval over seeds; over '
            'cases where no row has several. Diamonds: the paper.', 'datasets', dataset_dots, measured, grid)
        for table, axis in AXIS.items():
            if ran(table):
                add(f'DSC against {axis}', 'Grey dots: seeds. Diamonds: their mean, ± their sample standard '
                    'deviation. Both panels span the same number of points.', axis, axis_plot, table, measured,
                    grid)
        cells = [cell for cell in free_cells(measured, grid)
                 if measured.value(cell, 'dsc_pooled').seeds and not cell.is_method]
        for axis in varying_axes(cells):
            add(f'DSC against {axis}, free axes', 'Mean over seeds ± their sample standard deviation.',
                f'free_{axis}', free_plot, axis, cells, measured)
        add('Gain by depth against slice variation', 'Each dot is an organ; further left, neighbouring slices '
            'differ more. Line: least squares. p is two-sided.', 'variation', variation_plot, measured, grid)
        add('DSC against cost', 'Mean over seeds; whiskers: lowest and highest seed. Time is of training and '
            'evaluation, of runs that were not interrupted.', 'cost', cost_plot, rows, measured, grid)
        add('Learning curves', 'Mean loss of each twentieth of the training; bands: lowest and highest seed.',
            'curves', curve_plot, rows, measured)
        add('DSC of every case', 'Mean over reported labels and seeds. Bars: medians. Named: cases further than '
            '1.5 interquartile ranges from the middle half, and the lowest of each row.', 'cases', case_dots, rows,
            measured)
        if len(grid.datasets) == 1:
            add('Figure 2. Five consecutive slices', 'Image, reference, and the prediction of the first seed '
                'that kept one; DSC is of the whole case.', 'predictions', draw_predictions, measured, grid,
                results)
    return drawn


def organ_bars(measured: Measured, grid: Grid):
    """Bars by organ: per-case DSC with its interval over cases; the paper's pooled figures as black marks."""
    scores, paper = measured.done()[0]['scores'], published_organs(grid)
    organs, rows = scores['headline'], grid.tables['3']
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
                      label=f'{paper_column(grid)}, pooled' if number == 0 else None)
    axes.set_xticks(range(len(organs)), [scores['labels'][i].replace(' ', '\n') for i in organs])
    axes.set_ylabel('DSC case (%), 95 % over cases')
    axes.set_ylim(0, 100)
    axes.grid(axis='x', visible=False)
    figure.legend(ncols=3, loc='upper center', bbox_to_anchor=(0.5, 0))
    figure.tight_layout()
    return figure


def dataset_dots(measured: Measured, grid: Grid):
    """Table 5's gain by depth of every dataset, the paper's beside it; None for a grid of one dataset."""
    gains = {dataset: gain for dataset, gain in dataset_gains(measured, grid).items() if gain}
    if len(grid.datasets) < 2 or not gains:
        return None
    paper = published_datasets()
    figure, axes = plt.subplots(figsize=(5.6, 0.9 + 0.32 * len(gains)))
    for y, gain in enumerate(gains.values()):
        axes.hlines(y, gain.low, gain.high, color=COLOURS[3], lw=1)
        axes.plot(gain.value, y, 'o', color=COLOURS[3], label='measured' if y == 0 else None)
    both = [(y, dataset) for y, dataset in enumerate(gains) if dataset in paper]
    axes.plot([paper.loc['Ours', dataset] - paper.loc['Ours w/o D', dataset] for _, dataset in both],
              [y for y, _ in both], 'D', color=COLOURS[2], ms=5, label='paper')
    axes.axvline(0, color='#333333', lw=0.8)
    axes.set_yticks(range(len(gains)), gains)
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.set_xlabel('gain by depth, DSC pooled (points)')
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1))
    return figure


def axis_plot(table: str, measured: Measured, grid: Grid):
    """Measured DSC along one axis with every seed as a dot, and the paper's beside it at the same scale."""
    rows, paper = grid.tables[table], published(table, grid)
    figure, panels = plt.subplots(1, 2 if paper else 1, figsize=(6.4 if paper else 3.4, 2.8), squeeze=False)
    left = panels[0, 0]
    labels, joined = list(rows), '-' if AXIS[table] in ('stride', 'slices') else ''
    values = [measured.value(cell, 'dsc_pooled', 'all') for cell in rows.values()]
    for x, value in enumerate(values):
        left.plot([x - 0.12] * len(value.seeds), list(value.seeds.values()), 'o', color=COLOURS[0], ms=3.5)
    left.errorbar(range(len(labels)), [v.mean for v in values], yerr=[np.nan_to_num(v.std) for v in values],
                  fmt='D' + joined, color=COLOURS[3], ms=5, elinewidth=0.8, capsize=2)
    left.set_title('measured')
    if paper:
        right = panels[0, 1]
        right.plot(range(len(labels)), [paper.get(label, np.nan) for label in labels], 'D' + joined,
                   color=COLOURS[2], ms=5)
        right.set_title(paper_column(grid))
    span = max(np.ptp(axes.get_ylim()) for axes in panels[0])
    for axes in panels[0]:
        middle = np.mean(axes.get_ylim())
        axes.set_ylim(middle - span / 2, middle + span / 2)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.4, len(labels) - 0.6)
        axes.set_xlabel(AXIS[table])
    left.set_ylabel('DSC pooled (%), all labels')
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
        scores = [measured.value(cell, 'dsc_pooled') for cell in members]
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
    """Gain by depth against neighbouring slices' Dice, organ by organ, and the paper's; None where not run."""
    points = variation_points(measured, grid)
    if len(points) < 2:
        return None
    panels = {'measured': (points['similarity'], points['gain'])}
    paper = published_organs(grid)
    if paper is not None:
        scores = measured.done()[0]['scores']
        paper = paper.rename(columns=dict(enumerate(scores['labels'])))
        panels[paper_column(grid)] = paper.loc['slice variation'], paper.loc['Ours'] - paper.loc['Ours w/o D']
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
    axes[0, 0].set_ylabel('gain by depth, DSC pooled (points)')
    figure.tight_layout()
    return figure


