"""The index over all grids of a folder: results/index.html and, for GitHub, results/README.md."""

from collections.abc import Sequence
from pathlib import Path

from mmseg_plugins.files import write_atomic

from ..grid.reader import Grid
from .findings import main_cells
from .frame import Measured
from .page import ABSENT, describe_hardware, fill

NAMES = ('index.html', 'README.md')
HEADINGS = ('Grid', 'Datasets', 'Runs', 'Main difference', 'Hardware', 'Files')


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
        _main_difference(measured, grid),
        '; '.join(describe_hardware(records)) or '—'])


def _main_difference(measured: Measured, grid: Grid) -> str:
    """Both rows' DSC; their averages over the datasets that have both, where there are several."""
    difference, pairs = main_cells(measured, grid)
    if not pairs:
        return '—'
    first, second = ([measured.value(cell) for cell in cells] for cells in zip(*pairs, strict=True))
    if len(grid.datasets) == 1:
        return f'{difference.first} {first[0]}, {difference.second} {second[0]}'
    means = [sum(value.mean for value in values) / len(values) for values in (first, second)]
    return (f'{difference.first} {means[0]:.2f}, {difference.second} {means[1]:.2f} '
            f'(average of {len(pairs)})')
