"""Every figure of a grid's records, with its caption."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from scipy import stats

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..grid.tables import Contrast, Published, Table
from .contrasts import Judged, main_contrasts
from .findings import published_difference, told_first, variation_points
from .folds import split_merged
from .frame import Measured
from .plotting import BELOW, BESIDE, COLOURS, place_texts, project_style, put_title, save, styled
from .prediction_figure import draw_predictions
from .statistics import estimate, format_p, rank_correlation
from .tables import cell_label, cell_names, free_cells, main_table, training_seconds, varying_axes, was_run


class Drawn(NamedTuple):
    """A figure's title, what its reader must know, and its PNG; a PDF of the same name lies beside that."""
    title: str
    caption: str
    path: Path


def draw_all(judged: Sequence[Judged], measured: Measured, grid: Grid, results: Path, into: Path) -> list[Drawn]:
    """Every figure that the records allow.

    Args:
        judged: the page's contrasts.
        results: the folder of the records; predictions lie beside them, where any are kept.
        into: folder to draw in.
    """
    drawn: list[Drawn] = []

    def add(name: str, title: str, caption: str, draw: Callable, *arguments) -> None:
        figure = draw(*arguments)
        if figure is not None:
            put_title(figure, title)
            drawn.append(Drawn(title, caption, save(figure, into / f'{name}.png')))

    rows, main = rows_by_dataset(measured, grid), main_contrasts(measured, grid)
    alone = len(grid.datasets) == 1
    with project_style():
        lead = _name_apart([each for each in told_first(judged) if each.estimate])
        name, title, what = 'contrasts', 'Contrasts', 'One row minus another'
        if main and not alone:
            name, title, what = 'datasets', f'By dataset: {main[0]}', f'{main[0].first} minus {main[0].second}'
            lead = {each.contrast.cells[0].dataset: each for each in judged
                    if each.contrast in main and each.estimate}
        published = {name: found for name, each in lead.items()
                     if (found := published_difference(each.contrast, grid)) is not None}
        marks = ' Diamonds: published, pooled.' if published else ''
        add(name, title, f'{what}. Whiskers: 95 % interval; filled: beyond noise, both as in the table of '
            f'contrasts.{marks}', contrast_dots, lead, published)
        for table in grid.tables.values() if alone else ():
            if not table.figure or not was_run(table, measured, grid):
                continue
            if table.by == 'organs':
                marks = ' Black dashes: published, pooled.' if len(table.published(grid.dataset).organs) else ''
                add(table.figure, 'DSC by organ', 'Bars: mean of cases, averaged over seeds. Whiskers: 95 % '
                    f'interval for new cases and, from three seeds on, new seeds (from six cases on).{marks}',
                    organ_bars, table, measured, grid)
            elif table.lines:
                add(table.figure, f'DSC against {table.axis}', 'Mean over seeds ± sample standard deviation.',
                    free_plot, table.axis, list(table.rows.values()), measured)
            else:
                title = f'DSC against {table.axis}' if table.axis else f'DSC of the rows of {table.name}'
                add(table.figure, title, 'Grey dots: seeds. Diamonds: their mean, ± their sample standard '
                    'deviation. Squares: published.', row_plot, table, measured, grid)
        cells = [cell for cell in free_cells(measured, grid)
                 if measured.value(cell).seeds and not cell.without_config]
        for axis in varying_axes(cells):
            add(f'free_{axis}', f'DSC against {axis}, free axes',
                'Mean over seeds ± their sample standard deviation.', free_plot, axis, cells, measured)
        if main and alone:
            alike = [each.contrast for each in told_first(judged) if each.contrast.registered
                     and each.contrast.cells[1] == main[0].cells[1]
                     and varying_axes(each.contrast.cells) == varying_axes(main[0].cells)] or main[:1]
            add('variation', f'{"Differences" if alike[1:] else alike[0]}, against slice variation',
                'Each dot is an organ; further left, neighbouring slices differ more. Line: least squares. p is '
                'two-sided.', variation_plot, alike, measured, grid)
        if rows and alone:  # DSC of several datasets has no common axis
            add('cost', 'DSC against cost', 'Mean over seeds; whiskers: lowest and highest seed. Line, names and '
                'numbers: the Pareto front, what is better than all that cost no more. Time is what a CPU or GPU '
                'worked for the training, of one machine where runs are of several. By other costs only cells '
                'with as many steps as the rows are compared.', cost_plot, rows[grid.dataset],
                measured, grid)
        add('curves', 'Learning curves', 'Mean loss of each twentieth of the training; bands: lowest and highest '
            'seed.', curve_plot, rows, measured)
        add('cases', 'DSC of every case', 'Mean over reported labels and seeds. Bars: medians. Named: cases '
            'further than 1.5 interquartile ranges from the middle half, and the lowest of each row.',
            case_dots, rows, measured)
        if rows and alone:
            citation = measured.data.get(grid.dataset, {}).get('citation')
            add('predictions', 'Five consecutive slices', 'Image, reference, and the prediction of the first seed '
                'that kept one; DSC is of the whole case.' + (f' Images: {citation}.' if citation else ''),
                draw_predictions, rows[grid.dataset], measured, grid, results)
    return drawn


