"""Records -> the paper's tables: measured beside published, every cell with the number of runs behind it.

DSC is pooled (sums over all voxels of all volumes) unless a column says `case` (mean of per-volume
values); both in percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from mmseg_plugins.evaluation.metrics import METRICS, Metric

from ..axes import AXES, Cell
from ..cells import Grid
from .published import (
    AXIS,
    PER_CASE_IN_PAPER,
    paper_column,
    published,
    published_data,
    published_datasets,
    published_organs,
)

CAPTIONS = {
    '1': 'Table 1. The data: mean raw size and network input (columns x rows x slices), labels without '
         'background, cases by split (patients where one has several cases).',
    '2a': 'Table 2(a). Transfer (T) and depth (D): mean over {headline}{surfaces}.',
    '2b': 'Table 2(b). Source and objective of pre-training (centering, 5 slices): mean over {headline}'
          '{surfaces}.',
    '3': 'Table 3. The rows of Table 2(a) by organ, pooled DSC{below}.',
    '4a': 'Table 4(a). Prediction target (average inflation, 5 slices, stride 2): mean DSC over {all}.',
    '4b': 'Table 4(b). Inflation (5 slices, stride 2): mean DSC over {all}.',
    '4c': 'Table 4(c). Input stride (centering, 5 slices): mean DSC over {all}.',
    '4d': 'Table 4(d). Input slices (centering, stride 1): mean DSC over {all}.',
    '5': 'Table 5. Other datasets: mean DSC over the reported labels (without background); average over the '
         'datasets on which every row was run.',
}
TEX = {letter: f'\\{letter}' for letter in '&%_#${}'} | {
    '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '\\': r'\textbackslash{}', '<': '$<$', '>': '$>$',
    '±': r'$\pm$', '✓': r'$\checkmark$', '✗': r'$\times$', '—': '--'}
ORGAN_STATISTICS = (('# voxels', 'voxels', '{:,.0f}'), ('# slices', 'slices', '{:,.0f}'),
                    ('slice variation', 'variation', '{:.2f}'))  # Table 3's lower rows


@dataclass
class Value:
    """A measured figure: one number per seed."""
    seeds: dict[int, float] = field(default_factory=dict)
    failed: int = 0
    finished: int = 0  # runs that have no such figure among them: an organ that is nowhere

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.seeds.values()))) if self.seeds else np.nan

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; NaN for fewer than two."""
        return float(np.std(list(self.seeds.values()), ddof=1)) if len(self.seeds) > 1 else np.nan

    def __str__(self) -> str:
        if not self.seeds:
            return '—' if self.finished else 'failed' if self.failed else 'not run'
        return (f'{self.mean:.2f}' + (f' ± {self.std:.2f}' if len(self.seeds) > 1 else '')
                + (f' ({self.failed} failed)' if self.failed else ''))


def choose_labels(scores: dict, labels: Sequence[int] | str) -> Sequence[int]:
    """Label ids of `headline` (the dataset's reported organs), of `all` (background included), or as given."""
    return (range(len(scores['labels'])) if labels == 'all' else
            scores['headline'] if labels == 'headline' else labels)


def _by_label(figures: list, labels: int) -> list[float | None]:
    """Per label the mean of the cases that have a figure, or the figure of all cases; None where there is none."""
    if not any(isinstance(row, list) for row in figures):
        return figures or [None] * labels
    columns = [[row[i] for row in figures if row[i] is not None] for i in range(labels)]
    return [float(np.mean(column)) if column else None for column in columns]


