"""Records: what the one JSON file of a finished or failed run holds, how it is written, checked and found."""

import glob
import hashlib
import io
import json
import reprlib
from collections.abc import Collection, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mmseg_plugins.datasets.splits import read_fold, split_cases
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation import Scores
from mmseg_plugins.evaluation.folder import ScoredFolder
from mmseg_plugins.evaluation.metrics import RESERVED
from mmseg_plugins.files import write_atomic, write_json
from mmseg_plugins.untrusted import CHECKED, OTHERS, find_fault, read_json

from ..grid.axes import Cell, check_cell
from ..methods.command import COST
from .run import Run, name_part

VERSION = 3

# What a record holds, in the words of find_fault; `...` marks what not all have, as most of it came later.
FIGURES = [(float, None)]  # of every label; None: of nothing, as where a label is absent
DATA = dict(dataset=str, split_hash=str, cases={str: int}, evaluated=str, trained=(str, ...),
            nsd_tolerance=([float], ...),  # least and most mm of a case; 2, before it was a dataset's
            nominal_spacing=(bool, ...))  # in its place, where nothing in mm can be told
# What chose some of its options, see search.py.
SEARCH = dict(seed=int, trained=str, evaluated=str, chosen=OTHERS, steps=(int, ...),  # where they are fewer
              tried=[dict(run=str, options=OTHERS, dsc=(float, None), seconds=(float, None))])
HARDWARE = dict(cpu=str, cores=(int, None), threads=int, gpu=(str, None))
RECORD = dict(
    version=int, checksum=str, run=str, identity=str, cell=OTHERS, seed=int, fold=([int], ...), command=str,
    state=str, code=dict(revision=(str, None), modified=bool), python=(str, ...), packages={str: (str, None)},
    hardware=(HARDWARE, ...),  # not of label maps that were scored alone
    search=(SEARCH, ...), contrasts=([str], ...),  # that the grid registered of its cell before it ran
    attempts=([OTHERS], ...))  # that ran out of memory before this one
FAILED = RECORD | dict(
    config=(str, ...), reason=str, checkpoint=(str, None, ...), out_of_memory=(OTHERS, ...))
SCORED = RECORD | dict(
    # by metric: a list for each case, or one list for all cases together
    scores=dict(labels=[str], headline=[int], cases=[str],
                confusion=([[int]], ...),  # of all cases together, which folds are pooled by
                figures={'dsc': [FIGURES], 'dsc_pooled': FIGURES, str: list}))
OF_CONFIG = SCORED | dict(
    config=str, hardware=HARDWARE, training=dict(steps=int, last_loss=float, curve=[float]),
    settings=({str: str}, None, ...), data=(DATA | dict(protocol=str, input_size=[int]), None, ...),
    load=(OTHERS, None, ...),  # what became of its source's keys
    source=(OTHERS | dict(name=str, file=str, sha256=str, saw=([str], ...)), None, ...),  # what it started from
    cost=dict(parameters=float, trained_parameters=(float, ...), encoder_parameters=(float, ...), flops=float,
              encoder_flops=(float, ...), seconds=float, start_seconds=(float, ...), step_seconds=(float, ...),
              window_seconds=(float, ...), checkpoint_seconds=(float, ...), cpu_share=(float, ...),
              peak_memory_mib=float, memory_of=(str, ...), kind=(str, ...), processes=(int, ...),
              resumed_from=(int, ...)))
OF_LABEL_MAPS = SCORED | dict(
    method=dict(label_maps=str, made_by=(str, None), missing=[str], notes=[str], settings=({str: str}, ...)),
    data=DATA, cost=(dict(seconds=float, resumed_from=(int, ...)) | COST, ...))
# What figures were called until version 2.
NAMES_2 = dict(dsc='per_case', hd95='hd95_per_case', nsd='nsd_per_case', dsc_pooled='pooled')
# What tables read of a dataset's summary, see mmseg_plugins/datasets/statistics.py.
SUMMARY = OTHERS | dict(
    modality=(str, None), labels=[str], headline=[int], split_hash=(str, None), size=[float], cases={str: int},
    voxels=[int], slices=[int], variation=FIGURES, mean_variation=(float, None), citation=(str, ...))


def seal(record: dict) -> dict:
    """The record with the checksum of its content; whoever edits it by hand breaks it."""
    content = {key: value for key, value in record.items() if key != 'checksum'}
    canonical = json.dumps(content, sort_keys=True)
    return content | dict(checksum=hashlib.sha256(canonical.encode()).hexdigest()[:16])


