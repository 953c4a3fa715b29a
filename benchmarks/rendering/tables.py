"""Records -> tables as text: measured beside published, every row with the number of runs behind it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmseg_plugins.datasets.splits import describe_fold
from mmseg_plugins.evaluation.metrics import METRICS, format_tolerance
from mmseg_plugins.faults import GPU, PROCESS

from ..grid.axes import AXES, Cell
from ..grid.grid import Grid
from ..grid.tables import Table
from ..runs.run import describe_options
from ..runs.search import describe_judge
from .folds import split_merged
from .frame import Labels, Measured, Value
from .statistics import TOO_FEW, agreement, compare_seeds, format_p

ORGAN_STATISTICS = {'# voxels': ('voxels', '{:,.0f}'), '# slices': ('slices', '{:,.0f}'),
                    'slice variation': ('variation', '{:.2f}')}  # what a dataset's summary tells of its labels


# Behind the name of what starts from a source that has seen cases of the dataset, and what that says.
SEEN = {'†': 'Its source was pre-trained on other cases of the dataset, none of which is evaluated.',
        '‡': 'Its source was pre-trained on cases of the dataset, and evaluated ones can be among them.'}


class Rendered(NamedTuple):
    """A table as text cells, the name of its files, its caption, and footnotes below it."""
    name: str
    frame: pd.DataFrame
    caption: str
    notes: Sequence[str] = ()


def marked(name: str, cell: Cell, measured: Measured, grid: Grid) -> str:
    """What a cell is called in a table, with a sign of `SEEN` where that applies on any of the grid's datasets."""
    signs = {_sign(run, grid) for same in grid.on_each([cell]) for run in split_merged(*measured.done(same))}
    return ' '.join([name, *([max(signs)] if any(signs) else [])])


def _sign(run: dict, grid: Grid) -> str:
    """Of one run: whether its source has seen cases of its dataset, and of the split that is evaluated."""
    cell, evaluated = Cell(**run['cell']), (run.get('data') or {}).get('evaluated', 'all').partition(':')[0]
    saw = (run.get('source') or {}).get('saw') or getattr(grid.sources.get(cell.source), 'saw', ())
    seen = [place.split(':')[1:2] for place in saw if place.split(':')[0] == cell.dataset]
    apart = evaluated != 'all' and all(split and split[0] not in ('all', evaluated) for split in seen)
    return '' if not seen else '†' if apart else '‡'


def was_run(table: Table, measured: Measured, grid: Grid) -> bool:
    """Whether any of its rows has a finished run on any dataset."""
    return any(measured.done(cell) for cell in grid.on_each(table.rows.values()))


def main_table(measured: Measured, grid: Grid) -> Table | None:
    """The first table of the grid that was run: what figures of rows show."""
    return next((table for table in grid.tables.values() if was_run(table, measured, grid)), None)


def caption(table: Table, measured: Measured, grid: Grid) -> str:
    """What its rows are, and what its figures are means over."""
    counts = {(len(record['scores']['headline']), len(record['scores']['labels'])) for record in measured.done()}
    if len(counts) == 1:
        [(headline, labels)] = counts
        over = f'{headline} organs' if table.labels == 'headline' else f'all {labels} labels, background included'
    else:  # no run yet, or several datasets
        over = 'the reported organs' if table.labels == 'headline' else 'all labels, background included'
    title, what = table.title or f'Table {table.name}', f'{table.caption}: ' if table.caption else ''
    if len(grid.datasets) > 1:
        average = (f'; average over the datasets that {table.reference or next(iter(table.rows))} has, of rows '
                   'that have them all' if table.rows else '')
        return f'{title}. {what}mean DSC over {over}{average}{end_of_caption(measured)}.'
    if table.by == 'organs':
        below = ('; below: voxels and slices in all evaluated cases, and the mean Dice (%) between a label in a '
                 'slice and in the next' if measured.data else '')
        return f'{title}. {table.caption or "Its rows"} by organ, pooled DSC{below}{end_of_caption(measured)}.'
    surfaces = ('; HD95 and NSD are means of cases, HD95 of those where label and prediction both have the organ, '
                'in runs in which every organ has one'
                if table.labels == 'headline' and METRICS['hd95'] in measured.metrics() else '')
    tolerances = measured.tolerances()
    if surfaces and len(set(tolerances.values())) > 1:
        each = (f'{format_tolerance(tolerance)} ({dataset})' for dataset, tolerance in tolerances.items())
        surfaces += f'; NSD is at {", ".join(each)}'
    if table.labels == 'headline' and (nominal := measured.without_spacing()):
        surfaces += f'; nothing is told in mm, as voxel sizes of {", ".join(nominal)} are nominal'
    times = f'; time is of training, 1 being that of {table.reference}' if table.against else ''
    return f'{title}. {what}mean over {over}{surfaces}{times}{end_of_caption(measured)}.'


