"""Rows against each other, overall and by organ, and two folders of one grid against each other."""

from dataclasses import replace

import pandas as pd

from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.evaluation.metrics import METRICS

from ..grid.axes import Cell
from ..grid.reader import Grid
from .frame import Labels, Measured
from .markup import to_markdown
from .statistics import LEAST_CASES, LEAST_SEEDS, compare_cases, compare_seeds, holm, measure_gain, pool_noise
from .tables import TOO_FEW, cell_label, cell_names, format_p

NOTE = ('Per case: mean over labels and seeds, a label that the case lacks counting 100 where one row leaves it '
        'out and the other does not (0); interval: 95 % by a paired bootstrap of cases; p: Wilcoxon\'s '
        'signed-rank test, two-sided, and Holm\'s correction over the lines of a table (over organs: without the '
        'last line); effect: matched-pairs rank-biserial correlation. Pooled: paired t-test over seeds. '
        f'"{TOO_FEW}": fewer than {LEAST_CASES} cases or {LEAST_SEEDS} seeds in common, or no difference in any.')


def contrast_tables(measured: Measured, grid: Grid) -> pd.DataFrame:
    """Each table's reference with its other rows, on every dataset; Holm's correction within a table on one."""
    frames = []
    for table in grid.tables.values():
        for dataset in grid.datasets if table.against else ():
            rows = {label: same for label, cell in table.rows.items()
                    if measured.done(same := replace(cell, dataset=dataset))}
            if len(rows) > 1 and table.reference in rows:
                frame = contrast_rows(measured, rows, table.reference, table.labels)
                frame.insert(0, 'Table', table.name)
                if len(grid.datasets) > 1:
                    frame.insert(1, 'Data', dataset)
                frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def contrast_rows(measured: Measured, rows: dict[str, Cell], reference: str, labels: Labels = 'headline'
                  ) -> pd.DataFrame:
    """One row's DSC against every other's."""
    return _contrast(measured, {f'{reference} - {label}': (rows[reference], cell, labels)
                                for label, cell in rows.items() if label != reference and measured.done(cell)},
                     'Contrast')


def contrast_organs(measured: Measured, first: Cell, second: Cell, metric: str = 'dsc') -> pd.DataFrame:
    """Two rows by a metric, organ by organ; Holm's correction over the organs, the line of all organs apart."""
    scores = measured.done(first)[0]['scores']
    organs = {scores['labels'][i]: (first, second, [i]) for i in scores['headline']}
    overall = {'all of these': (first, second, 'headline')}
    return pd.concat([_contrast(measured, pairs, 'Organ', metric) for pairs in (organs, overall)],
                     ignore_index=True)


def _contrast(measured: Measured, pairs: dict[str, tuple[Cell, Cell, Labels]], heading: str, metric: str = 'dsc'
              ) -> pd.DataFrame:
    """A line for each pair, by a metric over cases and over seeds; Holm's correction over the lines."""
    over_cases, over_seeds = METRICS[metric], METRICS['dsc_pooled' if metric == 'dsc' else metric]  # as the paper
    case_title = f'{"DSC" if metric == "dsc" else over_cases.title} per case'
    by_case = [compare_cases(*measured.pair_cases(*pair, metric)) if over_cases.per_case else None
               for pair in pairs.values()]
    rows = []
    for (label, (first, second, labels)), cases, adjusted in zip(
            pairs.items(), by_case, holm([test and test.p for test in by_case]), strict=True):
        row = {heading: label, case_title: TOO_FEW, over_seeds.title: TOO_FEW}
        if cases:
            low, high = cases.interval
            row |= {case_title: f'{cases.difference:+.2f}', '95 % over cases': f'{low:+.2f} to {high:+.2f}',
                    'p (Wilcoxon)': format_p(cases.p), 'p (Holm)': format_p(adjusted),
                    'effect': f'{cases.effect:+.2f}'}
        by_seed = (measured.value(cell, over_seeds.name, labels).seeds for cell in (first, second))
        if seeds := compare_seeds(*by_seed, over_seeds.higher_is_better):
            row |= {over_seeds.title: f'{seeds.difference:+.2f} ± {seeds.std:.2f}',
                    't': f'{seeds.t:.2f} ({seeds.n} seeds)', 'p (t, two-sided)': format_p(seeds.two_sided),
                    'p (t, one-sided)': format_p(seeds.one_sided)}
        rows.append(row)
    case_columns = [case_title, '95 % over cases', 'p (Wilcoxon)', 'p (Holm)', 'effect'] * over_cases.per_case
    columns = [heading, *case_columns, over_seeds.title, 't', 'p (t, two-sided)', 'p (t, one-sided)']
    return pd.DataFrame(rows, columns=columns).fillna('—')


