"""Rows against each other, overall and by organ, and two folders of one grid against each other."""

from dataclasses import replace

import pandas as pd

from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.evaluation.metrics import METRICS, Metric

from ..grid.axes import Cell
from ..grid.reader import Grid
from .frame import Labels, Measured, Value
from .markup import to_markdown
from .statistics import (
    LEAST_CASES,
    LEAST_SEEDS,
    CaseTest,
    Noise,
    SeedTest,
    compare_cases,
    compare_seeds,
    holm,
    measure_gain,
    pool_noise,
    seed_noise,
)
from .tables import TOO_FEW, cell_label, cell_names, format_p

NOTE = ('Per case: mean over labels and seeds, a label that the case lacks counting 100 where one row leaves it '
        'out and the other does not (0); interval: 95 % by a paired bootstrap of cases; p: Wilcoxon\'s '
        'signed-rank test, two-sided, and Holm\'s correction over the lines of a table (over organs: without the '
        'last line); effect: matched-pairs rank-biserial correlation. Pooled: paired t-test over seeds. '
        f'"{TOO_FEW}": fewer than {LEAST_CASES} cases or {LEAST_SEEDS} seeds in common, or no difference in any.')


def contrast_tables(measured: Measured, grid: Grid) -> pd.DataFrame:
    """Each table's `against` with its other rows, on every dataset; Holm's correction within a table on one."""
    frames = []
    for table in grid.tables.values():
        for dataset in grid.datasets if table.against else ():
            rows = {label: same for label, cell in table.rows.items()
                    if measured.done(same := replace(cell, dataset=dataset))}
            if len(rows) > 1:
                reference = table.against if table.against in rows else next(iter(rows))
                frame = contrast_rows(measured, rows, reference, table.labels)
                frame.insert(0, 'Table', table.name)
                if len(grid.datasets) > 1:
                    frame.insert(1, 'Data', dataset)
                frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def contrast_rows(measured: Measured, rows: dict[str, Cell], reference: str, labels: Labels = 'headline',
                  metric: str = 'dsc') -> pd.DataFrame:
    """One row against every other by a metric (with `dsc` over seeds by the pooled one); Holm's correction."""
    others = {label: cell for label, cell in rows.items() if label != reference and measured.done(cell)}
    return _table({f'{reference} - {label}': _tests(measured, rows[reference], cell, labels, metric)
                   for label, cell in others.items()}, 'Contrast', metric)


def contrast_organs(measured: Measured, first: Cell, second: Cell, metric: str = 'dsc') -> pd.DataFrame:
    """Two rows by a metric, organ by organ; Holm's correction over the organs, the line of all organs apart."""
    scores = measured.done(first)[0]['scores']
    overall = _table({'all of these': _tests(measured, first, second, 'headline', metric)}, 'Organ', metric)
    organs = _table({scores['labels'][i]: _tests(measured, first, second, [i], metric)
                     for i in scores['headline']}, 'Organ', metric)
    return pd.concat([organs, overall], ignore_index=True)


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


def _over_seeds(metric: str) -> Metric:
    """What seeds are compared by where cases are by a metric: DSC by the pooled one, as the paper has it."""
    return METRICS['dsc_pooled' if metric == 'dsc' else metric]


def _tests(measured: Measured, first: Cell, second: Cell, labels: Labels, metric: str
           ) -> tuple[CaseTest | None, SeedTest | None]:
    over_seeds = _over_seeds(metric)
    cases = METRICS[metric].per_case and compare_cases(*measured.pair_cases(first, second, labels, metric))
    return cases or None, compare_seeds(
        *(measured.value(cell, over_seeds.name, labels).seeds for cell in (first, second)),
        over_seeds.higher_is_better)


def _table(tests: dict[str, tuple[CaseTest | None, SeedTest | None]], heading: str, metric: str) -> pd.DataFrame:
    adjusted = holm([cases and cases.p for cases, _ in tests.values()])
    per_case = 'DSC per case' if metric == 'dsc' else f'{METRICS[metric].title} per case'
    over_seeds, rows = _over_seeds(metric).title, []
    for (label, (cases, seeds)), p in zip(tests.items(), adjusted, strict=True):
        rows.append({heading: label, **(_case_columns(cases, p, per_case) if cases else {per_case: TOO_FEW}),
                     **(_seed_columns(seeds, over_seeds) if seeds else {over_seeds: TOO_FEW})})
    columns = [heading, *([per_case, '95 % over cases', 'p (Wilcoxon)', 'p (Holm)', 'effect']
                          if METRICS[metric].per_case else []),
               over_seeds, 't', 'p (t, two-sided)', 'p (t, one-sided)']
    return pd.DataFrame(rows, columns=columns).fillna('—')


def _case_columns(test: CaseTest, adjusted: float, title: str) -> dict[str, str]:
    low, high = test.interval
    return {title: f'{test.difference:+.2f}', '95 % over cases': f'{low:+.2f} to {high:+.2f}',
            'p (Wilcoxon)': format_p(test.p), 'p (Holm)': format_p(adjusted), 'effect': f'{test.effect:+.2f}'}


def _seed_columns(test: SeedTest, title: str) -> dict[str, str]:
    return {title: f'{test.difference:+.2f} ± {test.std:.2f}', 't': f'{test.t:.2f} ({test.n} seeds)',
            'p (t, two-sided)': format_p(test.two_sided), 'p (t, one-sided)': format_p(test.one_sided)}


def compare_results(new: Measured, old: Measured, grid: Grid) -> pd.DataFrame:
    """What moved between two folders of a grid: pooled DSC of every cell of either, new minus old.

    Noise is half the width of the difference's 95 % interval: from the deviation between seeds in both folders
    together, or, where no cell has several seeds, from resampling the cases that both evaluated.
    """
    noise = pool_noise(*(seed_noise(folder, grid) for folder in (new, old)))
    names = cell_names(old, grid) | cell_names(new, grid)
    lines = [_line(name, cell, new, old, noise) for cell, name in names.items()
             if new.runs(cell) or old.runs(cell)]
    columns = ['Cell', 'old', 'new', 'difference', 'noise (95 %)', 'over', 'beyond noise']
    return pd.DataFrame(lines, columns=columns).fillna('—')


def _line(name: str, cell: Cell, new: Measured, old: Measured, noise: Noise) -> dict[str, str]:
    now, before = new.value(cell), old.value(cell)
    line = {'Cell': name, 'old': _shown(before), 'new': _shown(now)}
    if not now.seeds or not before.seeds:
        return line | {'beyond noise': 'only new' if now.seeds else 'only old' if before.seeds else 'cannot tell'}
    line['difference'] = f'{now.mean - before.mean:+.2f}'
    if now.seeds == before.seeds:
        return line | {'beyond noise': 'no'}
    gain = measure_gain(now, before, noise, new.per_case(cell), old.per_case(cell))
    if gain is None:
        return line | {'beyond noise': 'cannot tell'}
    return line | {'noise (95 %)': f'± {(gain.high - gain.low) / 2:.2f}', 'over': gain.over,
                   'beyond noise': 'yes' if gain.beyond_noise else 'no'}


def _shown(value: Value) -> str:
    return str(value) if value.seeds or value.failed else '—'