def end_of_caption(measured: Measured) -> str:
    """The end of a caption whose figures are of cross-validated runs."""
    folds = ' or '.join(map(str, measured.folds()))
    return f'; out-of-fold, {folds} folds: every case counts once per seed' if folds else ''


def build_table(table: Table, measured: Measured, grid: Grid, committed: Measured | None = None) -> pd.DataFrame:
    """A table as text cells, ready to write.

    Args:
        committed: the committed results' figures, to be shown beside a newcomer's own.
    """
    build = _dataset_table if len(grid.datasets) > 1 else _organ_table if table.by == 'organs' else _metric_table
    return build(table, measured, grid, committed)


def _metric_table(table: Table, measured: Measured, grid: Grid, committed: Measured | None) -> pd.DataFrame:
    """Rows by metrics; methods that only the publication ran come first."""
    published, labels = table.published(grid.dataset), table.labels
    paper = {label: figure for label, figure in published.rows.items() if figure == figure}
    if not set(paper) & set(table.rows):
        paper = {}
    heading, rows = 'Method' if not table.axis or table.lines else table.axis, []
    for label, cell in table.rows.items():
        value = measured.value(cell, labels=labels)
        row = {heading: marked(label, cell, measured, grid)}
        if not cell.without_config:
            row |= {name: text(cell, grid.sources) for name, text in table.columns.items()}
        row |= _figures(measured, cell, labels)
        row |= {'time': relative_time(measured, cell, table.rows[table.reference]) if table.against else '—',
                'runs': value.runs}
        if committed:
            other = committed.value(cell, labels=labels)
            same = not (value.seeds and other.seeds) or measured.cases(cell) == committed.cases(cell)
            row |= {'committed': str(other), 'agrees': agreement(value, other) if same else 'other cases'}
        if label in paper:
            row[published.heading] = f'{paper.pop(label):.2f}{" (per case)" * (label in published.per_case)}'
        rows.append(row)
    first = measured.metrics()[0].title
    others = [{heading: label, **{name: texts.get(label) for name, texts in published.columns.items()},
               first: published.not_run.get(label, 'not run'),
               published.heading: f'{figure:.2f}{" (per case)" * (label in published.per_case)}'}
              for label, figure in paper.items()]
    columns = dict.fromkeys([heading, *table.columns, *(name for row in rows for name in row)])
    return pd.DataFrame(others + rows, columns=list(columns)).fillna('—')


def _figures(measured: Measured, cell: Cell, labels: Labels) -> dict[str, str]:
    """Every metric's column of a row; HD95 and NSD, which background lacks, not of all labels."""
    return {metric.title: str(measured.value(cell, metric.name, labels)) for metric in measured.metrics()
            if labels == 'headline' or metric.name not in ('hd95', 'nsd')}


