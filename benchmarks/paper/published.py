"""The paper's figures (the *.csv beside this file), by the names that grids use."""

from pathlib import Path

import pandas as pd

from mmseg_plugins.datasets.catalogue import BCV_EIGHT, BCV_LABELS

from ..grid.tables import Published

PAPER = Path(__file__).parent
BCV_ORGANS = ('bcv', 'phantom')
DECODER = 'decoder (512x512)'


def check_mark(holds: bool) -> str:
    return '✓' if holds else '✗'


def _read(name: str, index: str, column: str) -> dict[str, float]:
    return pd.read_csv(PAPER / f'{name}.csv', dtype={index: str}).set_index(index)[column].to_dict()


def published_methods(dataset: str) -> Published:
    """Tables 2(a), 3 and 5: methods on BCV's eight organs with their seeds, or on one of the other datasets."""
    baselines = pd.read_csv(PAPER / 'baselines.csv').set_index('method')
    others = dict(per_case=tuple(baselines.index[baselines['mean_of'] == 'cases']),
                  not_run=baselines['not_run'].to_dict())
    if dataset in BCV_ORGANS:
        marks = {heading: {row: check_mark(mark) for row, mark in _read('table2a_main', 'method', column).items()}
                 for heading, column in (('T', 'transfer'), ('D', 'depth'))}
        seeds = pd.read_csv(PAPER / 'seeds.csv').groupby('method', sort=False)
        return Published('paper (BCV)', _read('table2a_main', 'method', 'dsc8'), published_organs(),
                         {method: rows.set_index('seed')['dsc8'].to_dict() for method, rows in seeds},
                         columns=marks, **others)
    datasets = published_datasets()
    if dataset in datasets:
        return Published('paper (Table 5)', datasets[dataset].to_dict(), **others)
    return Published()


def published_sources(dataset: str) -> Published:
    """Table 2(b): encoders and their sources."""
    rows = _read('table2b_source', 'encoder', 'dsc8')
    return Published('paper (BCV)', rows) if dataset in BCV_ORGANS else Published()


def published_axis(axis: str, dataset: str) -> Published:
    """Table 4: values of one axis, by the paper's word for it; mean over all 14 labels."""
    if dataset not in BCV_ORGANS:
        return Published()
    rows = pd.read_csv(PAPER / 'table4_best_practice.csv', dtype={'value': str})
    return Published('paper (BCV)', rows[rows['axis'] == axis].set_index('value')['dsc14'].to_dict())


def published_organs() -> pd.DataFrame:
    """Table 3's figures, of methods and of the labels themselves, with BCV's label ids as columns."""
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


def published_settings() -> dict[str, str]:
    """Table 6."""
    return _read('table6_settings', 'setting', 'value')


def published_flops() -> dict[str, int]:
    """Of both encoders for one window, by what they are."""
    return {model: flops for model, flops in _read('cost', 'model', 'flops').items() if model != DECODER}


def decoder_flops() -> int:
    """Of the paper's decoder for one window, the same for both encoders; counted here, not published."""
    return _read('cost', 'model', 'flops')[DECODER]
