"""The runs of a grid, each known by what determines its result, and which of them are still to do."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmseg_plugins.commands import REPO
from mmseg_plugins.datasets.layout_images import prepare_layout
from mmseg_plugins.datasets.splits import Fold, name_fold, split_cases
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import check_splits, places, read_config, training_split
from mmseg_plugins.files import file_sha256
from mmseg_plugins.keys import KEYS, check_size
from mmseg_plugins.models.encoders import timm_encoder
from mmseg_plugins.sources import TIMM, read_note

from ..grid.axes import AXES, Cell
from ..grid.grid import Grid
from .inputs import PREPARED, is_prepared, made_on
from .records import find_record
from .run import OURS, Run, content_hash, module_folders

# Parts of a config that no result depends on: how windows come, what is logged and saved, what a test would be.
UNDETERMINING = re.compile(
    r'(work_dir|experiment_name|launcher|resume|log_level|log_processor|visualizer|vis_backends|custom_imports'
    r'|env_cfg\.(mp_cfg|dist_cfg)|test_(dataloader|cfg|evaluator)|val_dataloader\.batch_size'
    r'|\w+_dataloader\.(num_workers|persistent_workers|pin_memory|prefetch_factor)'
    r'|default_hooks\.(timer|logger|checkpoint|visualization)\.(?!type$)\w+)(\.|$)')


@dataclass(frozen=True)
class SourceJob:
    """A source checkpoint that has to be made: by a config, or of that at `base`, by permuting its entries."""
    name: str
    config: str | None
    options: dict
    out: Path
    digest: str
    steps: int
    needs: str | None  # another source that is made before
    base: Path | None = None


@dataclass
class Agenda:
    """A grid's runs: `todo`, with each one's steps and the embedded sources they need; `failed` before and not
    to be tried again; the rest is finished."""
    grid: Grid
    title: str
    runs: list[Run]
    todo: list[Run]
    failed: list[Run]
    sources: list[SourceJob]
    steps: dict[str, int]

    @property
    def counts(self) -> str:
        failed = f'{len(self.failed)} failed (--retry-failed runs them again), ' if self.failed else ''
        finished = len(self.runs) - len(self.todo) - len(self.failed)
        return f'{len(self.runs)} runs, {finished} finished, {failed}{len(self.todo)} to do'


def make_run(grid: Grid, cell: Cell, seed: int, weights_root: Path, max_iters: int | None,
             fold: Fold | None = None, chosen: Mapping[str, Any] | None = None) -> Run:
    """The config and options of a cell with a seed, on a fold where the grid is cross-validated.

    Args:
        chosen: options of this run alone.
    """
    if cell.without_config:
        return _make_command_run(grid, cell, seed, fold)
    source = None if cell.source == 'none' else str(grid.sources[cell.source].path(weights_root))
    axes = {name: getattr(cell, name) for name in AXES if name not in ('encoder', 'source')}
    options = {'experiment.data_root': str(PREPARED / cell.dataset), 'experiment.source': source,
               **{f'experiment.{name}': value for name, value in axes.items() if value is not None},
               'experiment.seed': seed, **grid.options_of(cell)}
    if fold:
        options |= {'experiment.split': name_fold(fold, others=True), 'experiment.evaluate': name_fold(fold)}
    options |= chosen or {}
    if max_iters is not None:
        options['experiment.steps'] = max_iters
    if cell.encoder.startswith(TIMM):
        options['experiment.encoder'] = cell.encoder.removeprefix(TIMM)
    config = grid.config(cell)
    cfg = read_config(REPO / config, options)
    if cfg.experiment.get('encoder'):
        _check_encoder(cfg.experiment.encoder, check_size(cfg.experiment.img_size), config)
    run = Run(cell, seed, config, options, '', fold,
              source_digest=source and _source_digest(cell.source, grid, weights_root))
    return replace(run, identity=identify(run, cfg))


def identify(run: Run, cfg: Config | None = None) -> str:
    """By what a config's run is known, as config and data are now; `cfg`: what was just read of it."""
    if cfg is None:
        cfg = read_config(REPO / run.config, run.options)
    data = _prepared_digest(run.cell.dataset, training_split(cfg.experiment), cfg.experiment.get('evaluate'),
                            cfg=cfg)
    return content_hash([determinants(cfg), data, run.source_digest])


