"""Records of runs that never were: whole, and checked as files are that are read."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.grid.axes import Cell
from benchmarks.runs.records import VERSION, open_record, seal
from benchmarks.runs.run import Run
from mmseg_plugins.files import write_json


def record(cell: Cell, seed: int = 1, dsc: Sequence[float] = (99.0, 60.0, 70.0), labels: Sequence[str] = (),
           headline: Sequence[int] = (), per_case: Sequence | None = None, digest: str = 'abcd1234',
           figures: dict | None = None, fold: tuple | None = None, contrasts: Sequence[str] = (),
           **changes) -> dict:
    """A finished run's record.

    Args:
        dsc: pooled, in percent by label, background first.
        labels, headline: all but background are organs and count, where they are left out.
        per_case: in percent, cases x labels, None where a case lacks one; left out: eight cases as `dsc` is.
        digest: the run's identity.
        figures: of other metrics, by name.
        fold: its number and how many there are.
        contrasts: keys of those that the grid registered of its cell.
        changes: what parts of it, as `cost`, hold besides or instead.
    """
    dsc, per_case = list(dsc), [list(dsc)] * 8 if per_case is None else per_case
    made = dict(
        _head(cell, seed, digest, fold), state='done', contrasts=list(contrasts), load=None, python='3.11',
        scores=dict(labels=list(labels or ['background', *(f'organ {i}' for i in range(1, len(dsc)))]),
                    headline=list(headline or range(1, len(dsc))),
                    cases=[f'case_{i:04d}' for i in range(len(per_case))],
                    figures=dict(dsc_pooled=dsc, dsc=per_case) | (figures or {})),
        training=dict(steps=100, last_loss=1.0, curve=[5 / (i + 1) + 1 for i in range(20)]),
        cost=dict(parameters=600_000, encoder_parameters=400_000, flops=10**8 + (cell.slices or 0),
                  encoder_flops=6 * 10**7 + (cell.slices or 0), seconds=30 + seed, resumed_from=0,
                  peak_memory_mib=100),
        data=dict(dataset=cell.dataset, split_hash='abcd', cases=dict(train=9, val=len(per_case)), evaluated='val',
                  protocol='sound', input_size=[64, 64]))
    return _check(made | {part: made.get(part, {}) | change for part, change in changes.items()})


def failed(cell: Cell, seed: int = 1, reason: str = 'torn', digest: str = 'abcd1234', fold: tuple | None = None
           ) -> dict:
    """The record of a run that failed, which has no scores."""
    return _check(_head(cell, seed, digest, fold) | dict(state='failed', reason=reason))


def write(folder: Path, made: dict) -> Path:
    """A record as the file that a run leaves in a result folder; returns its path."""
    path = folder / 'records' / f'{made["run"]}.json'
    write_json(path, made)
    return path


def _head(cell: Cell, seed: int, digest: str, fold: tuple | None) -> dict:
    run = Run(cell, seed, 'configs/a.py', {}, digest, fold)
    return (dict(fold=list(fold)) if fold else {}) | dict(
        version=VERSION, run=run.name, identity=digest, cell=asdict(cell), seed=seed, config=run.config,
        command='python tools/train.py', code=dict(revision='0123abc', modified=False),
        packages=dict(torch='2.8'), hardware=dict(cpu='a CPU', cores=2, threads=1, gpu=None))


def _check(made: dict) -> dict:
    return open_record(json.dumps(seal(made)))
