"""The search of a grid with `tune`: each cell gets the setting that does best on cases that are not reported.

A run for each cell and setting, with the grid file's first seed, and no more steps than its `search_steps`, in
proportion more where a cell has more steps than its config. Chosen is the highest mean DSC of cases
over the headline's labels, evaluated where nothing is reported: on the split `val`, or where that is reported (or
folds are), or the cell is of a share of the training cases, on a quarter of the patients that are trained on. The
file's `search_percent` is how many of them are evaluated.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmseg_plugins.commands import REPO
from mmseg_plugins.datasets.catalogue import CATALOGUE, DatasetInfo
from mmseg_plugins.datasets.splits import Fold, describe_fold, name_fold, name_share, split_cases
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation.scores import mean_over_cases
from mmseg_plugins.experiment import read_config

from ..grid.axes import Cell
from ..grid.grid import Grid
from .agenda import make_run
from .inputs import PREPARED, is_prepared
from .records import find_record
from .run import Run, describe_options

QUARTER = ':0/4', ':-0/4'  # of what is trained on: evaluated, and trained on, by a search
CellFold = tuple[Cell, Fold | None]  # what has a search of its own


def list_search(grid: Grid, weights_root: Path, max_iters: int | None) -> dict[CellFold, list[Run]]:
    """Every cell that is a config, in each fold -> a run for each setting; nothing for a grid without `tune`.

    Raises:
        UserError: cases that are reported would be read.
    """
    settings = [dict(zip(grid.tune, values, strict=True)) for values in itertools.product(*grid.tune.values())]
    found = {}
    for cell in grid.cells_to_run() if grid.tune else ():
        if cell.without_config:
            continue
        cfg = read_config(REPO / grid.config(cell), grid.options_of(cell))
        searched = searched_cell(grid, cell, max_iters, cfg)
        limit = max_iters if searched is cell else None
        for fold in dict.fromkeys(fold for _, fold in grid.seeds_and_folds):
            inner, found[cell, fold] = _inner_options(cell, fold, cfg, grid.search_percent), []
            for setting in settings:
                run = make_run(grid, searched, grid.search_seed, weights_root, limit, chosen=inner | setting)
                found[cell, fold].append(replace(run, setting=describe_options(setting)))
    return found


def searched_cell(grid: Grid, cell: Cell, max_iters: int | None, cfg: Config | None = None) -> Cell:
    """The cell that a search runs in a cell's place: of fewer steps, where the grid says so; else itself.

    Args:
        cfg: the cell's config, where it was read.
    """
    if not grid.search_steps:
        return cell
    cfg = cfg or read_config(REPO / grid.config(cell), grid.options_of(cell))
    steps = max_iters or cell.steps or cfg.experiment.steps
    # which rate is best depends on how long a run trains
    limit = round(grid.search_steps * max(1.0, steps / cfg.experiment.steps))
    return replace(cell, steps=limit) if limit < steps else cell


def each_once(search: Mapping[CellFold, Sequence[Run]]) -> list[Run]:
    """The runs of a search. Cells that differ in their steps alone may share those with fewer."""
    return list({run.name: run for run in itertools.chain(*search.values())}.values())


def _inner_options(cell: Cell, fold: Fold | None, cfg: Config, percent: int) -> dict[str, Any]:
    """What a search is trained on, and what it is evaluated on, by DSC alone.

    Args:
        percent: of the patients that it could be evaluated on.
    """
    experiment, evaluator = cfg.experiment, 'val_evaluator' + '.0' * isinstance(cfg.val_evaluator, list | tuple)
    index = read_index(PREPARED / cell.dataset) if is_prepared(cell.dataset) else None
    expected = CATALOGUE.get(cell.dataset, DatasetInfo).evaluate  # of data that is yet to be prepared
    whole, reported = experiment.split, experiment.get('evaluate') or (index['evaluate'] if index else expected)
    if fold:
        whole, reported = name_fold(fold, others=True), name_fold(fold)
    whole = name_share(whole, cell.train_percent)
    trained, evaluated = whole + QUARTER[1], whole + QUARTER[0]
    if (whole, reported) == ('train', 'test') and (not index or index['split'].get('val')):
        trained, evaluated = 'train', 'val'
    evaluated = name_share(evaluated, percent)
    if index:
        check_apart(index, trained, evaluated, reported)
    return {'experiment.split': trained, 'experiment.train_percent': 100, 'experiment.evaluate': evaluated,
            f'{evaluator}.only': ['dsc_pooled', 'dsc']}


def check_apart(index: dict, trained: str, evaluated: str, reported: str) -> None:
    """Raise a UserError where a search would read a case that is reported."""
    read = {*split_cases(index, trained), *split_cases(index, evaluated)}
    if common := read & {*split_cases(index, reported)}:
        raise UserError(f'{index["dataset"]}: the search would read {sorted(common)[0]!r}, a reported case '
                        f'(trained on {trained}, evaluated on {evaluated}, reported {reported}); set '
                        'experiment.split and experiment.evaluate to parts that have no case in common')


def choose(grid: Grid, search: Mapping[CellFold, Sequence[Run]], folders: Sequence[Path]) -> dict[CellFold, dict]:
    """What the search chose for each cell and fold all of whose runs have ended, as records of these tell it.

    Args:
        search: `list_search`.
        folders: each with records of search runs; the first that has one counts.

    Returns:
        Cell and fold -> `seed`, `trained` and `evaluated` of the search, its `steps` where the cell has more,
        `tried` (a line for each setting: `run`, `options`, and `dsc` in percent and `seconds` unless it failed),
        and `chosen`, the options of the best.
    """
    choices = {}
    for searched, runs in search.items():
        records = [find_record(folders, run) for run in runs]
        if None in records:
            continue
        tried = [dict(run=run.name, options={option: run.options[option] for option in grid.tune},
                      **_outcome(record)) for run, record in zip(runs, records, strict=True)]
        ended = [line for line in tried if line['dsc'] is not None]
        if ended:
            shortened = dict(steps=runs[0].cell.steps) if runs[0].cell != searched[0] else {}
            choices[searched] = shortened | dict(
                seed=runs[0].seed, trained=runs[0].options['experiment.split'],
                evaluated=runs[0].options['experiment.evaluate'], tried=tried,
                chosen=max(ended, key=lambda line: line['dsc'])['options'])
    return choices


def _outcome(record: dict) -> dict[str, Any]:
    if record['state'] != 'done':
        return dict(dsc=None, seconds=None)
    scores = record['scores']
    by_label = mean_over_cases(np.array(scores['figures']['dsc'], float)[:, scores['headline']])
    [dsc] = mean_over_cases(by_label[:, None])
    return dict(dsc=None if np.isnan(dsc) else round(float(dsc), 4), seconds=record['cost']['seconds'])


def describe_choice(searched: CellFold, choice: dict) -> str:
    """One line: what was chosen for a cell, in a fold, and what each setting came to."""
    cell, fold = searched
    where = f' {describe_fold(fold)}' if fold else ''
    tried = ', '.join(f'{describe_options(line["options"])}: {"failed" if line["dsc"] is None else line["dsc"]}'
                      for line in choice['tried'])
    return f'{cell}{where}: {describe_options(choice["chosen"])}, by DSC on {describe_judge(choice)} ({tried})'


def describe_judge(choice: Mapping) -> str:
    """The cases that decided and, where a search took fewer steps than what it is for, after how many."""
    return choice['evaluated'] + (f' after {choice["steps"]:,} steps' if 'steps' in choice else '')