def training_seconds(measured: Measured, cell: Cell) -> dict[tuple[str, bool], list[float]]:
    """Seconds of a cell's trainings by what they can be compared within: the hardware, and whether of steps alone.

    Those of steps are a CPU's own, as others may be at work there. A record that does not tell of steps has the
    whole run's, with evaluation; none where it was resumed.
    """
    seconds: dict[tuple[str, bool], list[float]] = {}
    for run in split_merged(*measured.done(cell)):
        cost, of_steps = run.get('cost', {}), 'step_seconds' in run.get('cost', {})
        if of_steps or cost and not cost.get('resumed_from'):  # else it is of a part
            spent = cost['seconds']
            if of_steps:
                spent = cost['step_seconds'] * cost.get('cpu_share', 1) * run['training']['steps']
            seconds.setdefault((str(run.get('hardware')), of_steps), []).append(spent)
    return seconds


def relative_time(measured: Measured, cell: Cell, reference: Cell) -> str:
    """Seconds of a cell's training as a multiple of the reference's, of those that can be compared."""
    ours, theirs = (training_seconds(measured, each) for each in (cell, reference))
    ratios = [np.median(ours[kind]) / np.median(theirs[kind]) for kind in set(ours) & set(theirs)]
    return f'x {np.mean(ratios):.2f}' if ratios else '—'


def _dataset_table(table: Table, measured: Measured, grid: Grid, committed: Measured | None) -> pd.DataFrame:
    """Rows by datasets, and below them how alike neighbouring slices are."""
    def values(cell: Cell, figures: Measured, metric: str = 'dsc_pooled') -> dict[str, Value]:
        return {same.dataset: figures.value(same, metric, table.labels) for same in grid.on_each([cell])}

    pooled = {label: values(cell, measured) for label, cell in table.rows.items()}
    reference = pooled[table.reference or next(iter(pooled))]
    common = [dataset for dataset in grid.datasets if reference[dataset].seeds]

    def texts(figures: Mapping[str, Value | float | None]) -> dict[str, str]:
        means = pd.Series({dataset: figure.mean if isinstance(figure, Value) else figure
                           for dataset, figure in figures.items()}, dtype=float).reindex(grid.datasets)
        return {**means.map(_number), **{dataset: str(figure) for dataset, figure in figures.items()
                                         if isinstance(figure, Value)},
                f'average of {len(common)}': _number(means[common].mean(skipna=False))}

    shown = {}
    for label, cell in table.rows.items():
        shown[label] = {'pooled': texts(pooled[label]), 'case': texts(values(cell, measured, 'dsc'))}
        if committed:
            shown[label]['committed, pooled'] = texts(values(cell, committed))
    if measured.data:
        variation = {dataset: summary.get('mean_variation') for dataset, summary in measured.data.items()}
        shown['slice variation'] = {'measured': texts(variation)}
    published = {dataset: table.published(dataset) for dataset in grid.datasets}
    paper = {}
    for label in dict.fromkeys(label for found in published.values() for label in found.rows):
        per_case = ', per case' * any(label in found.per_case for found in published.values())
        paper[label] = f'paper{per_case}', texts({
            dataset: found.rows[label] for dataset, found in published.items() if label in found.rows})
    return _lines(shown, paper, table, measured, grid)


def _organ_table(table: Table, measured: Measured, grid: Grid, committed: Measured | None) -> pd.DataFrame:
    """Rows by organs, and below them what is known of the organs themselves."""
    scores, published, summary = (find(grid.dataset) for find in (measured.scores, table.published,
                                                                  measured.data.get))
    if not scores:
        return pd.DataFrame([{'Method': row} for row in table.rows])
    organs = {scores['labels'][i]: i for i in scores['headline']}
    sides = {'measured': measured} | ({'committed': committed} if committed else {})
    shown = {label: {side: {organ: str(figures.value(cell, labels=[i])) for organ, i in organs.items()}
                     for side, figures in sides.items()} for label, cell in table.rows.items()}
    if summary:
        shown |= {label: {'measured': {organ: _number(summary[key][i], form) for organ, i in organs.items()}}
                  for label, (key, form) in ORGAN_STATISTICS.items()}
    paper = {}
    for label, figures in published.organs.iterrows():
        _, form = ORGAN_STATISTICS.get(label, ('', '{:.2f}'))
        if summary or label not in ORGAN_STATISTICS:
            paper[label] = (published.heading + ', per case' * (label in published.per_case),
                            {organ: _number(figures[i], form) for organ, i in organs.items()})
    return _lines(shown, paper, table, measured, grid)