def _make_command_run(grid: Grid, cell: Cell, seed: int, fold: Fold | None) -> Run:
    """A command with a seed. What it calls is not looked into: who changes that says so in the command."""
    command = grid.configs[cell.encoder].get('command')
    if not command:
        raise UserError(f'{cell.encoder}: has no command that could be run; score its label maps with '
                        'tools/score.py')
    split = grid.options.get('experiment.split')
    if not fold and split not in (None, 'train'):
        raise UserError(f'grid {grid.name}: options.experiment.split={split!r}: a command like {cell.encoder} is '
                        'given the splits as they are; leave it out, or leave out rows of commands')
    evaluate = name_fold(fold) if fold else grid.options.get('experiment.evaluate')  # as the configs beside it
    options = {'custom_imports.imports': grid.options.get('custom_imports.imports', []),  # metrics, perhaps
               'experiment.evaluate': evaluate}
    own = _own_modules(options['custom_imports.imports'])
    return Run(cell, seed, command, options, content_hash(
        [command, seed, _prepared_digest(cell.dataset, evaluate), *([evaluate] if evaluate else []),
         *([own] if own else [])]), fold)


def determinants(cfg) -> dict[str, Any]:
    """What of a config determines a result, by place. A user's modules count by what they say."""
    found = {place: value for place, value in places(cfg) if not UNDETERMINING.match(place)}
    for name, key in KEYS.items():  # what is as usual is as if left out
        if not key.determines or cfg.experiment.get(name) in (None, key.usual):
            found.pop(f'experiment.{name}', None)
    return found | _own_modules((cfg.get('custom_imports') or {}).get('imports') or ())


def _own_modules(imports: str | Sequence[str]) -> dict[str, str]:
    """sha256 of the user's modules among these, of their packages, and of what they import from beside them."""
    waiting = [imports] if isinstance(imports, str) else [*imports]
    folders, found = module_folders(waiting), {}
    while waiting:
        name = waiting.pop().split('.')[0]
        for folder in folders if name not in OURS else ():
            for file in [*folder.glob(f'{name}.py'), *sorted((folder / name).rglob('*.py'))]:
                if (place := str(file.relative_to(folder))) not in found:
                    found[place] = file_sha256(file)
                    for node in ast.walk(ast.parse(file.read_bytes())):
                        waiting += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                        waiting += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
    return found


@cache
def _check_encoder(name: str, img_size: int | tuple[int, int], config: str) -> None:
    """A timm model is found out about before anything is run, once."""
    cfg = read_config(REPO / config)
    try:
        timm_encoder(name, img_size, cfg.model)
    except UserError as error:
        raise UserError(f'encoder {TIMM}{name}: {error}') from None


def _prepared_digest(dataset: str, *splits: str | None, cfg=None) -> str | None:
    """Hash of a dataset that a run is to be on, which must have its splits, with cases in them for a config.

    None: not prepared.
    """
    if not is_prepared(dataset):
        return None
    index = read_index(PREPARED / dataset)
    if cfg:
        check_splits(cfg, index)
    return data_digest(index, *splits)


def data_digest(index: dict, *splits: str | None) -> str:
    """Hash of what of a prepared dataset determines a result; an index may say more.

    Args:
        splits: that a run is on. Parts of splits count by their cases, as these also depend on who is one patient,
            and on folds that came with the data.

    Raises:
        UserError: there is no such split.
    """
    rules = [index[key] for key in ('labels', 'channels', 'headline', 'intensity', 'evaluate', 'split',
                                    'nsd_tolerance')] + ['nominal_spacing'] * index.get('nominal_spacing', False)
    # a config's were checked before, so that what is not there is what a command is to be evaluated on
    named = [(split, split_cases(index, split, 'experiment.evaluate')) for split in splits if split]
    parts = [cases for split, cases in named if ':' in split]
    return content_hash([rules, {case: [entry[key] for key in ('shape', 'spacing', 'sha256')]
                                 for case, entry in index['cases'].items()}, *parts])


