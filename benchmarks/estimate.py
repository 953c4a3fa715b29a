"""How long a grid will take, and how much disk and memory: from what its steps took on a device.

Runs whose steps cost the same are of one class (model, window, input size, batch, labels, loading). A class that
was not measured on the device is scaled from the one nearest in FLOPs that was.
"""

import heapq
import inspect
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import median

import torch

from mmseg_plugins.building import build_model
from mmseg_plugins.datasets.catalogue import CATALOGUE
from mmseg_plugins.datasets.layout_images import SLOTS, prepare_layout
from mmseg_plugins.datasets.phantom import make_phantom
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.experiment import load_model_config
from mmseg_plugins.flops import count_cost

from .cells import Grid, load_grid
from .devices import PUBLISHED, Device, Measurement, published_device, read_device
from .plan import REPO, Plan, make_run
from .records import identity, read_record, record_path
from .rendering.published import published_data

WEIGHT_BYTES = 4
STATE = 4  # weights, gradients and AdamW's two moments
STORED = 0.36  # of a case's bytes, compressed (benchmarks/speed/loader.md)


@dataclass(frozen=True)
class DataFacts:
    """What an estimate needs to know of a dataset.

    Args:
        labels: K with background.
        size: (H, W) of its slices.
        depth: mean slices of a case.
        cases, slices: by split.
        stored: bytes of the prepared store.
        assumed: where this comes from, if not from prepared data.
    """
    labels: int
    channels: int
    size: tuple[int, int]
    depth: float
    evaluate: str
    cases: dict[str, int]
    slices: dict[str, int]
    stored: int
    assumed: str = ''


@cache
def data_facts(folder: Path) -> DataFacts:
    """Of a prepared dataset, or what is published of one that is not prepared yet."""
    name = folder.name
    if (folder / 'index.json').is_file():
        index = read_index(folder)
        shapes = {case: entry['shape'] for case, entry in index['cases'].items()}
        slices = {part: sum(shapes[case][0] for case in cases) for part, cases in index['split'].items()}
        depths, _, heights, widths = zip(*shapes.values(), strict=True)
        stored = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
        return DataFacts(len(index['labels']), index['channels'], (round(median(heights)), round(median(widths))),
                         sum(depths) / len(depths), index['evaluate'],
                         {part: len(cases) for part, cases in index['split'].items()}, slices, stored)
    if name == 'layout':
        made = _defaults(prepare_layout)
        labels, channels, evaluate, size = SLOTS + 1, 3, 'val', (made['size'],) * 2
        depth, cases, source = made['count'], dict(train=1, val=1), 'as it will be made'
    else:
        info = CATALOGUE[name]
        labels, channels, evaluate = len(info.labels or '01'), len(info.channels or '0'), info.evaluate
        if name in published_data().index:
            row, source = published_data().loc[name], "the paper's Table 1"
            *size, depth = map(int, row['raw size'].split('x'))
            cases = {part: int(row[part]) for part in ('train', 'val', 'test')}
        elif name == 'phantom':
            made, source = _defaults(make_phantom), 'as it will be made'
            depth, size = made['depth'], (made['size'],) * 2
            cases = {part: len(numbers) for part, numbers in info.split.items()}
        else:
            source = 'nothing known of its cases: no evaluation and no store counted'
            depth, size, cases = 0, (info.input_size,) * 2, {evaluate: 0}
    voxels = sum(cases.values()) * depth * math.prod(size)
    return DataFacts(labels, channels, tuple(size), depth, evaluate, cases,
                     {part: number * depth for part, number in cases.items()},
                     round(voxels * (2 * channels + 1) * STORED), source)


def _defaults(function) -> dict:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