def _lines(shown: Mapping[str, Mapping[str, dict]], paper: Mapping[str, tuple[str, dict]], table: Table,
           measured: Measured, grid: Grid) -> pd.DataFrame:
    """Each row's kinds of figures, the published ones below; first the rows that only the publication has."""
    lines = [(label, *paper[label]) for label in paper if label not in shown]
    for label, kinds in shown.items():
        name = marked(label, table.rows[label], measured, grid) if label in table.rows else label
        lines += [(name, *kind) for kind in kinds.items()] + ([(label, *paper[label])] if label in paper else [])
    return pd.DataFrame([{'Method': label, 'figures': kind, **texts} for label, kind, texts in lines])


def _number(figure: float | None, form: str = '{:.2f}') -> str:
    return '—' if figure is None or np.isnan(figure) else form.format(figure)


def data_table(measured: Measured, grid: Grid, paper: pd.DataFrame) -> pd.DataFrame:
    """Every dataset of the grid as it was prepared, and as the paper has it."""
    rows = []
    for dataset in grid.datasets:
        row = {'Data': dataset, 'figures': 'measured', 'modality': 'not prepared'}
        if summary := measured.data.get(dataset):
            counts = summary.get('groups') or summary['cases']
            row |= {'modality': summary['modality'],
                    'raw size': 'x'.join(f'{side:.0f}' for side in summary['size']),
                    'input size': _input_sizes(measured, dataset), 'labels': str(len(summary['labels']) - 1),
                    **({'cases': f'{sum(counts.values())} in {summary["folds"]} folds'} if 'folds' in summary else
                       {part: str(counts.get(part, 0)) for part in ('train', 'val', 'test')}),
                    'split': summary['split_hash']}
        rows.append(row)
        if dataset in paper.index:
            rows.append({'Data': dataset, 'figures': 'paper', **paper.loc[dataset]})
    return pd.DataFrame(rows).fillna('—')


def _input_sizes(measured: Measured, dataset: str) -> str:
    """Of all finished runs on a dataset; a range where their windows differ in slices."""
    slices: dict[tuple, list[int]] = {}
    for record in measured.done():
        if record['cell']['dataset'] == dataset and 'input_size' in record.get('data', ()):
            *depth, height, width = record['data']['input_size']  # of crops with their own
            slices.setdefault((height, width), []).extend(depth or [record['cell']['slices']])
    return ', '.join(f'{width}x{height}x' + '..'.join(map(str, sorted({min(depths), max(depths)})))
                     for (height, width), depths in sorted(slices.items())) or '—'


def free_cells(measured: Measured, grid: Grid) -> list[Cell]:
    """The cells of the grid's free axes, and whatever else was run into its folder that no table names."""
    named = set(grid.in_tables())
    others = [cell for cell in measured.cells() if cell not in named]
    return list(dict.fromkeys([*grid.on_each(grid.free), *others]))


def free_names(measured: Measured, grid: Grid) -> dict[str, Cell]:
    """The rows of `free_table` by what tells them apart in it, as `slices 1, inflation average`."""
    cells = free_cells(measured, grid)
    return {cell_label(cell, varying_axes(cells)): cell for cell in cells}


def varying_axes(cells: list[Cell]) -> list[str]:
    """The axes along which these cells differ, in Cell's order."""
    return [axis for axis in ('dataset', *AXES) if len({getattr(cell, axis) for cell in cells}) > 1]


