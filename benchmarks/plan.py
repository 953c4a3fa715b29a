"""What a grid needs before it can run, and which of its runs are still to do."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mmseg_plugins.datasets.catalogue import dataset_info
from mmseg_plugins.datasets.layout_images import prepare_layout
from mmseg_plugins.datasets.layouts import find_cases
from mmseg_plugins.datasets.phantom import write_phantom
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import read_config

from .cells import Cell, Grid
from .records import Run, identity, read_record, record_path

REPO = Path(__file__).parents[1]
PREPARED = Path('data/prepared')


@dataclass(frozen=True)
class SourceJob:
    """An embedded source checkpoint that has to be made."""
    name: str
    config: str
    options: dict
    out: Path
    digest: str
    steps: int


@dataclass
class Plan:
    grid: Grid
    runs: list[Run]
    todo: list[Run]
    sources: list[SourceJob]
    steps: dict[str, int]

    @property
    def finished(self) -> int:
        return len(self.runs) - len(self.todo)


def prepare_inputs(grid: Grid, data_root: Path, weights_root: Path, progress) -> None:
    """Prepare the grid's dataset where that is still to do, and check that its sources are there.

    Raises:
        UserError: an archive or a checkpoint is missing: what to fetch and where to put it.
    """
    info, folder = dataset_info(grid.dataset), PREPARED / grid.dataset
    raw = data_root / info.folder
    if grid.dataset == 'phantom':
        raw = PREPARED.parent / 'phantom'
        write_phantom(raw, progress=progress.counter('drawing the phantom'))
    prepared = (folder / 'index.json').exists()
    if not prepared:
        find_cases(info, raw)
    wanted = [grid.sources[name] for name in sorted({cell.source for cell in grid.cells()} - {'none'})]
    files = [weights_root / source['file'] for source in wanted if 'made_by' not in source]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise UserError(f'source checkpoints not found: {", ".join(missing)}; download them from their authors '
                        'and put them there (README, "Sources")')
    if not prepared or raw.exists():
        result = prepare_dataset(grid.dataset, raw, folder, progress.counter(f'preparing {grid.dataset}'))
        for fault in result.faults:
            progress.say(fault)
        if result.faults:
            raise UserError(f'{raw}: {len(result.faults)} bad cases of {grid.dataset} (above); mend or remove '
                            'them, or prepare without them: tools/prepare_data.py')


def make_run(grid: Grid, cell: Cell, seed: int, weights_root: Path, max_iters: int | None) -> Run:
    """The config and options of a cell with a seed."""
    source = None if cell.source == 'none' else str(weights_root / grid.sources[cell.source]['file'])
    options = {'experiment.data_root': str(PREPARED / cell.dataset), 'experiment.source': source,
               'experiment.inflation': cell.inflation, 'experiment.slices': cell.slices,
               'experiment.stride': cell.stride, 'experiment.target': cell.target, 'experiment.seed': seed,
               **({} if cell.lr is None else {'experiment.lr': cell.lr}),
               **({} if max_iters is None else {'experiment.steps': max_iters}), **grid.options}
    config = grid.configs[cell.encoder]
    cfg = read_config(REPO / config, options)
    folder = PREPARED / cell.dataset
    data = data_digest(folder) if (folder / 'index.json').exists() else None
    source_digest = source and _source_digest(grid.sources[cell.source], weights_root)
    return Run(cell, seed, config, options, identity([_content(cfg), data, source_digest]))


def _content(cfg) -> dict:
    """A config without what says where things are rather than what they are."""
    content = cfg.to_dict()
    content['experiment'] = {key: value for key, value in content['experiment'].items()
                             if key not in ('data_root', 'source', 'checkpoint_interval')}
    for key in ('log_level', 'log_processor', 'default_hooks', 'visualizer', 'vis_backends', 'custom_imports'):
        content.pop(key, None)
    return content


def data_digest(folder: Path) -> str:
    """Hash of a prepared dataset's labels, split, ranges and the shape of every case."""
    return identity(read_index(folder))


def _source_digest(source: dict, weights_root: Path) -> str:
    if 'made_by' in source:
        return identity([_content(read_config(REPO / source['made_by']))])
    path = weights_root / source['file']
    if not path.is_file():
        return 'missing'
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def plan_runs(grid: Grid, weights_root: Path, out: Path, max_iters: int | None, retry_failed: bool) -> Plan:
    """All runs of the grid, those still to do, and the embedded sources these need."""
    runs = [make_run(grid, cell, seed, weights_root, max_iters) for cell in grid.cells() for seed in grid.seeds]
    todo = []
    for run in runs:
        record = read_record(record_path(out, run))
        if record is None or (record['state'] == 'failed' and retry_failed):
            todo.append(run)
    sources = [job for name in sorted({run.cell.source for run in todo} - {'none'})
               if (job := _source_job(name, grid.sources[name], weights_root))]
    steps = {run.name: read_config(REPO / run.config, run.options).experiment.steps for run in todo}
    return Plan(grid, runs, todo, sources, steps)


def _source_job(name: str, source: dict, weights_root: Path) -> SourceJob | None:
    if 'made_by' not in source:
        return None
    out, digest = weights_root / source['file'], _source_digest(source, weights_root)
    if out.is_file() and _made_from(out.with_suffix('.json')) == digest:
        return None
    folder = PREPARED / 'layout'
    prepare_layout(folder)
    cfg = read_config(REPO / source['made_by'])
    return SourceJob(name, source['made_by'], {'experiment.data_root': str(folder)}, out, digest,
                     cfg.experiment.steps)


def _made_from(note: Path) -> str | None:
    try:
        return json.loads(note.read_text())['digest']
    except (OSError, ValueError, KeyError):
        return None


