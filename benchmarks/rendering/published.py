"""The paper's figures (benchmarks/paper/*.csv), by the names that the grid uses."""

from pathlib import Path

import pandas as pd

from mmseg_plugins.datasets.catalogue import BCV_EIGHT, BCV_LABELS

from ..cells import Grid

PAPER = Path(__file__).parents[1] / 'paper'
AXIS = {'4a': 'target', '4b': 'inflation', '4c': 'stride', '4d': 'slices'}
BCV_ORGANS = ('bcv', 'phantom')
PER_CASE_IN_PAPER = ('TransUNet', 'SwinUNet')  # their own papers' per-case means, not pooled


def published(table: str, grid: Grid) -> dict[str, float]:
    """The paper's figure by row label of a table of one dataset: BCV's for BCV's organs, else that of Table 5."""
    if grid.dataset not in BCV_ORGANS:
        columns = published_datasets()
        return columns[grid.dataset].dropna().to_dict() if table == '2a' and grid.dataset in columns else {}
    if table == '2a':
        return pd.read_csv(PAPER / 'table2a_main.csv').set_index('method')['dsc8'].to_dict()
    if table == '2b':
        return pd.read_csv(PAPER / 'table2b_source.csv').set_index('encoder')['dsc8'].to_dict()
    if table in AXIS:
        rows = pd.read_csv(PAPER / 'table4_best_practice.csv', dtype={'value': str})
        axis = 'initialization' if table == '4b' else AXIS[table]  # the paper's word for inflation
        return rows[rows['axis'] == axis].set_index('value')['dsc14'].to_dict()
    return {}


def paper_column(grid: Grid) -> str:
    """Heading of the published figures: they are of this dataset only where it is one of the paper's."""
    return 'paper (BCV)' if grid.dataset in BCV_ORGANS else 'paper (Table 5)'


def published_organs(grid: Grid) -> pd.DataFrame | None:
    """Table 3's figures with label ids as columns, where the grid has BCV's organs."""
    if grid.dataset not in BCV_ORGANS:
        return None
    rows = pd.read_csv(PAPER / 'table3_organs.csv').set_index('method')
    names = {BCV_LABELS[i].replace(' ', '_'): i for i in BCV_EIGHT}
    return rows.rename(columns=names)[list(names.values())]


def published_datasets() -> pd.DataFrame:
    """Table 5's figures, methods by datasets."""
    return pd.read_csv(PAPER / 'table5_generalization.csv').set_index('method')


def published_data() -> pd.DataFrame:
    """Table 1 by dataset, as text."""
    rows = pd.read_csv(PAPER / 'table1_datasets.csv', dtype=str).rename(
        columns={'raw_resolution': 'raw size', 'input_resolution': 'input size'})
    return rows.set_index(rows.pop('dataset').str.lower()).drop(columns='clip_range')