class CostClass:
    """All runs whose steps cost the same.

    Args:
        config, options: of one of them.
        title: what it trains and on what, in a few words.
    """

    def __init__(self, config: str, options: dict, title: str):
        self.config, self.options = config, options
        self.cfg, _ = load_model_config(REPO / config, options)
        self.experiment = self.cfg.experiment
        self.folder = Path(self.experiment.data_root)
        self.data = data_facts(self.folder)
        self.cfg.model.backbone.channels = self.data.channels
        if 'decode_head' in self.cfg.model:
            self.cfg.model.decode_head.num_classes = self.data.labels
        size = self.experiment.img_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        target = ' to all' if self.experiment.target == 'all' else ''
        self.what = (f'{title}, {"x".join(map(str, (self.experiment.slices, *self.size)))}{target}, '
                     f'{self.data.labels} labels, batch {self.experiment.batch}')

    @cached_property
    def digest(self) -> str:
        """Hash of what a step's cost depends on."""
        cfg, experiment = self.cfg.to_dict(), self.experiment
        model = cfg['model']
        for key in ('source', 'inflation'):
            model['backbone'].pop(key, None)
        for key in ('steps', 'accumulate'):  # schedules of pre-training without labels
            model.pop(key, None)
        loading = [[loader['batch_size'], loader['num_workers'], loader['dataset'].get('pipeline')]
                   for loader in (cfg['train_dataloader'], cfg['val_dataloader']) if loader]
        optimizer = cfg['optim_wrapper']
        return identity([model, loading, self.size, experiment.batch, experiment.accumulate, experiment.slices,
                         experiment.target, optimizer['type'], optimizer.get('dtype'),
                         optimizer['optimizer']['type']])

    @cached_property
    def counts(self) -> tuple[int, int, int] | None:
        """Parameters, and FLOPs and activations of a window; None for pre-training without labels."""
        if 'decode_head' not in self.cfg.model:
            return None
        with torch.device('meta'):
            model = build_model(self.cfg)
        costs = count_cost(model, self.size).values()
        return tuple(sum(getattr(cost, key) for cost in costs)
                     for key in ('parameters', 'flops', 'activations'))


@dataclass(frozen=True)
class Work:
    """A run, or the making of a source, as work to be timed.

    Args:
        name: unique; `needs` are names of what must be there before.
        steps, evaluations, saves: how often.
        windows, voxels: of one evaluation.
    """
    name: str
    cost: CostClass
    steps: int
    evaluations: int
    windows: int
    voxels: int
    saves: int
    needs: frozenset = frozenset()


def make_work(name: str, cost: CostClass, needs: Collection[str] = (), source: bool = False) -> Work:
    """Count what a run of this class does; a source's pre-training evaluates once more at its end."""
    experiment, steps = cost.experiment, cost.experiment.steps
    part = experiment.get('evaluate') or cost.data.evaluate
    evaluations = steps // (experiment.get('val_interval') or steps) + source if cost.cfg.val_dataloader else 0
    slices = cost.data.slices.get(part, 0)
    return Work(name, cost, steps, evaluations, slices, slices * math.prod(cost.data.size),
                math.ceil(steps / experiment.checkpoint_interval), frozenset(needs))


@dataclass(frozen=True)
class Estimate:
    """Of one Work on a device; `scaled` from another class's measurement, None where its own is known."""
    work: Work
    measurement: Measurement
    scaled: Measurement | None = None

    @property
    def seconds(self) -> float:
        work, entry = self.work, self.measurement
        evaluation = work.windows * entry.window + work.voxels / 1e6 * entry.surface
        return entry.start + work.steps * entry.step + work.evaluations * evaluation + work.saves * entry.save


def estimate(work: Work, device: Device) -> Estimate | None:
    """None: neither measured nor to be scaled."""
    entry = device.classes.get(work.cost.digest)
    if entry:
        return Estimate(work, entry)
    if work.cost.counts is None:
        return None
    parameters, flops, activations = work.cost.counts
    windows = work.cost.experiment.batch
    known = [entry for entry in device.classes.values() if entry.flops]
    if not known:
        return None
    nearest = min(known, key=lambda entry: abs(math.log(flops * windows / (entry.flops * entry.windows))))
    scaled = scale(nearest, work.cost.what, windows, windows // work.cost.experiment.accumulate, parameters, flops,
                   activations)
    return Estimate(work, scaled, nearest)


