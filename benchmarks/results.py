"""Records as one tidy pandas frame: `from benchmarks import results; results.load('results/phantom')`."""

from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pandas as pd

from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation import METRICS

from .axes import AXES, Cell
from .runs.records import read_records

FRACTIONS = [name for name, axis in AXES.items() if float in get_args(axis.kind)]
COLUMNS = ('run', 'dataset', *AXES, 'seed', 'label_id', 'label', 'headline', 'case')


def load(folder: str | Path) -> pd.DataFrame:
    """One row per finished run, label and case.

    Args:
        folder: a result folder, which holds records/.

    Returns:
        Columns: `run`, the cell's axes (`dataset`, `encoder`, `source`, `inflation`, `slices`, `stride`, `target`,
        `lr`), `seed`, `label_id`, `label`, `headline` (whether it counts in the tables' mean), `case`, and one
        of every metric that is registered or in the records: `dsc`, `nsd` and `dsc_pooled` (percent), `hd95` (mm),
        others. What is of all cases together, as `dsc_pooled`, is the same for each. NaN where a label has no
        figure. Without rows where all runs failed.
    """
    records, _ = read_records(Path(folder))
    if not records:
        raise UserError(f'{folder}: no records; name a folder that run_grid.py wrote')
    rows, metrics = [], dict.fromkeys(METRICS)
    for record in records:
        if record['state'] != 'done':
            continue
        scores, cell = record['scores'], asdict(Cell(**record['cell']))
        figures = {name: values if isinstance(values[0], list) else [values] * len(scores['cases'])
                   for name, values in scores['figures'].items()}
        metrics |= dict.fromkeys(figures)
        for i, label in enumerate(scores['labels']):
            for k, case in enumerate(scores['cases']):
                rows.append(dict(
                    run=record['run'], **cell, seed=record['seed'], label_id=i, label=label,
                    headline=i in scores['headline'], case=case,
                    **{name: values[k][i] for name, values in figures.items()}))
    return pd.DataFrame(rows, columns=[*COLUMNS, *metrics]).astype(dict.fromkeys((*metrics, *FRACTIONS), float))