class Measured:
    """Runs by cell, and the data they were on.

    Args:
        records: of one grid.
        data: dataset -> its summary (mmseg_plugins/datasets/statistics.py).
    """

    def __init__(self, records: list[dict], data: dict[str, dict] | None = None):
        self.data = data or {}
        self._by_cell: dict[Cell, list[dict]] = {}
        for record in records:
            self._by_cell.setdefault(Cell(**record['cell']), []).append(record)

    def runs(self, cell: Cell) -> list[dict]:
        return self._by_cell.get(cell, [])

    def metrics(self) -> list[Metric]:
        """Both kinds of DSC and what else finished runs have figures of, in the order of registration."""
        held = {'dsc_pooled', 'dsc'}.union(*(record['scores']['figures'] for record in self.done()))
        return [metric for metric in METRICS.values() if metric.name in held]

    def value(self, cell: Cell, metric: str, labels: list[int] | str = 'headline') -> Value:
        """Mean figure of a cell over labels, and over cases where the metric is per case.

        Args:
            metric: its name (mmseg_plugins/evaluation/metrics.py).
            labels: ids, `headline` (the dataset's reported organs) or `all` (background included).
        """
        value = Value()
        for record in self.runs(cell):
            if record['state'] != 'done':
                value.failed += 1
                continue
            value.finished += 1
            scores = record['scores']
            by_label = _by_label(scores['figures'].get(metric, ()), len(scores['labels']))
            figures = [by_label[i] for i in choose_labels(scores, labels) if by_label[i] is not None]
            if figures:
                value.seeds[record['seed']] = float(np.mean(figures))
        return value

    def cells(self) -> list[Cell]:
        return list(self._by_cell)

    def done(self, cell: Cell | None = None) -> list[dict]:
        """Finished runs, of one cell or of all."""
        cells = self._by_cell if cell is None else [cell]
        return [record for each in cells for record in self.runs(each) if record['state'] == 'done']

    def pair_cases(self, first: Cell, second: Cell, labels: list[int] | str = 'headline', metric: str = 'dsc'
                   ) -> tuple[dict[str, float], dict[str, float]]:
        """Two cells' figures per case, made comparable: case -> mean over the same labels and over seeds.

        A label that a case lacks counts where either cell predicts it there, if the metric has a best figure: a
        DSC of 0, against 100 for leaving it out. Without one, a label counts where all runs have a figure.
        """
        best = METRICS[metric].best
        sides = [self._rows(cell, metric) for cell in (first, second)]
        found = [{}, {}]
        for case in sorted(sides[0].keys() & sides[1].keys()):
            rows = [row for side in sides for row in side[case]]
            has_figure = any if best is not None else all
            counted = [i for i in choose_labels(self.done(first)[0]['scores'], labels)
                       if has_figure(row[i] is not None for row in rows)]
            if counted:
                for means, side in zip(found, sides, strict=True):
                    means[case] = float(np.mean([[best if row[i] is None else row[i] for i in counted]
                                                 for row in side[case]]))
        return found[0], found[1]

    def _rows(self, cell: Cell, metric: str) -> dict[str, list[list[float | None]]]:
        """Case -> a list of every label's figures from each run of a cell."""
        found: dict[str, list] = {}
        for record in self.done(cell):
            scores = record['scores']
            for case, figures in zip(scores['cases'], scores['figures'].get(metric, ()), strict=False):
                found.setdefault(case, []).append(figures)
        return found

    def per_case(self, cell: Cell, labels: list[int] | str = 'headline', metric: str = 'dsc') -> dict[str, float]:
        """Case -> its mean over labels and seeds; without the cases that have none of the labels.

        Args:
            labels: as in `value`.
            metric: one that is per case.
        """
        found = {}
        for case, rows in self._rows(cell, metric).items():
            ids = choose_labels(self.done(cell)[0]['scores'], labels)
            means = [float(np.mean(figures)) for row in rows
                     if (figures := [row[i] for i in ids if row[i] is not None])]
            if means:
                found[case] = float(np.mean(means))
        return found


def _scope(measured: Measured) -> dict[str, str]:
    below = ('; below: voxels and slices in all evaluated cases, and the mean Dice (%) between a label in a slice '
             'and in the next' if measured.data else '')
    surfaces = ('; HD95 and NSD are means of cases, HD95 of those where label and prediction both have the organ'
                if 'hd95' in {metric.name for metric in measured.metrics()} else '')
    counts = {(len(record['scores']['headline']), len(record['scores']['labels'])) for record in measured.done()}
    if len(counts) != 1:  # no run yet, or several datasets
        return dict(headline='the reported organs', all='all labels, background included', below=below,
                    surfaces=surfaces)
    [(headline, labels)] = counts
    return dict(headline=f'{headline} organs', all=f'all {labels} labels, background included', below=below,
                surfaces=surfaces)