def scale(entry: Measurement, what: str, windows: int, forward: int, parameters: int, flops: int, activations: int
          ) -> Measurement:
    """A measurement as that of another class: times by FLOPs, memory by parameters and activations."""
    window = flops / entry.flops
    checkpoint = round(entry.checkpoint * parameters / entry.parameters) if entry.checkpoint else None
    peak = None
    if entry.peak is not None:
        state = STATE * WEIGHT_BYTES / 2**20
        passing = max(entry.peak - state * entry.parameters, 0) / (entry.activations * entry.forward)
        peak = state * parameters + passing * activations * forward
    return replace(entry, what=what, windows=windows, forward=forward, parameters=parameters, flops=flops,
                   activations=activations, step=entry.step * window * windows / entry.windows,
                   window=entry.window * window, save=entry.save * parameters / entry.parameters,
                   checkpoint=checkpoint, peak=peak)


def schedule(seconds: dict[str, float], needs: dict[str, Collection[str]], slots: int) -> float:
    """Seconds until all is done on `slots` workers, each free one taking the longest work that can start.

    What others need goes first, as the grid's runner has it.

    Args:
        seconds: by name.
        needs: names that must be done before; others are taken to be there.
    """
    before = {name: {need for need in needs.get(name, ()) if need in seconds} for name in seconds}
    needed = set().union(*before.values()) if before else set()
    waiting = sorted(seconds, key=lambda name: (name not in needed, -seconds[name]))
    running, done, now = [], set(), 0.0
    while waiting or running:
        ready = [name for name in waiting if before[name] <= done]
        for name in ready[:slots - len(running)]:
            waiting.remove(name)
            heapq.heappush(running, (now + seconds[name], name))
        now, name = heapq.heappop(running)
        done.add(name)
    return now


@dataclass(frozen=True)
class GridWork:
    """A grid's runs as work: those `to_do`, sources included, and those `finished` with their record."""
    grid: Grid
    plan: Plan
    to_do: list[Work]
    finished: list[tuple[Work, dict]]

    @property
    def costs(self) -> dict[str, CostClass]:
        """Classes of all its work by digest."""
        return {work.cost.digest: work.cost for work in [*self.to_do, *(work for work, _ in self.finished)]}


def grid_work(grid: Grid, plan: Plan, out: Path) -> GridWork:
    classes: dict[str, CostClass] = {}

    def classify(config: str, options: dict, title: str) -> CostClass:
        free = {key: value for key, value in options.items()
                if key not in ('experiment.seed', 'experiment.source', 'experiment.inflation', 'experiment.lr')}
        key = identity([config, free])
        if key not in classes:
            classes[key] = CostClass(config, options, title)
        return classes[key]

    def source_name(name: str) -> str:
        return f'source {grid.sources[name].file}'

    to_do, finished, made = [], [], {source.name for source in plan.sources}
    for source in plan.sources:
        cost = classify(source.config, source.options, f'source {source.name}')
        needs = [source_name(source.needs)] if source.needs else []
        to_do.append(make_work(source_name(source.name), cost, needs, source=True))
    waiting = {run.name for run in plan.todo}
    for run in plan.runs:
        if run.cell.is_method:
            continue  # it alone knows how long it takes
        cost = classify(run.config, run.options, f'{run.cell.dataset} {run.cell.encoder}')
        work = make_work(run.name, cost, [source_name(run.cell.source)] if run.cell.source in made else [])
        if run.name in waiting:
            to_do.append(work)
        else:
            finished.append((work, read_record(record_path(out, run))))
    return GridWork(grid, plan, to_do, finished)


def choose_device(name: str, calibrate: str, folder: Path | None = None) -> Device:
    """A calibrated device, or the paper's.

    Raises:
        UserError: there is no calibration of it.
    """
    if name != PUBLISHED:
        return read_device(name, calibrate, folder)
    grid = load_grid('bcv', ['2a'])
    run = make_run(grid, grid.tables['2a']['Ours'], 0, Path('weights'), None)
    cost = CostClass(run.config, run.options, f'{run.cell.dataset} {run.cell.encoder}')
    return published_device(cost.digest, cost.what, cost.counts)