def organ_bars(table: Table, measured: Measured, grid: Grid):
    """Bars by organ: DSC case with its interval; published pooled figures as black marks."""
    scores, published, rows = measured.scores(grid.dataset), table.published(grid.dataset), table.rows
    organs = scores['headline']
    figure, axes = plt.subplots(figsize=(min(max(5.0, 1.15 * len(organs)), 11), 3.6))
    width = 0.8 / len(rows)
    for number, (label, cell) in enumerate(rows.items()):
        x = np.arange(len(organs)) + (number - (len(rows) - 1) / 2) * width
        values = [measured.value(cell, 'dsc', [organ]).mean for organ in organs]
        axes.bar(x, values, width * 0.92, color=COLOURS[number % len(COLOURS)], label=label)
        for place, organ in zip(x, organs, strict=True):
            if found := estimate(measured.per_patient(cell, [organ])):
                axes.vlines(place, found.low, found.high, color='#333333', lw=0.8)
        if label in published.organs.index:
            axes.plot(x, published.organs.loc[label, organs], 'k_', ms=6, mew=1.4,
                      label=f'{published.heading}, pooled' if number == 0 else None)
    axes.set_xticks(range(len(organs)), [scores['labels'][i].replace(' ', '\n') for i in organs])
    axes.set(ylabel='DSC case (%), 95 % interval', ylim=(0, 100))
    axes.grid(axis='x', visible=False)
    figure.legend(ncols=3, **BELOW)
    figure.tight_layout()
    return figure


def _name_apart(judged: Sequence[Judged]) -> dict[str, Judged]:
    """Contrasts by name, those of one name by their table as well."""
    names = [str(each.contrast) for each in judged]
    return {f'{name} (table {each.contrast.table})' if names.count(name) > 1 else name: each
            for name, each in zip(names, judged, strict=True)}


def contrast_dots(named: dict[str, Judged], published: dict[str, float]):
    """Contrasts by name, the published ones beside them; None without any."""
    if not named:
        return None
    figure, axes = plt.subplots(figsize=(5.6, 0.9 + 0.32 * len(named)))
    for y, each in enumerate(named.values()):
        found = each.estimate
        axes.hlines(y, found.low, found.high, color=COLOURS[3], lw=1)
        axes.plot(found.value, y, 'o', color=COLOURS[3], mfc=COLOURS[3] if each.beyond_noise else 'white')
    axes.plot([], [], 'o', color=COLOURS[3], label='measured')
    if published:
        places = [list(named).index(name) for name in published]
        axes.plot([*published.values()], places, 'D', color=COLOURS[2], ms=5, label='published')
        axes.legend(**BESIDE)
    axes.axvline(0, color='#333333', lw=0.8)
    axes.set_yticks(range(len(named)), list(named))
    axes.set(ylim=(len(named) - 0.5, -0.5), xlabel='difference, DSC case (points)')
    return figure


