"""Records as one tidy pandas frame: `from benchmarks import results; results.load('results/phantom')`."""

from pathlib import Path

import pandas as pd

from mmseg_plugins.errors import UserError

from .rendering.frame import tidy_records
from .runs.records import read_records


def load(folder: str | Path) -> pd.DataFrame:
    """One row per finished run, label and case: `tidy_records` of a result folder, which holds records/."""
    records, _ = read_records(Path(folder))
    if not records:
        raise UserError(f'{folder}: no records; name a folder that run_grid.py wrote')
    return tidy_records(records)