def _source_digest(name: str, grid: Grid, weights_root: Path) -> str:
    """Hash of what a source is made from, or of a published file's bytes."""
    source = grid.sources[name]
    if source.permuted:
        return content_hash(['permuted', _source_digest(source.needs, grid, weights_root)])
    if source.made_by:
        cfg = read_config(REPO / source.made_by)
        before = source.needs and _source_digest(source.needs, grid, weights_root)
        data = Path(cfg.experiment.data_root).name
        ours = data in ('layout', 'phantom')  # made from a seed, the same everywhere
        own = [read_index(PREPARED / data)['split_hash']] if not ours and is_prepared(data) else []
        return content_hash([determinants(cfg), data, before, *own])
    path = source.path(weights_root)
    return file_sha256(path) if path.is_file() else 'missing'


def list_runs(grid: Grid, weights_root: Path, max_iters: int | None,
              choices: Mapping[tuple[Cell, Fold | None], dict] | None = None) -> list[Run]:
    """All runs of a grid.

    Args:
        choices: what a search chose (search.py); what it knows nothing of runs as its config says.
    """
    runs = []
    for cell in grid.cells_to_run():
        for seed, fold in grid.seeds_and_folds:
            found = (choices or {}).get((cell, fold))
            run = make_run(grid, cell, seed, weights_root, max_iters, fold, found and found['chosen'])
            runs.append(replace(run, search=found, contrasts=grid.contrast_keys(cell)))
    return runs


def make_agenda(grid: Grid, runs: list[Run], weights_root: Path, folders: Sequence[Path], retry_failed: bool,
                what: str = '') -> Agenda:
    """Which of a grid's runs are still to do, and the embedded sources that these need.

    Args:
        folders: each with records; the first that has a run's counts.
        what: the runs are, behind the grid's title.
    """
    states = {run.name: (find_record(folders, run) or {}).get('state') for run in runs}
    failed = [run for run in runs if states[run.name] == 'failed' and not retry_failed]
    todo = [run for run in runs if states[run.name] != 'done' and run not in failed]
    sources: dict[str, SourceJob] = {}
    for name in sorted({run.cell.source for run in todo} - {'none', None}):
        _add_source_jobs(name, grid, weights_root, sources)
    steps = {run.name: 1 if run.cell.without_config else
             read_config(REPO / run.config, run.options).experiment.steps for run in todo}
    return Agenda(grid, grid.title + what, runs, todo, failed, list(sources.values()), steps)


def _add_source_jobs(name: str, grid: Grid, weights_root: Path, jobs: dict[str, SourceJob]) -> None:
    """The making of a source that is not published, after that of the source it starts from."""
    source = grid.sources[name]
    if not (source.made_by or source.permuted) or name in jobs:
        return
    out, digest = source.path(weights_root), _source_digest(name, grid, weights_root)
    if read_note(out).get('digest') == digest:
        return
    if source.needs:
        _add_source_jobs(source.needs, grid, weights_root, jobs)
    before = source.needs if source.needs in jobs else None
    if source.permuted:
        base = grid.sources[source.needs].path(weights_root)
        jobs[name] = SourceJob(name, None, {}, out, digest, 1, before, base)
        return
    options = {'experiment.data_root': str(PREPARED / made_on(source))}
    if source.needs:
        options['experiment.source'] = str(grid.sources[source.needs].path(weights_root))
    steps = read_config(REPO / source.made_by).experiment.steps
    jobs[name] = SourceJob(name, source.made_by, options, out, digest, steps, before)


def prepare_sources(agenda: Agenda) -> None:
    """Draw the procedural images that some of the agenda's sources are made from."""
    folder = PREPARED / 'layout'
    if any(source.options.get('experiment.data_root') == str(folder) for source in agenda.sources):
        prepare_layout(folder)
