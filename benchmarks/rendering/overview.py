"""The index over all grids of a folder: results/index.html and, for GitHub, results/README.md."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmseg_plugins.files import write_atomic

from ..cells import Grid
from .page import ABSENT, describe_hardware, fill
from .tables import Measured

NAMES = ('index.html', 'README.md')
HEADINGS = ('Grid', 'Datasets', 'Runs', 'Ours', 'Ours w/o D', 'Hardware', 'Files')


def write_overview(into: Path, grids: Sequence[tuple[Grid, list[dict]]]) -> None:
    """Write one line per grid.

    Args:
        grids: each with its records, in a folder of its name.
    """
    rows = [_row(grid, records) for grid, records in grids]
    write_atomic(into / 'index.html', fill('index.html.j2', headings=HEADINGS, rows=rows, absent=ABSENT))
    lines = ['# Results', '', 'Mean DSC in percent, pooled, over the reported labels, ± the sample deviation over '
             'seeds. Pages open from a file: [index.html](index.html).', '',
             f'| {" | ".join(HEADINGS)} |', f'|{" --- |" * len(HEADINGS)}']
    for row in rows:
        title, name = row['title'].replace('|', '/'), row['name']
        cells = [f'[{title}]({name}/report.html)', *row['cells'],
                 f'[page]({name}/report.html), [records]({name}/records)']
        lines.append(f'| {" | ".join(cells)} |')
    write_atomic(into / 'README.md', '\n'.join(lines) + '\n')


def _row(grid: Grid, records: list[dict]) -> dict:
    measured = Measured(records)
    datasets = [dataset for dataset in grid.datasets
                if any(record['cell']['dataset'] == dataset for record in measured.done())]
    failed = sum(record['state'] == 'failed' for record in records)
    return dict(name=grid.name, title=grid.title, cells=[
        ', '.join(datasets) or '—', f'{len(measured.done())}' + (f', {failed} failed' if failed else ''),
        *(_figure(row, measured, grid) for row in ('Ours', 'Ours w/o D')),
        '; '.join(describe_hardware(records)) or '—'])


def _figure(row: str, measured: Measured, grid: Grid) -> str:
    """A row's DSC; its average over the datasets that have it, where there are several."""
    cell = next((rows[row] for rows in grid.tables.values() if row in rows), None)
    values = [measured.value(same, 'dsc_pooled') for same in grid.on_each([cell])] if cell else []
    values = [value for value in values if value.seeds]
    if len(grid.datasets) == 1 or not values:
        return str(values[0]) if values else '—'
    return f'{np.mean([value.mean for value in values]):.2f} (average of {len(values)})'