def open_record(text: str) -> dict:
    """A record from its file's text, of this version and checked.

    Raises:
        UserError: why it is no record.
    """
    try:
        record = json.loads(text, **CHECKED)
    except (ValueError, RecursionError) as error:
        raise UserError(f'not whole ({error})') from None
    if not isinstance(record, dict):
        raise UserError('not a record')
    version = record.get('version')
    if type(version) is not int or not 1 <= version <= VERSION:
        raise UserError(f'of version {reprlib.repr(version)}, this code knows 1 to {VERSION}')
    if record.get('checksum') != (seal(record)['checksum'] if version > 1 else None):
        raise UserError('edited since it was written (its checksum differs)')
    record = _migrate(record)
    state = record.get('state')
    if state not in ('done', 'failed'):
        raise UserError(f'its state is {reprlib.repr(state)}, not done or failed')
    wanted = FAILED if state == 'failed' else OF_CONFIG if 'config' in record else OF_LABEL_MAPS
    if fault := find_fault(record, wanted):
        raise UserError(fault)
    check_cell(record['cell'])
    of_windows = wanted is OF_CONFIG and Cell(**record['cell']).of_windows
    if of_windows and 'encoder_flops' not in record['cost']:  # a network of volumes has no encoder of its own
        raise UserError("cost has no 'encoder_flops'")
    if 'fold' in record and not (len(record['fold']) == 2 and 0 <= record['fold'][0] < record['fold'][1]):
        raise UserError(f'its fold is {record["fold"]}, not as [0, 5], the first of five')
    if state == 'done':
        _check_scores(record['scores'])
        if 'fold' in record and 'confusion' not in record['scores']:
            raise UserError("scores has no 'confusion', which folds are pooled by")
    return record


def _migrate(record: dict) -> dict:
    """Version 1 had no checksum; until 2, each figure had a key of its own, and the mean of cases stood beside."""
    if record['version'] == VERSION:
        return record
    if isinstance(scores := record.get('scores'), dict):
        figures = {name: scores[key] for name, key in NAMES_2.items() if scores.get(key) is not None}
        others = {key: value for key, value in scores.items() if key not in (*NAMES_2.values(), 'case')}
        record = record | dict(scores=others | dict(figures=figures))
    return seal(record | dict(version=VERSION))


def _check_scores(scores: dict) -> None:
    """Every list as long as the labels or cases that it is about."""
    labels, cases = len(scores['labels']), len(scores['cases'])
    for name, figures in scores['figures'].items():
        if name in RESERVED:
            raise UserError(f'scores.figures.{name} has the name of another column')
        per_case = any(isinstance(row, list) for row in figures)
        if fault := find_fault(figures, [FIGURES] if per_case else FIGURES, f'scores.figures.{name}'):
            raise UserError(fault)
        rows = figures if per_case else [figures]
        if per_case and len(rows) != cases or any(len(row) != labels for row in rows):
            raise UserError(f'scores.figures.{name} is not of {f"{cases} cases x " * per_case}{labels} labels')
    confusion = scores.get('confusion', [])
    if confusion and len(confusion) < labels or any(len(row) != len(confusion) for row in confusion):
        raise UserError(f'scores.confusion is not of {labels} x {labels} labels')
    if not set(scores['headline']) <= set(range(labels)):
        raise UserError('the headline names labels that are not there')


def record_path(out: Path, run: Run) -> Path:
    return out / 'records' / f'{run.name}.json'


def predictions_path(out: Path, name: str) -> Path:
    """Of the slices that figures show: a dataset's image and label, or a run's prediction of them."""
    return out / 'predictions' / f'{name}.npz'


def write_arrays(path: Path, **arrays) -> None:
    """Write arrays as a compressed .npz, atomically; the same arrays give the same bytes."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomic(path, content.getvalue())


def write_record(out: Path, run: Run, body: dict) -> Path:
    """Write a run's record, atomically."""
    path = record_path(out, run)
    given = dict(fold=run.fold and list(run.fold), config=None if run.cell.without_config else run.config,
                 search=run.search, contrasts=list(run.contrasts))
    record = dict(version=VERSION, run=run.name, identity=run.identity, cell=asdict(run.cell), seed=run.seed,
                  command=run.command(portable=True), **body,
                  **{key: value for key, value in given.items() if value})
    write_atomic(path, _text(record))
    return path


def _text(record: dict) -> str:
    return json.dumps(seal(record), indent=1, allow_nan=False) + '\n'


def describe_result(scores: Scores, index: dict, split: str, trained: str | None = None) -> dict:
    """The body of a record of a dataset's evaluated split, as far as its figures and data tell.

    Every metric is by label and case, or by label where it is of all cases; null where a label has no figure.

    Args:
        split: that was evaluated.
        trained: the split that was trained on; None: not known.
    """
    def rounded(values):
        if np.ndim(values):
            return [rounded(value) for value in values]
        return None if np.isnan(values) else round(float(values), 4)

    named = [name for name in (trained, split) if name]
    # beside parts of splits, which are made of other cases, the splits themselves would mislead
    parts = index['split'] if set(named) <= set(index['split']) else named
    return dict(
        state='done',
        scores=dict(labels=index['labels'], headline=index['headline'], cases=list(scores.cases),
                    figures={name: rounded(values) for name, values in scores.figures.items()})
        | (dict(confusion=scores.confusion.tolist()) if read_fold(split) else {}),
        data=dict(dataset=index['dataset'], split_hash=index['split_hash'], evaluated=split,
                  **(dict(nominal_spacing=True) if index['nominal_spacing'] else
                     dict(nsd_tolerance=list(scores.tolerance))),
                  cases={part: len(split_cases(index, part)) for part in parts})
        | (dict(trained=trained) if trained else {}))


