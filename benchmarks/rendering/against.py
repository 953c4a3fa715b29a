"""Two result folders of one grid, cell by cell: what moved, by how much, and whether beyond noise."""

import numpy as np
import pandas as pd

from ..axes import Cell
from ..cells import Grid
from .findings import measure_gain
from .tables import Measured, Value, cell_names, seed_noise


def compare_results(new: Measured, old: Measured, grid: Grid) -> pd.DataFrame:
    """One line per cell of either: pooled DSC over the reported labels, new minus old.

    Noise is half the width of the difference's 95 % interval: from the deviation between seeds in both folders
    together, or, where no cell has several seeds, from resampling the cases that both evaluated.
    """
    noise, names = _joint_noise(new, old, grid), cell_names(old, grid) | cell_names(new, grid)
    lines = [_line(name, cell, new, old, noise) for cell, name in names.items()
             if new.runs(cell) or old.runs(cell)]
    columns = ['Cell', 'old', 'new', 'difference', 'noise (95 %)', 'over', 'beyond noise']
    return pd.DataFrame(lines, columns=columns).fillna('—')


def _line(name: str, cell: Cell, new: Measured, old: Measured, noise: dict[str, float]) -> dict[str, str]:
    now, before = (folder.value(cell, 'dsc_pooled') for folder in (new, old))
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


def _joint_noise(new: Measured, old: Measured, grid: Grid) -> dict[str, float]:
    parts = [part for part in (seed_noise(folder, grid) for folder in (new, old)) if part['freedom']]
    freedom = sum(part['freedom'] for part in parts)
    squares = sum(part['std'] ** 2 * part['freedom'] for part in parts)
    return dict(std=float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom=freedom)
