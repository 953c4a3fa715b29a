"""Records as one tidy pandas frame: `from benchmarks import results; results.load('results/phantom', '2a')`."""

from pathlib import Path

import pandas as pd

from mmseg_plugins.errors import UserError, nearest

from .grid.axes import Cell
from .grid.reader import load_grid
from .rendering.frame import tidy_records
from .runs.records import read_records


def load(folder: str | Path, table: str | None = None) -> pd.DataFrame:
    """One row per finished run, label and case: `tidy_records` of a result folder, which holds records/.

    A mean over all of them would be one over settings that have nothing in common: choose a table, or group by
    every axis that varies.

    Args:
        table: of the folder's grid: only its runs, behind a column `row` with the names of its rows.

    Raises:
        UserError: no records, or no such table.
    """
    folder = Path(folder)
    records, _ = read_records(folder)
    if not records:
        raise UserError(f'{folder}: no records; name a folder that run_grid.py wrote')
    if table is None:
        return tidy_records(records)
    grid = load_grid(str(folder / 'grid.yaml'))
    if table not in grid.tables:
        raise UserError(f'{folder}: no table {table!r}{nearest(table, grid.tables)}')
    frames = []
    for row, cell in grid.tables[table].rows.items():
        cells = grid.on_each([cell])
        frame = tidy_records([record for record in records if Cell(**record['cell']) in cells])
        frame.insert(0, 'row', row)
        frames.append(frame)
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