def row_plot(table: Table, measured: Measured, grid: Grid):
    """Measured DSC of a table's rows, every seed a dot, and what is published beside it on the same axis."""
    rows, published = list(table.rows), table.published(grid.dataset)
    slanted = len(rows) * max(map(len, rows)) > 40  # beside each other such names would overlap
    figure, axes = plt.subplots(figsize=(max(4.0, 1.5 + 0.4 * len(rows)), 4.6 if slanted else 3.2))
    joined = '-' if all(row.isdigit() for row in rows) else ''
    values = [measured.value(cell, labels=table.labels) for cell in table.rows.values()]
    for x, value in enumerate(values):
        axes.plot([x - 0.12] * len(value.seeds), list(value.seeds.values()), 'o', color=COLOURS[0], ms=3.5)
    axes.errorbar(range(len(rows)), [v.mean for v in values], yerr=[np.nan_to_num(v.std) for v in values],
                  fmt='D' + joined, color=COLOURS[3], ms=5, elinewidth=0.8, capsize=2, label='measured')
    if published.rows:
        axes.plot(range(len(rows)), [published.rows.get(row, np.nan) for row in rows], 's' + joined,
                  color=COLOURS[2], ms=5, label=published.heading)
        axes.legend(**BESIDE)
    axes.set_xticks(range(len(rows)), rows,
                    **(dict(rotation=40, ha='right', rotation_mode='anchor') if slanted else {}))
    axes.set(xlim=(-0.4, len(rows) - 0.6), xlabel=table.axis,
             ylabel=f'DSC pooled (%), {"all" if table.labels == "all" else "reported"} labels')
    figure.tight_layout()
    return figure


def free_plot(axis: str, cells: list[Cell], measured: Measured):
    """Measured DSC of free cells along one axis, a colour for every combination of the others."""
    values = sorted({getattr(cell, axis) for cell in cells}, key=lambda value: (value is None, value))
    others = [other for other in varying_axes(cells) if other != axis]
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        lines.setdefault(cell_label(cell, others), []).append(cell)
    between = '-' if all(isinstance(value, int | float) for value in values) else ''  # names have nothing between
    figure, axes = plt.subplots(figsize=(5.0, 3.0))
    for number, (label, members) in enumerate(lines.items()):
        members.sort(key=lambda cell: values.index(getattr(cell, axis)))
        scores = [measured.value(cell) for cell in members]
        axes.errorbar([values.index(getattr(cell, axis)) for cell in members], [score.mean for score in scores],
                      yerr=[np.nan_to_num(score.std) for score in scores], ms=4, lw=1, capsize=2, ls=between,
                      elinewidth=1, label=label or None, **styled(number + 3))
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set(xlabel=axis, ylabel='DSC pooled (%), reported labels')
    if any(lines):
        axes.legend(**BESIDE)
    return figure


def variation_plot(contrasts: Sequence[Contrast], measured: Measured, grid: Grid):
    """Contrasts against neighbouring slices' Dice by organ, the first one's published figures beside it.

    None where no contrast has two organs.
    """
    panels = {}
    for contrast in contrasts:
        points = variation_points(measured, *contrast.cells)
        if len(points) > 1:
            title = str(contrast) if contrasts[1:] else 'measured'
            panels[title] = COLOURS[3], points['similarity'], points['gain']
    if not panels:
        return None
    first = contrasts[0]
    published = grid.tables[first.table].published(grid.dataset) if first.table else Published()
    if {first.first, first.second} <= set(published.organs.index):
        paper = published.organs.rename(columns=dict(enumerate(measured.scores(grid.dataset)['labels'])))
        title = f'{first}, {published.heading}' if contrasts[1:] else published.heading
        panels[title] = (COLOURS[2], paper.loc['slice variation'],
                         paper.loc[first.first] - paper.loc[first.second])
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    width, between = (4.4, ' ') if len(panels) < 3 else (3.5, '\n')
    figure, places = plt.subplots(lines, columns, figsize=(width * columns, 3.6 * lines), squeeze=False,
                                  sharey=len(contrasts) > 1)
    for axes, (title, (colour, similarity, gain)) in zip(places.flat, panels.items(), strict=False):
        axes.plot(similarity, gain, 'o', color=colour, ms=5)
        axes.axhline(0, color='#333333', lw=0.5, ls=':')
        correlations = f'{len(gain)} organs: too few for a fit'
        if len(gain) > 3 and np.ptp(gain) and np.ptp(similarity):
            fit, ends = np.polyfit(similarity, gain, 1), np.array([similarity.min(), similarity.max()])
            axes.plot(ends, np.polyval(fit, ends), color='#333333', lw=1, zorder=1)
            pearson, spearman = stats.pearsonr(similarity, gain), rank_correlation(similarity, gain)
            correlations = f',{between}'.join(
                f'{name} = {found.statistic:.2f} ({format_p(found.pvalue, "p")})'
                for name, found in (('Pearson r', pearson), ('Spearman ρ', spearman)))
        axes.set_title(f'{title}\n{correlations}', fontsize=8)
        axes.margins(0.12)
    for axes, (_, similarity, gain) in zip(places.flat, panels.values(), strict=False):  # all limits are known now
        place_texts(axes, list(zip(similarity, gain, strict=True)), list(similarity.index))
    for axes in places.flat[len(panels):]:
        axes.set_axis_off()
    for axes in places.flat[max(len(panels) - columns, 0):len(panels)]:
        axes.set_xlabel('Dice between neighbouring slices (%)')
    for line in places:
        line[0].set_ylabel('difference, DSC pooled (points)')
    figure.tight_layout()
    return figure