def free_table(measured: Measured, grid: Grid) -> tuple[pd.DataFrame, str]:
    """One row per cell that no table names, and a caption of what all of them share."""
    cells = free_cells(measured, grid)
    varying = varying_axes(cells)
    sign = 'source' if 'source' in varying else next(iter(varying), '')
    rows = [{axis: '—' if getattr(cell, axis) is None else
             marked(str(getattr(cell, axis)), cell, measured, grid) if axis == sign else str(getattr(cell, axis))
             for axis in varying}
            | _figures(measured, cell, 'headline') | {'runs': measured.value(cell).runs}
            for cell in cells]
    shared = [axis for axis in ('dataset', *cells[0].told) if axis not in varying]
    as_table = Table('free', {}, title=f'Free axes ({cell_label(cells[0], shared)})')
    return pd.DataFrame(rows), caption(as_table, measured, grid)


def cell_names(measured: Measured, grid: Grid) -> dict[Cell, str]:
    """Every cell of the grid and of its folder, by the rows that it fills, else by its axes."""
    names = grid.row_names()
    return {cell: names.get(cell) or cell_label(cell) for cell in dict.fromkeys([*names, *measured.cells()])}


def cell_label(cell: Cell, axes: Iterable[str] | None = None) -> str:
    """A cell by these axes; by all that are told of it."""
    axes = ('dataset', *cell.told) if axes is None else axes
    return ', '.join(f'{axis} {getattr(cell, axis)}' for axis in axes)


def settings_table(measured: Measured, paper: Mapping[str, str]) -> pd.DataFrame:
    """Each setting of all finished runs, beside the published one."""
    found = [record['settings'] | dict(gpus=record['hardware']['gpu'] or 'none')
             for record in split_merged(*measured.done()) if 'settings' in record]
    names = dict.fromkeys([*(name for settings in found for name in settings), *paper])
    return pd.DataFrame([{
        'Setting': name.replace('_', ' '),
        'these runs': ' / '.join(dict.fromkeys(settings[name] for settings in found if name in settings)) or '—',
        'paper': paper.get(name, '—')} for name in names])


def search_table(measured: Measured, grid: Grid) -> pd.DataFrame:
    """What a search chose for each cell, and the DSC of every setting; empty where nothing was tuned."""
    rows = []
    for cell, name in cell_names(measured, grid).items():
        name = marked(name, cell, measured, grid)
        runs = [run for run in split_merged(*measured.done(cell)) if 'search' in run]
        searches = {str((run.get('fold'), run['search'])): (run.get('fold'), run['search']) for run in runs}
        for fold, found in searches.values():
            rows.append({'Runs': name + (f', {describe_fold(fold)}' if fold else ''), **{
                describe_options(line['options']): 'failed' if line['dsc'] is None else f'{line["dsc"]:.2f}'
                for line in found['tried']}, 'chosen': _describe_choice(found),
                'evaluated on': describe_judge(found),
                'seconds': f'{sum(line["seconds"] or 0 for line in found["tried"]):.0f}'})
    columns = dict.fromkeys(name for row in rows for name in row)  # settings that only some have tried come last
    last = ['chosen', 'evaluated on', 'seconds']
    return pd.DataFrame(rows, columns=[*(name for name in columns if name not in last), *last]).fillna('—')


def _describe_choice(search: Mapping) -> str:
    """The options, and which of them are the lowest or highest that were tried."""
    parts = []
    for option, value in search['chosen'].items():
        tried = [line['options'][option] for line in search['tried']]
        numbers = all(type(each) in (int, float) for each in tried) and min(tried) < max(tried)
        ends = {min(tried): ' (the lowest tried)', max(tried): ' (the highest tried)'} if numbers else {}
        parts.append(describe_options({option: value}) + (ends.get(value, '') if numbers else ''))
    return ', '.join(parts)