def find_cell(measured: Measured, grid: Grid, name: str) -> Cell:
    """A cell by its row, by table and row (`stride 2`), or by its own name (`phantom-beit-...`).

    Raises:
        UserError: nothing, or no finished run, is called so.
    """
    known = {str(cell): cell for cell in measured.cells()}
    named = [(name, row, cell) for name, table in grid.tables.items() for row, cell in table.rows.items()]
    known |= {f'{table} {row}': cell for table, row, cell in named}
    # `1` is a stride in one table and a number of slices in another
    known |= {row: cell for _, row, cell in named if len({other for _, same, other in named if same == row}) == 1}
    if name not in known:
        raise UserError(f'{grid.name}: no row {name!r}{nearest(name, known)}')
    if not measured.done(known[name]):
        raise UserError(f'{grid.name}: row {name!r} has no finished run')
    return known[name]


def compare(measured: Measured, grid: Grid, first: str, second: str) -> str:
    """Two rows against each other by every metric, as Markdown."""
    cells = [find_cell(measured, grid, name) for name in (first, second)]
    if cells[0] == cells[1]:
        raise UserError(f'--compare: {first!r} and {second!r} are one cell, {cells[0]}; name two')
    lines = [f'{name}: {cell_label(cell)}' for name, cell in zip((first, second), cells, strict=True)]
    for metric in measured.metrics():
        if metric.name != 'dsc_pooled':  # beside `dsc`, in its table
            better = 'higher' if metric.higher_is_better else 'lower'
            lines += ['', *([] if metric.name == 'dsc' else [f'{metric.title}, {better} is better:', '']),
                      to_markdown(contrast_organs(measured, *cells, metric.name))]
    return '\n'.join([f'{first} - {second}', *lines, NOTE])


def compare_results(new: Measured, old: Measured, grid: Grid) -> pd.DataFrame:
    """What moved between two folders of a grid: pooled DSC of every cell of either, new minus old.

    Noise is half the width of the difference's 95 % interval: from the deviation between seeds in both folders
    together, or, where no cell has several seeds, from resampling the cases that both evaluated.
    """
    noise = pool_noise(folder.value(cell) for folder in (new, old) for cell in folder.cells())
    rows = []
    for cell, name in (cell_names(old, grid) | cell_names(new, grid)).items():
        if not new.runs(cell) and not old.runs(cell):
            continue
        now, before = new.value(cell), old.value(cell)
        row = {'Cell': name, 'old': str(before).replace('not run', '—'), 'new': str(now).replace('not run', '—'),
               'beyond noise': 'cannot tell'}
        if now.seeds and before.seeds:
            row['difference'] = f'{now.mean - before.mean:+.2f}'
            if now.seeds == before.seeds:
                row['beyond noise'] = 'no'
            elif gain := measure_gain(now, before, noise, new.per_case(cell), old.per_case(cell)):
                row |= {'noise (95 %)': f'± {(gain.high - gain.low) / 2:.2f}', 'over': gain.over,
                        'beyond noise': 'yes' if gain.beyond_noise else 'no'}
        elif now.seeds or before.seeds:
            row['beyond noise'] = 'only new' if now.seeds else 'only old'
        rows.append(row)
    columns = ['Cell', 'old', 'new', 'difference', 'noise (95 %)', 'over', 'beyond noise']
    return pd.DataFrame(rows, columns=columns).fillna('—')