def _figures(measured: Measured, cell: Cell, labels: list[int] | str, surfaces: bool) -> dict[str, str]:
    """Every metric's column of a row; HD95 and NSD, which background lacks, where a table asks for them."""
    return {metric.title: str(measured.value(cell, metric.name, labels)) for metric in measured.metrics()
            if surfaces or metric.name not in ('hd95', 'nsd')}


def caption(table: str, measured: Measured, grid: Grid) -> str:
    return CAPTIONS[table].format(**_scope(measured))


def build_table(table: str, measured: Measured, grid: Grid, committed: Measured | None = None) -> pd.DataFrame:
    """A table as text cells, ready to write.

    Args:
        committed: the committed results' figures, to be shown beside a newcomer's own.
    """
    if table == '1':
        return _data_table(measured, grid)
    if table == '3':
        return _organ_table(measured, grid, committed)
    if table == '5':
        return _dataset_table(measured, grid, committed)
    labels = 'headline' if table in ('2a', '2b') else 'all'
    paper, column = dict(published(table, grid)), paper_column(grid)
    in_paper = any(label in paper for label in grid.tables[table])
    noise = seed_noise(committed, grid, labels) if committed else None
    rows = []
    for label, cell in grid.tables[table].items():
        value = measured.value(cell, 'dsc_pooled', labels)
        row = {AXIS.get(table, 'Method'): label}
        if table == '2a' and not cell.is_method:
            row |= {'T': '✓' if cell.source != 'none' else '✗', 'D': '✓' if cell.slices > 1 else '✗'}
        if table == '2b':
            source = grid.sources.get(cell.source)
            row |= {'source': source.data if source else '—', 'objective': source.objective if source else '—'}
        row |= _figures(measured, cell, labels, surfaces=table in ('2a', '2b'))
        row['runs'] = str(len(value.seeds))
        if committed:
            other = committed.value(cell, 'dsc_pooled', labels)
            row |= {'committed': str(other), 'agrees': agreement(value, other, noise)}
        if in_paper:
            row[column] = f'{paper.pop(label):.2f}' if label in paper else '—'
        rows.append(row)
    others = []
    if table == '2a':  # methods that only the paper ran
        for label, figure in paper.items():
            note = ' (per case)' if label in PER_CASE_IN_PAPER else ''
            others.append({'Method': label, column: f'{figure:.2f}{note}'})
    return pd.DataFrame(others + rows, columns=list(rows[0])).fillna('—')