def untuned(measured: Measured, grid: Grid) -> list[str]:
    """The names of the cells that were run without a search."""
    return [name for cell, name in cell_names(measured, grid).items()
            if any('search' not in run for run in split_merged(*measured.done(cell)))]


def seed_table(table: Table, measured: Measured, grid: Grid) -> pd.DataFrame:
    """The rows that several seeds have, and the published ones: paired t-tests of `against` with each."""
    published, reference = table.published(grid.dataset), table.reference
    lines = {(published.heading, row): Value(seeds) for row, seeds in published.seeds.items()} | {
        ('measured', label): measured.value(cell, labels=table.labels) for label, cell in table.rows.items()}
    rows = []
    for (figures, label), value in lines.items():
        if len(value.seeds) < 2:
            continue
        name = marked(label, table.rows[label], measured, grid) if figures == 'measured' else label
        row = {'Method': name, 'figures': figures,
               'seeds': ', '.join(f'{seed}: {score:.2f}' for seed, score in value.seeds.items()),
               'mean ± std': str(value), 'ddof 0': f'{np.std(list(value.seeds.values())):.2f}',
               f'{reference} - this': '—', 't': '—', 'p, one-sided': '—', 'p, two-sided': '—'}
        if label != reference and (figures, reference) in lines:
            test = compare_seeds(lines[figures, reference].seeds, value.seeds)
            row |= {f'{reference} - this': TOO_FEW} if test is None else {
                f'{reference} - this': f'{test.difference:.2f}', 't': f'{test.t:.2f}',
                'p, one-sided': format_p(test.one_sided), 'p, two-sided': format_p(test.two_sided)}
        rows.append(row)
    return pd.DataFrame(rows)


def cost_table(measured: Measured, grid: Grid, paper: Mapping[str, int]) -> pd.DataFrame:
    """One line per cell: parameters, FLOPs, time and memory, beside the paper's encoders."""
    rows = []
    for cell, name in cell_names(measured, grid).items():
        costs = [record['cost'] for record in measured.done(cell) if 'cost' in record]
        if not costs:
            continue
        whole = [cost['seconds'] for cost in costs if not cost.get('resumed_from')]  # the others' is of a part
        row = {'Runs': marked(name, cell, measured, grid), 'seconds': f'{np.median(whole):.0f}' if whole else '—'}
        if not cell.without_config:
            if 'encoder_flops' in costs[0]:  # else the network is a whole
                row['encoder GFLOPs'] = f'{costs[0]["encoder_flops"] / 1e9:#.4g}'
            row |= {'slices': str(cell.slices) if cell.of_windows else 'crop',
                    'GFLOPs': f'{costs[0]["flops"] / 1e9:#.4g}'}
        if 'parameters' in costs[0]:  # a command need not tell
            row['parameters (M)'] = f'{costs[0]["parameters"] / 1e6:.2f}'
            row['trained (M)'] = f'{costs[0].get("trained_parameters", costs[0]["parameters"]) / 1e6:.2f}'
        alone = [cost for part in split_merged(*measured.done(cell))
                 if (cost := part.get('cost', {})).get('memory_of') in (GPU, PROCESS)]
        if len({cost['memory_of'] for cost in alone}) == 1:
            row['peak MiB'] = f'{max(cost["peak_memory_mib"] for cost in alone)}'
        rows.append(row)
    rows += [{'Runs': f'paper: {model}', 'encoder GFLOPs': f'{flops / 1e9:#.4g}'}
             for model, flops in paper.items()]
    trained = ['trained (M)'] * any(row.get('trained (M)') != row.get('parameters (M)') for row in rows)
    columns = ['Runs', 'slices', 'parameters (M)', *trained, 'encoder GFLOPs', 'GFLOPs', 'seconds', 'peak MiB']
    return pd.DataFrame(rows, columns=columns).fillna('—')
