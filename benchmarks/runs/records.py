"""Records: the one JSON file that a finished or failed run leaves, and how it is found again."""

import glob
import hashlib
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmseg_plugins.commands import REPO, command
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation import Scores
from mmseg_plugins.evaluation.folder import ScoredFolder
from mmseg_plugins.files import write_atomic, write_json
from mmseg_plugins.options import format_value
from mmseg_plugins.untrusted import find_fault, read_json

from ..axes import Cell
from .schema import SUMMARY, VERSION, open_record, seal


@dataclass(frozen=True)
class Run:
    """A cell with a seed, and all that makes it: config (of a method, its command), options, identity."""
    cell: Cell
    seed: int
    config: str
    options: dict[str, Any]
    identity: str

    @property
    def name(self) -> str:
        return f'{self.cell}-seed{self.seed}-{self.identity}'

    @property
    def title(self) -> str:
        """What is trained, and on what, in plans."""
        return f'{self.cell.dataset} {self.cell.encoder}'

    def command(self, portable: bool = False) -> str:
        """What repeats this run alone: from any folder here or, portable, from the repository's root elsewhere."""
        if self.cell.is_method:
            return self.config
        places = {'experiment.data_root', 'experiment.source'}
        options = [(key, Path(value) if key in places and value else format_value(key, value))
                   for key, value in self.options.items()]
        return command('tools/train.py', REPO / self.config, '--work-dir', Path('work_dirs') / self.name,
                       '--cfg-options', *options, modules=_module_folders(self.options), portable=portable)


def _module_folders(options: dict[str, Any]) -> list[Path]:
    """Where Python finds the user's own modules that a run imports."""
    names = {name.split('.')[0] for name in options.get('custom_imports.imports', ())} - {'mmseg_plugins'}
    files = [Path(sys.modules[name].__file__) for name in sorted(names)]
    return [file.parents[1] if file.name == '__init__.py' else file.parent for file in files]


def identity(determinants: Any) -> str:
    """Hash of what determines a run's result."""
    canonical = json.dumps(determinants, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


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
    path, config = record_path(out, run), {} if run.cell.is_method else dict(config=run.config)
    record = dict(version=VERSION, run=run.name, identity=run.identity, cell=asdict(run.cell), seed=run.seed,
                  command=run.command(portable=True), **config, **body)
    write_atomic(path, json.dumps(seal(record), indent=1, allow_nan=False) + '\n')
    return path


def describe_scores(scores: Scores, index: dict) -> dict:
    """Every metric by label and case, or by label where it is of all cases; null where a label has no figure."""
    def rounded(values):
        if np.ndim(values):
            return [rounded(value) for value in values]
        return None if np.isnan(values) else round(float(values), 4)

    return dict(labels=index['labels'], headline=index['headline'], cases=list(scores.cases),
                figures={name: rounded(values) for name, values in scores.figures.items()})


def describe_method(found: ScoredFolder, index: dict, label_maps: Path, made_by: str | None) -> dict:
    """The body of a record of scored label maps, as far as it can be known."""
    return dict(
        state='done', scores=describe_scores(found.scores, index),
        method=dict(label_maps=str(label_maps), made_by=made_by, missing=found.missing, notes=found.notes),
        data=dict(dataset=index['dataset'], split_hash=index['split_hash'], evaluated=found.split,
                  cases={part: len(cases) for part, cases in index['split'].items()}))


def set_superseded_aside(out: Path, runs: Iterable[Run]) -> int:
    """Move records of what used to be these runs, before their config or data changed; returns how many.

    They stay under `out`/superseded, where no table looks.
    """
    moved = 0
    for run in runs:
        for path in (out / 'records').glob(f'{glob.escape(f"{run.cell}-seed{run.seed}")}-*.json'):
            if path != record_path(out, run):
                (out / 'superseded').mkdir(exist_ok=True)
                path.replace(out / 'superseded' / path.name)
                predictions_path(out, path.stem).unlink(missing_ok=True)
                moved += 1
    return moved


def read_record(path: Path) -> dict | None:
    """A record, or None where there is none that counts."""
    try:
        return _open(path)
    except (OSError, UnicodeDecodeError, UserError):
        return None


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
    records, left_out = {}, {}
    for path in sorted((folder / 'records').glob('*.json')):
        try:
            record = _open(path)
        except (UnicodeDecodeError, UserError) as error:
            left_out[path.name] = str(error)
            continue
        # two would count as two seeds
        if records.setdefault((Cell(**record['cell']), record['seed']), record) is not record:
            left_out[path.name] = 'a second record of this cell and seed; keep one'
    return list(records.values()), left_out


def write_summary(out: Path, dataset: str, summary: dict) -> None:
    """Write what tables tell of a dataset beside the records, so that they render without the data."""
    write_json(out / 'datasets' / f'{dataset}.json', summary)


def read_summaries(folder: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """What there is below `folder`/datasets, by dataset, and why files that lack what tables need are left out."""
    found, left_out = {}, {}
    for path in sorted((folder / 'datasets').glob('*.json')):
        try:
            summary = read_json(path, 'call run_grid.py again')
        except (OSError, UserError) as error:
            left_out[path.name] = str(error).removeprefix(f'{path}: ')
            continue
        if fault := find_fault(summary, SUMMARY):
            left_out[path.name] = fault
        else:
            found[path.stem] = summary
    return found, left_out