def _data_table(measured: Measured, grid: Grid) -> pd.DataFrame:
    """Every dataset of the grid as it was prepared, and as the paper has it."""
    paper, rows = published_data(), []
    for dataset in grid.datasets:
        row = {'Data': dataset, 'figures': 'measured', 'modality': 'not prepared'}
        if summary := measured.data.get(dataset):
            counts = summary.get('groups') or summary['cases']
            row |= {'modality': summary['modality'],
                    'raw size': 'x'.join(f'{side:.0f}' for side in summary['size']),
                    'input size': _input_sizes(measured, dataset), 'labels': str(len(summary['labels']) - 1),
                    **{part: str(counts.get(part, 0)) for part in ('train', 'val', 'test')},
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
            slices.setdefault(tuple(record['data']['input_size']), []).append(record['cell']['slices'])
    return ', '.join(f'{width}x{height}x' + '..'.join(map(str, sorted({min(depths), max(depths)})))
                     for (height, width), depths in sorted(slices.items())) or '—'


def _dataset_table(measured: Measured, grid: Grid, committed: Measured | None) -> pd.DataFrame:
    """Methods by datasets: every cell of the table on each of them."""
    def values(cell: Cell, figures: Measured, kind: str) -> dict[str, Value]:
        return {same.dataset: figures.value(same, kind) for same in grid.on_each([cell])}

    pooled = {label: values(cell, measured, 'dsc_pooled') for label, cell in grid.tables['5'].items()}
    common = [dataset for dataset in grid.datasets if all(row[dataset].seeds for row in pooled.values())]
    rows = []

    def add(label: str, figures: str, means: Mapping[str, float], texts: dict[str, str] | None = None) -> None:
        means = pd.Series(means, dtype=float)
        rows.append({'Method': label, 'figures': figures, **(texts or means.map(_number)),
                     f'average of {len(common)}': _number(means[common].mean(skipna=False))})

    paper = published_datasets().reindex(columns=grid.datasets)
    for label in paper.index.difference(pooled, sort=False):  # methods that only the paper ran
        add(label, 'paper, per case' if label in PER_CASE_IN_PAPER else 'paper', paper.loc[label])
    for label, cell in grid.tables['5'].items():
        shown = {'pooled': pooled[label], 'case': values(cell, measured, 'dsc')}
        if committed:
            shown['committed, pooled'] = values(cell, committed, 'dsc_pooled')
        for figures, row in shown.items():
            add(label, figures, {dataset: value.mean for dataset, value in row.items()},
                {dataset: str(value) for dataset, value in row.items()})
        if label in paper.index:
            add(label, 'paper', paper.loc[label])
    if measured.data:
        add('slice variation', 'measured', {dataset: measured.data.get(dataset, {}).get('mean_variation')
                                            for dataset in grid.datasets})
    return pd.DataFrame(rows)


def _number(figure: float, form: str = '{:.2f}') -> str:
    return '—' if np.isnan(figure) else form.format(figure)


def _organ_table(measured: Measured, grid: Grid, committed: Measured | None) -> pd.DataFrame:
    done = measured.done()
    if not done:
        return pd.DataFrame([{'Method': row} for row in grid.tables['3']])
    scores, paper = done[0]['scores'], published_organs(grid)
    rows = []
    for label, cell in grid.tables['3'].items():
        for name, figures in {'measured': measured, 'committed': committed}.items():
            if figures:
                row = {'Method': label, 'figures': name}
                rows.append(row | {scores['labels'][i]: str(figures.value(cell, 'dsc_pooled', [i]))
                                   for i in scores['headline']})
        if paper is not None and label in paper.index:
            row = {'Method': label, 'figures': paper_column(grid)}
            rows.append(row | {scores['labels'][i]: f'{paper.loc[label, i]:.2f}' for i in scores['headline']})
    summary = measured.data.get(grid.dataset)
    for label, key, form in ORGAN_STATISTICS if summary else ():
        lines = {'measured': pd.Series(summary[key], dtype=float)}
        if paper is not None:
            lines[paper_column(grid)] = paper.loc[label]
        rows += [{'Method': label, 'figures': name}
                 | {scores['labels'][i]: _number(line[i], form) for i in scores['headline']}
                 for name, line in lines.items()]
    if paper is not None:  # methods that only the paper ran
        known = {*grid.tables['3'], *(label for label, *_ in ORGAN_STATISTICS)}
        others = [{'Method': label, 'figures': paper_column(grid) + ', per case' * (label in PER_CASE_IN_PAPER)}
                  | {scores['labels'][i]: f'{paper.loc[label, i]:.2f}' for i in scores['headline']}
                  for label in paper.index if label not in known]
        rows = others + rows
    return pd.DataFrame(rows)


def free_cells(measured: Measured, grid: Grid) -> list[Cell]:
    """Cells that no table names: the grid's free axes, and whatever else was run into its folder."""
    named = set(grid.in_tables())
    return [cell for cell in dict.fromkeys([*grid.on_each(grid.free), *measured.cells()]) if cell not in named]


def varying_axes(cells: list[Cell]) -> list[str]:
    """The axes along which these cells differ, in Cell's order."""
    return [axis for axis in ('dataset', *AXES) if len({getattr(cell, axis) for cell in cells}) > 1]


def build_free_table(measured: Measured, grid: Grid) -> pd.DataFrame:
    """One row per cell that no table names; what all of them share is in the caption."""
    cells = free_cells(measured, grid)
    rows = []
    for cell in cells:
        value = measured.value(cell, 'dsc_pooled')
        rows.append({axis: _shown_axis(cell, axis) for axis in varying_axes(cells)}
                    | _figures(measured, cell, 'headline', surfaces=True) | {'runs': str(len(value.seeds))})
    return pd.DataFrame(rows)


def _shown_axis(cell: Cell, axis: str) -> str:
    """Its value; a dash for what a method that is no config does not have."""
    value = getattr(cell, axis)
    return '—' if cell.is_method and value is None else str(value)


def free_caption(measured: Measured, grid: Grid) -> str:
    cells = free_cells(measured, grid)
    shared = [f'{axis} {getattr(cells[0], axis)}' for axis in ('dataset', *AXES)
              if axis not in varying_axes(cells) and getattr(cells[0], axis) is not None]
    return f'Free axes ({", ".join(shared)}): mean DSC over {_scope(measured)["headline"]}.'


def cell_names(measured: Measured, grid: Grid) -> dict[Cell, str]:
    """Every cell of the grid and of its folder -> the rows it fills, as `2a Ours; 4c 1`."""
    names: dict[Cell, list[str]] = {cell: [] for cell in [*grid.cells(), *measured.cells()]}
    for table, rows in grid.tables.items():
        for row, cell in rows.items() if table != '3' else ():  # those of 2(a) again
            for same in grid.on_each([cell]):
                names[same].append(f'{table} {row}' + (f' ({same.dataset})' if len(grid.datasets) > 1 else ''))
    return {cell: '; '.join(filled) or cell_label(cell) for cell, filled in names.items()}


def seed_noise(measured: Measured, grid: Grid, labels: list[int] | str = 'headline', dataset: str | None = None
               ) -> dict[str, float]:
    """Standard deviation between seeds, from all cells that have several together, and its freedom.

    Args:
        labels: those of the figure that it is the noise of, as in `Measured.value`.
        dataset: of cells on this one alone; None: of all.
    """
    squares, freedom = 0.0, 0
    for cell in grid.cells():
        if dataset not in (None, cell.dataset):
            continue
        value = measured.value(cell, 'dsc_pooled', labels)
        if len(value.seeds) > 1:
            squares += value.std ** 2 * (len(value.seeds) - 1)
            freedom += len(value.seeds) - 1
    return dict(std=float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom=freedom)


def agreement(value: Value, other: Value, noise: dict[str, float]) -> str:
    """Whether two means differ by no more than seeds do (95 %, t with that deviation)."""
    if not value.seeds or not other.seeds or not noise['freedom']:
        return 'cannot tell'
    spread = noise['std'] * np.sqrt(1 / len(value.seeds) + 1 / len(other.seeds))
    return 'yes' if abs(value.mean - other.mean) <= stats.t.ppf(0.975, noise['freedom']) * spread else 'no'


def to_markdown(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """GitHub's table syntax, the notes below."""
    rows = [list(table.columns), ['---'] * len(table.columns), *table.astype(str).values.tolist()]
    lines = [f'| {" | ".join(cell.replace("|", "/") for cell in row)} |' for row in rows]
    return '\n'.join([*lines, *(f'\n{note}' for note in number_notes(notes))]) + '\n'


def number_notes(notes: Sequence[str]) -> list[str]:
    """As the table refers to them where there are several."""
    return [f'[{number}] {note}' for number, note in enumerate(notes, 1)] if len(notes) > 1 else list(notes)


def to_latex(table: pd.DataFrame, text: str, notes: Sequence[str] = ()) -> str:
    """A booktabs table, the notes below."""
    def escape(cell: str) -> str:
        return ''.join(TEX.get(letter, letter) for letter in cell)

    def width(column: str) -> str:
        return 'p{4cm}' if table[column].astype(str).str.len().max() > 60 else 'l'

    lines = [r'\begin{table}', r'\centering', rf'\caption{{{escape(text)}}}',
             rf'\begin{{tabular}}{{{"".join(map(width, table.columns))}}}', r'\toprule']
    body = [list(table.columns), *table.astype(str).values.tolist()]
    lines += [' & '.join(map(escape, row)) + r' \\' + (r' \midrule' if i == 0 else '')
              for i, row in enumerate(body)]
    below = [rf'\par\smallskip {escape(note)}' for note in number_notes(notes)]
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', *below, r'\end{table}']) + '\n'


def cell_label(cell: Cell) -> str:
    return ', '.join(f'{axis} {value}' for axis, value in asdict(cell).items() if value is not None)
