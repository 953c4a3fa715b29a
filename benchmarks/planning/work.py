"""A grid's runs and sources as work to be timed: of which kind, how many steps, windows and checkpoints."""

import inspect
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from mmseg_plugins.building import build_model
from mmseg_plugins.datasets.catalogue import CATALOGUE
from mmseg_plugins.datasets.layout_images import SLOTS, prepare_layout
from mmseg_plugins.datasets.phantom import make_phantom
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.experiment import load_model_config
from mmseg_plugins.flops import count_cost

from ..grid.reader import Grid
from ..paper.published import published_data
from ..plan import REPO, Plan
from ..runs.records import read_record, record_path
from ..runs.run import Run, describe_kind, identity

STORED = 0.36  # of a case's bytes, compressed (benchmarks/speed/loader.md)
# What changes nothing of a step's cost.
FREE = {f'experiment.{key}' for key in ('seed', 'source', 'inflation', 'stride', 'lr')}


@dataclass(frozen=True)
class DataFacts:
    """What a plan needs to know of a dataset.

    Args:
        labels: K with background.
        evaluate: the split that results are reported on.
        slices: by split.
        stored: bytes of the prepared store.
        size: (H, W) of its slices in pixels, and `assumed` where all this comes from, if it is not prepared.
    """
    labels: int
    channels: int
    evaluate: str
    slices: dict[str, int]
    stored: int
    size: tuple[int, int] = (0, 0)
    assumed: str = ''


def data_facts(folder: Path) -> DataFacts:
    """Of a prepared dataset, or what is published of one that is not prepared yet."""
    if (folder / 'index.json').is_file():
        index = read_index(folder)
        slices = {part: sum(index['cases'][case]['shape'][0] for case in cases)
                  for part, cases in index['split'].items()}
        stored = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
        return DataFacts(len(index['labels']), index['channels'], index['evaluate'], slices, stored)
    name, made = folder.name, _defaults(prepare_layout if folder.name == 'layout' else make_phantom)
    if name == 'layout':
        cases, depth, size, source = dict(train=1, val=1), made['count'], [made['size']] * 2, 'as it will be made'
        labels, channels, evaluate = SLOTS + 1, 3, 'val'
    else:
        info = CATALOGUE[name]
        labels, channels, evaluate = len(info.labels or '01'), len(info.channels or '0'), info.evaluate
        if name in published_data().index:
            row, source = published_data().loc[name], "the paper's Table 1"
            *size, depth = map(int, row['raw size'].split('x'))
            cases = {part: int(row[part]) for part in ('train', 'val', 'test')}
        elif name == 'phantom':
            cases = {part: len(numbers) for part, numbers in info.split.items()}
            depth, size, source = made['depth'], [made['size']] * 2, 'as it will be made'
        else:
            source = 'nothing known of its cases: no evaluation and no store counted'
            cases, depth, size = {}, 0, [info.input_size] * 2
    slices = {part: number * depth for part, number in cases.items()}
    stored = sum(slices.values()) * math.prod(size) * (2 * channels + 1) * STORED
    return DataFacts(labels, channels, evaluate, slices, round(stored), tuple(size), source)


def _defaults(function) -> dict:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


class Kind:
    """Runs whose steps cost the same: config and options of one of them, what it trains and on what."""

    def __init__(self, config: str, options: dict, title: str):
        self.cfg, _ = load_model_config(REPO / config, options)
        self.experiment = self.cfg.experiment
        self.folder = Path(self.experiment.data_root)
        self.data = data_facts(self.folder)
        self.cfg.model.backbone.channels = self.data.channels
        if 'decode_head' in self.cfg.model:
            self.cfg.model.decode_head.num_classes = self.data.labels
        self.what = describe_kind(title, self.experiment, self.data.labels)

    @cached_property
    def counts(self) -> tuple[int, int] | None:
        """Parameters, and FLOPs of a window; None for pre-training without labels."""
        if 'decode_head' not in self.cfg.model:
            return None
        with torch.device('meta'):
            model = build_model(self.cfg)
        size = self.experiment.img_size
        costs = count_cost(model, (size, size) if isinstance(size, int) else size).values()
        return sum(cost.parameters for cost in costs), sum(cost.flops for cost in costs)


@dataclass(frozen=True)
class Work:
    """A run, or without one the making of a source; `needs` names what must be there before."""
    name: str
    kind: Kind
    run: Run | None = None
    needs: str | None = None

    @property
    def steps(self) -> int:
        return self.kind.experiment.steps

    @property
    def windows(self) -> int:
        """Of all its evaluations, of which a source has one more at its end."""
        experiment, data = self.kind.experiment, self.kind.data
        if not self.kind.cfg.val_dataloader:
            return 0
        times = self.steps // (experiment.get('val_interval') or self.steps) + (self.run is None)
        return times * data.slices.get(experiment.get('evaluate') or data.evaluate, 0)

    @property
    def checkpoints(self) -> int:
        return math.ceil(self.steps / self.kind.experiment.checkpoint_interval)


@dataclass(frozen=True)
class GridWork:
    """A grid's work that is still `to_do`, sources included, and what is `finished` with its record."""
    grid: Grid
    plan: Plan
    to_do: list[Work]
    finished: list[tuple[Work, dict]]

    def kinds(self) -> dict[tuple, tuple[Grid, Work]]:
        """Of every kind of runs, finished or not, one."""
        runs = [work for work in [*self.to_do, *(work for work, _ in self.finished)] if work.run]
        return {(work.kind.what, work.kind.counts): (self.grid, work) for work in reversed(runs)}


def grid_work(grid: Grid, plan: Plan, out: Path) -> GridWork:
    kinds: dict[str, Kind] = {}

    def kind(config: str, options: dict, title: str) -> Kind:
        key = identity([config, {key: value for key, value in options.items() if key not in FREE}])
        if key not in kinds:
            kinds[key] = Kind(config, options, title)
        return kinds[key]

    to_do = [Work(f'source {source.name}', kind(source.config, source.options, f'source {source.name}'),
                  needs=source.needs and f'source {source.needs}') for source in plan.sources]
    finished, waiting = [], {run.name for run in plan.todo}
    for run in plan.runs:
        if run.cell.is_method or run in plan.failed:
            continue  # a method alone knows how long it takes
        work = Work(run.name, kind(run.config, run.options, run.title), run, f'source {run.cell.source}')
        if run.name in waiting:
            to_do.append(work)
        else:
            finished.append((work, read_record(record_path(out, run))))
    return GridWork(grid, plan, to_do, finished)
