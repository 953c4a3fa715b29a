"""Records as one tidy pandas frame: `from benchmarks import results; results.load('results/phantom')`."""

from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pandas as pd

from mmseg_plugins.errors import UserError

from .axes import AXES, Cell
from .records import read_records

NUMBERS = ('dsc', 'hd95', 'nsd', 'dsc_pooled')
FRACTIONS = [name for name, axis in AXES.items() if float in get_args(axis.kind)]
COLUMNS = ('run', 'dataset', *AXES, 'seed', 'label_id', 'label', 'headline', 'case', *NUMBERS)


def load(folder: str | Path) -> pd.DataFrame:
    """One row per finished run, label and case.

    Args:
        folder: a result folder, which holds records/.

    Returns:
        Columns: `run`, the cell's axes (`dataset`, `encoder`, `source`, `inflation`, `slices`, `stride`, `target`,
        `lr`), `seed`, `label_id`, `label`, `headline` (whether it counts in the tables' mean), `case`, `dsc`
        (percent), `hd95` (mm), `nsd` (percent), and `dsc_pooled` (percent, of the run and label: the same for
        every case). NaN where a label is absent. Without rows where all runs failed.
    """
    records, _ = read_records(Path(folder))
    if not records:
        raise UserError(f'{folder}: no records; name a folder that run_grid.py wrote')
    rows = []
    for record in records:
        if record['state'] != 'done':
            continue
        scores, cell = record['scores'], asdict(Cell(**record['cell']))
        for i, label in enumerate(scores['labels']):
            for k, case in enumerate(scores['cases']):
                rows.append(dict(
                    run=record['run'], **cell, seed=record['seed'], label_id=i, label=label,
                    headline=i in scores['headline'], case=case,
                    **{name: scores[key][k][i] if scores.get(key) else None
                       for name, key in (('dsc', 'per_case'), ('hd95', 'hd95_per_case'), ('nsd', 'nsd_per_case'))},
                    dsc_pooled=scores['pooled'][i]))
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys((*NUMBERS, *FRACTIONS), float))