def rows_by_dataset(measured: Measured, grid: Grid) -> dict[str, dict[str, Cell]]:
    """What figures of rows show, by dataset: the main table's that were run, or else free cells."""
    if table := main_table(measured, grid):
        rows = table.rows
    else:
        first = [replace(cell, dataset=grid.datasets[0]) for cell in free_cells(measured, grid)]
        cells = list(dict.fromkeys(first))[:len(COLOURS)]
        rows = {cell_label(cell, varying_axes(cells)) or 'the cell': cell for cell in cells}
    placed = {dataset: {label: same for label, cell in rows.items()
                        if measured.done(same := replace(cell, dataset=dataset))} for dataset in grid.datasets}
    return {dataset: found for dataset, found in placed.items() if found}


def cost_plot(rows: dict[str, Cell], measured: Measured, grid: Grid):
    """DSC against what a cell costs, a panel for each kind of cost; rows in colour, the grid's other cells hollow.

    The line is the Pareto front, of cells that are better than all that cost no more, and these are named, in the
    legend where the name is long. Where the cost is not of the whole training, only cells that have as many steps
    as the rows are compared.
    """
    finished = [cell for cell in measured.cells() if measured.value(cell).seeds and not cell.without_config]
    if not finished:
        return None
    runs = {cell: split_merged(*measured.done(cell)) for cell in finished}
    costs = {cell: [run['cost'] for run in each] for cell, each in runs.items()}
    steps = {cell: each[0]['training']['steps'] for cell, each in runs.items()}
    budgets = {steps[cell] for cell in rows.values() if cell in steps} or set(steps.values())
    alike = {cell: each for cell, each in costs.items() if budgets == {steps[cell]}}
    largest = max(cost['flops'] for each in costs.values() for cost in each)
    scale, unit = (1e9, 'GFLOPs') if largest >= 1e9 else (1e6, 'MFLOPs')
    amounts = {
        f'{unit} per window, whole model': {
            cell: [cost['flops'] / scale for cost in each] for cell, each in alike.items()},
        'time of training (s)': _commonest({cell: training_seconds(measured, cell) for cell in finished}),
        'trained parameters (millions)': {
            cell: [cost.get('trained_parameters', cost['parameters']) / 1e6 for cost in each]
            for cell, each in alike.items()}}
    panels = {title: found for title, found in amounts.items() if len({min(each) for each in found.values()}) > 1}
    panels = panels or {title: found for title, found in amounts.items() if found}
    names = cell_names(measured, grid) | {cell: label for label, cell in rows.items()}
    hollow = dict(color='#777777', marker='o', mfc='white', ms=4)
    drawn = [('other cells of the grid', cell, hollow) for cell in finished if cell not in rows.values()]
    drawn += [(label, cell, dict(styled(number), ms=6)) for number, (label, cell) in enumerate(rows.items())
              if cell in finished]
    figure, [line] = plt.subplots(1, len(panels), figsize=(max(3.6 * len(panels), 6), 3.4), sharey=True,
                                  squeeze=False)
    labelled, numbers = {}, {}
    for axes, (title, found) in zip(line, panels.items(), strict=True):
        points = {cell: (np.mean(amount), measured.value(cell).mean) for cell, amount in found.items()}
        for label, cell, style in drawn:
            if cell in points:
                labelled[label] = axes.errorbar(
                    *points[cell], xerr=_reach(found[cell]), yerr=_reach(measured.value(cell).seeds.values()),
                    lw=0, elinewidth=0.7, **style)
        front = pareto_front(points)
        best = [points[cell] for cell in front]
        axes.step(*zip(*best, strict=True), where='post', color='#333333', lw=0.8, zorder=1)
        axes.set_xlabel(title)
        axes.margins(0.14)
        if best[-1][0] > 10 * best[0][0]:
            axes.set_xscale('log')
            axes.xaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
        else:
            axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
        for name in (names[cell] for cell in front if len(names[cell]) > 24):  # as wide as a third of the panel
            numbers.setdefault(name, str(len(numbers) + 1))
        place_texts(axes, best, [numbers.get(names[cell], names[cell]) for cell in front], [*points.values()])
    line[0].set_ylabel('DSC pooled (%), reported labels')
    labelled |= {name: plt.Line2D([], [], ls='', **hollow) for name in numbers if name not in labelled}
    labelled = {f'{name} ({numbers[name]})' if name in numbers else name: drawing
                for name, drawing in labelled.items()}
    longest = max(map(len, labelled))
    figure.legend(labelled.values(), labelled, ncols=1 if longest > 60 else 2 if longest > 20 else 3, **BELOW)
    figure.tight_layout()
    return figure


