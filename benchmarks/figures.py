"""Plots of a grid's records, in one colour-blind-safe style."""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from .cells import Cell, Grid  # noqa: E402
from .published import AXIS, paper_column, published, published_organs  # noqa: E402
from .tables import Measured, free_cells, varying_axes  # noqa: E402

STYLE = {'font.family': 'DejaVu Sans', 'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False,
         'axes.grid': True, 'grid.color': '#dddddd', 'axes.axisbelow': True, 'figure.dpi': 150,
         'savefig.dpi': 150, 'svg.hashsalt': 'inflation'}
COLOURS = ('#999999', '#56B4E9', '#E69F00', '#0072B2', '#009E73', '#CC79A7')  # Okabe and Ito


def save(figure, path: Path) -> Path:
    """Write a PNG without anything that changes from day to day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={'Software': None}, bbox_inches='tight')
    plt.close(figure)
    return path


def draw_all(measured: Measured, grid: Grid, folder: Path) -> dict[str, Path]:
    """Every figure that the records allow: name -> file."""
    with plt.rc_context(STYLE):
        drawn = {}
        if '3' in grid.tables and any(measured.value(cell, 'pooled').seeds for cell in grid.tables['3'].values()):
            drawn['Pooled DSC by organ'] = save(organ_bars(measured, grid), folder / 'organs.png')
        for table, axis in AXIS.items():
            if table in grid.tables and any(measured.value(cell, 'pooled').seeds
                                            for cell in grid.tables[table].values()):
                drawn[f'DSC against {axis}'] = save(axis_plot(table, measured, grid), folder / f'{axis}.png')
        cells = [cell for cell in free_cells(measured, grid) if measured.value(cell, 'pooled').seeds]
        for axis in varying_axes(cells):
            drawn[f'DSC against {axis}, free axes'] = save(free_plot(axis, cells, measured),
                                                           folder / f'free_{axis}.png')
    return drawn


def organ_bars(measured: Measured, grid: Grid):
    """Bars by organ with the standard deviation over seeds; the paper's figures as black marks."""
    scores, paper = measured.done()[0]['scores'], published_organs(grid)
    organs, rows = scores['headline'], grid.tables['3']
    figure, axes = plt.subplots(figsize=(max(5.0, 1.15 * len(organs)), 3.4))
    width = 0.8 / len(rows)
    for number, (label, cell) in enumerate(rows.items()):
        x = np.arange(len(organs)) + (number - (len(rows) - 1) / 2) * width
        values = [measured.value(cell, 'pooled', [organ]) for organ in organs]
        axes.bar(x, [v.mean for v in values], width * 0.92, color=COLOURS[number % len(COLOURS)], label=label,
                 yerr=[0 if np.isnan(v.std) else v.std for v in values], error_kw=dict(lw=0.8))
        if paper is not None and label in paper.index:
            axes.plot(x, paper.loc[label, organs], 'k_', ms=5, mew=1.2,
                      label=paper_column(grid) if number == 0 else None)
    axes.set_xticks(range(len(organs)), [scores['labels'][i].replace(' ', '\n') for i in organs])
    axes.set_ylabel('DSC pooled (%)')
    axes.set_ylim(0, 100)
    axes.grid(axis='x', visible=False)
    axes.legend(ncols=3, loc='upper center', bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize=8)
    return figure


def axis_plot(table: str, measured: Measured, grid: Grid):
    """Measured DSC along one axis with every seed as a dot, and the paper's beside it at the same scale."""
    rows, paper = grid.tables[table], published(table, grid)
    figure, panels = plt.subplots(1, 2 if paper else 1, figsize=(6.4 if paper else 3.4, 2.8), squeeze=False)
    left = panels[0, 0]
    labels, joined = list(rows), '-' if AXIS[table] in ('stride', 'slices') else ''
    values = [measured.value(cell, 'pooled', 'all') for cell in rows.values()]
    for x, value in enumerate(values):
        left.plot([x] * len(value.seeds), list(value.seeds.values()), 'o', color=COLOURS[0], ms=3.5)
    left.errorbar(range(len(labels)), [v.mean for v in values], yerr=[np.nan_to_num(v.std) for v in values],
                  fmt='D' + joined, color=COLOURS[3], ms=5, elinewidth=0.8, capsize=2)
    left.set_title('measured (dots: seeds)', fontsize=9)
    if paper:
        right = panels[0, 1]
        right.plot(range(len(labels)), [paper.get(label, np.nan) for label in labels], 'D' + joined,
                   color=COLOURS[2], ms=5)
        right.set_title(paper_column(grid), fontsize=9)
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
        scores = [measured.value(cell, 'pooled') for cell in members]
        axes.errorbar([values.index(getattr(cell, axis)) for cell in members], [score.mean for score in scores],
                      yerr=[0 if np.isnan(score.std) else score.std for score in scores], marker='D', ms=4,
                      lw=1, capsize=2, color=COLOURS[(number + 3) % len(COLOURS)], label=label or None)
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlabel(axis)
    axes.set_ylabel('DSC pooled (%), reported organs')
    if any(lines):
        axes.legend(frameon=False, fontsize=7, loc='upper left', bbox_to_anchor=(1, 1))
    return figure