def describe_method(found: ScoredFolder, index: dict, label_maps: Path, made_by: str | None,
                    settings: dict[str, str] | None = None) -> dict:
    """The body of a record of scored label maps, as far as it can be known."""
    return describe_result(found.scores, index, found.split) | dict(
        method=dict(label_maps=str(label_maps), made_by=made_by, missing=found.missing, notes=found.notes)
        | (dict(settings=settings) if settings else {}))


def set_superseded_aside(out: Path, runs: Collection[Run]) -> int:
    """Move records of what used to be these runs, before their config, data or folds changed; returns how many.

    They stay under `out`/superseded, where no table looks, until that is asked for again. A run supersedes what
    else is of its cell and seed, but not the other folds of as many.
    """
    old, current = set(), {record_path(out, run) for run in runs}
    for run in runs:
        whole = name_part(run.cell, run.seed, None)
        beside = [name_part(run.cell, run.seed, (number, run.fold[1])) for number in range(run.fold[1])
                  if number != run.fold[0]] if run.fold else []
        old |= {path for path in (out / 'records').glob(f'{glob.escape(whole)}-*.json')
                if path not in current and path.stem.rpartition('-')[0] not in beside}
    for path in old:
        _move(predictions_path(out, path.stem), out / 'superseded')
        _move(path, out / 'superseded')
    return len(old)


def bring_back(out: Path, runs: Iterable[Run]) -> int:
    """Records that were set aside, and whose config and data are asked for again; returns how many."""
    there = [run for run in runs if not (path := record_path(out, run)).exists()
             and (out / 'superseded' / path.name).exists()]
    for run in there:
        prediction = predictions_path(out, run.name)
        _move(out / 'superseded' / prediction.name, prediction.parent)
        _move(out / 'superseded' / record_path(out, run).name, record_path(out, run).parent)
    return len(there)


def _move(path: Path, folder: Path) -> None:
    if path.exists():
        folder.mkdir(exist_ok=True)
        path.replace(folder / path.name)


def renew_search(out: Path, runs: Iterable[Run]) -> None:
    """Tell the records of finished runs what has chosen the same setting once more, as among more values."""
    for run in runs:
        record = read_record(record_path(out, run))
        if run.search and record and record.get('search') != run.search:
            write_atomic(record_path(out, run), _text(record | dict(search=run.search)))


def read_record(path: Path) -> dict | None:
    """A record, or None where there is none that counts."""
    try:
        return _open(path)
    except (OSError, UnicodeDecodeError, UserError):
        return None


def find_record(folders: Iterable[Path], run: Run) -> dict | None:
    """A run's record in the first of the folders that has one."""
    return next(filter(None, (read_record(record_path(folder, run)) for folder in folders)), None)


def _open(path: Path) -> dict:
    record = open_record(path.read_text())
    if path.stem != record['run']:
        raise UserError(f'named otherwise than its run {record["run"]}')
    return record


def read_object(path: Path) -> dict | None:
    """A JSON file's mapping; None where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_records(folder: Path) -> tuple[list[dict], dict[str, str]]:
    """All records below `folder`/records by file name, and why other files there are left out."""
    records, left_out, divided = {}, {}, {}
    for path in sorted((folder / 'records').glob('*.json')):
        try:
            record = _open(path)
        except (UnicodeDecodeError, UserError) as error:
            left_out[path.name] = str(error)
            continue
        cell, (fold, folds) = Cell(**record['cell']), record.get('fold', (None, None))
        if divided.setdefault(cell, folds) != folds:
            left_out[path.name] = (f'of {describe_folds(folds)}, and another record of this cell is of '
                                   f'{describe_folds(divided[cell])}; keep those of one kind')
        # two would count as two seeds
        elif records.setdefault((cell, record['seed'], fold), record) is not record:
            seed = 'seed and fold' if folds else 'seed'
            left_out[path.name] = f'a second record of this cell and {seed}; keep one'
    return list(records.values()), left_out


def describe_folds(folds: int | None) -> str:
    return f'{folds} folds' if folds else 'the data as it is split'


def write_summary(out: Path, dataset: str, summary: dict) -> None:
    """Write what tables tell of a dataset beside the records, so that they render without the data."""
    write_json(out / 'datasets' / f'{dataset}.json', summary)


def read_summaries(folder: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """What there is below `folder`/datasets, by dataset, and why files that lack what tables need are left out."""
    found, left_out = {}, {}
    for path in sorted((folder / 'datasets').glob('*.json')):
        try:
            summary = read_json(path, 'call run_grid.py again')
            fault = find_fault(summary, SUMMARY)
        except (OSError, UserError) as error:
            fault = str(error).removeprefix(f'{path}: ')
        if fault:
            left_out[path.name] = fault
        else:
            found[path.stem] = summary
    return found, left_out