def _commonest(seconds: dict[Cell, dict[Hashable, list[float]]]) -> dict[Cell, list[float]]:
    """Of cells' seconds by kind, those of the kind that most cells have."""
    counts = Counter(kind for kinds in seconds.values() for kind in kinds)
    kind = max(counts, key=counts.get, default=None)
    return {cell: kinds[kind] for cell, kinds in seconds.items() if kind in kinds}


def pareto_front(points: Mapping[Cell, tuple[float, float]]) -> list[Cell]:
    """Of cells with (cost, score), the cheapest first, those with a better score than all that cost no more."""
    front: list[Cell] = []
    for cell in sorted(points, key=lambda cell: (points[cell][0], -points[cell][1])):
        if not front or points[cell][1] > points[front[-1]][1]:
            front.append(cell)
    return front


def _reach(values: Iterable[float]) -> list[list[float]]:
    """An error bar from the lowest to the highest."""
    values = list(values)
    mean = np.mean(values)  # may round to beside equal values
    return [[max(mean - min(values), 0)], [max(max(values) - mean, 0)]]


def curve_plot(rows: dict[str, dict[str, Cell]], measured: Measured):
    """Training loss of every row, a panel for each dataset; None without records of it."""
    rows = {dataset: trained for dataset, named in rows.items()
            if (trained := {label: cell for label, cell in named.items() if not cell.without_config})}
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
        panel.set(xlabel='training step', title=dataset)
    for panel in panels.flat[len(rows):]:
        panel.set_axis_off()
    for line in panels:
        line[0].set_ylabel('training loss')
    figure.legend(labelled.values(), labelled, ncols=1 if max(map(len, labelled)) > 24 else 3, **BELOW)
    figure.tight_layout()
    return figure


def case_dots(rows: dict[str, dict[str, Cell]], measured: Measured):
    """Every case of every row as a dot, those far from the others by name; None without any."""
    several = len(rows) > 1
    lines = [(f'{dataset}, {label}' if several else label, measured.per_case(cell).mean().dropna(), styled(number))
             for dataset, named in rows.items() for number, (label, cell) in enumerate(named.items())]
    lines = [line for line in lines if len(line[1])]
    if not lines:
        return None
    figure, axes = plt.subplots(figsize=(7.2, 0.8 + 0.55 * len(lines)))
    named, dots = [], []
    for y, (_, cases, style) in enumerate(lines):
        values = cases.to_numpy()
        heights = y + _spread(values)
        axes.plot(values, heights, ls='', ms=4.5, mec='white', mew=0.4, **style)
        axes.vlines(np.median(values), y - 0.3, y + 0.3, color='#333333', lw=1.2)
        dots += zip(values, heights, strict=True)
        named += [(values[i], heights[i], cases.index[i]) for i in _outliers(values)]
    axes.set_yticks(range(len(lines)), [label for label, *_ in lines])
    axes.set(ylim=(len(lines) - 0.4, -0.6), xlabel='DSC case (%), reported labels')
    axes.grid(axis='y', visible=False)
    axes.margins(x=0.08)
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
