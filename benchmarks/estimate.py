"""How long a grid will take, and how much disk and memory: from what its steps took on a device.

Runs whose steps cost the same are of one class (model, window, input size, batch, labels, loading). A class that
was not measured on the device is scaled from the one nearest in FLOPs that was.
"""

import heapq
import inspect
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import median

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from rich import box
from rich.console import Console
from rich.table import Table

from mmseg_plugins.datasets.catalogue import CATALOGUE
from mmseg_plugins.datasets.layout_images import SLOTS, prepare_layout
from mmseg_plugins.datasets.phantom import make_phantom
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.experiment import load_model_config
from mmseg_plugins.flops import count_cost
from mmseg_plugins.training import KEPT

from .cells import Grid, load_grid
from .devices import PUBLISHED, Device, Measurement, published_device, read_device
from .plan import REPO, Plan, make_run
from .records import identity, read_record, record_path
from .rendering.published import published_data

DEVICES = (1, 8, 64)
FAR = 30  # times the FLOPs, or a part of them, beyond which scaling tells nothing
BUSY = 0.9  # share of its cores that a worker on a quiet CPU has, at least
WEIGHT_BYTES = 4
STATE = 4  # weights, gradients and AdamW's two moments
STORED = 0.36  # of a case's bytes, compressed (benchmarks/speed/loader.md)
RECORD_BYTES = 50_000  # a record of BCV with its figures, and a prediction of five slices


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
        init_default_scope('mmseg')
        with torch.device('meta'):
            model = MODELS.build(self.cfg.model)
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


def show_plan(works: Sequence[GridWork], device: Device, console: Console | None = None) -> None:
    """Print what the grids take on a device."""
    console = console or Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console = Console(width=124, highlight=False, file=console.file)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    say(f'device {device.name}: {device.origin}')
    shares = [entry.busy for one in works for digest, entry in device.classes.items()
              if digest in one.costs and entry.busy]
    if shares and median(shares) < BUSY:
        say(f'calibrated while something else was at work, or loading held steps up: workers had '
            f'{median(shares):.0%} of their cores; on a quiet machine all takes down to x {median(shares):.2f}')
    everything: dict[str, Estimate] = {}
    unknown: list[Work] = []
    for one in works:
        runs, todo = len(one.plan.runs), len(one.plan.todo)
        say(f'\n{one.grid.title}: {runs} runs, {one.plan.finished} finished, {todo} to do'
            + (f', {len(one.plan.sources)} sources to make' if one.plan.sources else ''))
        found = {work.name: estimate(work, device) for work in one.to_do}
        unknown += [work for work in one.to_do if found[work.name] is None]
        estimates = [entry for entry in found.values() if entry]
        if estimates:
            console.print(_class_table(estimates, device))
        for what in sorted({entry.scaled.what for entry in estimates if entry.scaled}):
            far = any(not 1 / FAR < entry.measurement.step / entry.scaled.step < FAR for entry in estimates
                      if entry.scaled and entry.scaled.what == what)
            say(f'scaled: not calibrated, but by FLOPs from: {what}'
                + ('; too far from it to tell, as small steps take more than their FLOPs' if far else ''))
        _say_error(one, device, say)
        everything |= {entry.work.name: entry for entry in estimates}
    for what in dict.fromkeys(work.cost.what for work in unknown):
        say(f'! {what}: not calibrated here, and cannot be scaled: left out of all sums')
    _say_sums(works, list(everything.values()), device, console, say)


def _class_table(estimates: list[Estimate], device: Device) -> Table:
    """A row per class, dataset and number of steps."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ('class', 'runs', 'steps', 'step', 'scaled', 'one run', 'all', 'memory'):
        table.add_column(column, justify='left' if column == 'class' else 'right')
    rows: dict[tuple, list[Estimate]] = {}
    for entry in estimates:
        cost = entry.work.cost
        rows.setdefault((cost.folder, cost.digest, entry.work.steps), []).append(entry)
    for (_, _, steps), group in rows.items():
        first, entry = group[0], group[0].measurement
        ratio = f'x {entry.step / first.scaled.step:.3g}' if first.scaled else ''
        table.add_row(first.work.cost.what, f'{len(group)}', f'{steps:,}', f'{entry.step:.3g} s', ratio,
                      duration(first.seconds), duration(sum(one.seconds for one in group)),
                      _memory(entry, device))
    return table


def _memory(entry: Measurement, device: Device) -> str:
    if entry.peak is not None:
        return f'{(entry.peak + device.process) / 1024:.1f} GiB'
    return f'> {STATE * WEIGHT_BYTES * entry.parameters / 2**30:.1f} GiB'


def _say_error(one: GridWork, device: Device, say) -> None:
    """What the estimate says of the runs that are finished, beside what they took."""
    errors, recorded, guessed, elsewhere, unusable = {}, 0.0, 0.0, {}, 0
    for work, record in one.finished:
        cost = record.get('cost', {})
        if record['state'] != 'done' or cost.get('resumed_from') != 0:
            unusable += 1
        elif not device.recorded(record['hardware']):
            hardware = record['hardware']
            name = hardware.get('gpu') or f'{hardware["cpu"]}, {hardware["threads"]} of {hardware["cores"]} cores'
            elsewhere[name] = elsewhere.get(name, 0) + 1
        elif entry := estimate(work, device):
            recorded, guessed = recorded + cost['seconds'], guessed + entry.seconds
            errors[work.name] = (entry.seconds / cost['seconds'] - 1) * 100
    if errors:
        worst = max(errors, key=lambda name: abs(errors[name]))
        say(f'{len(errors)} finished runs: recorded {duration(recorded)} of work, estimated {duration(guessed)} '
            f'({(guessed / recorded - 1) * 100:+.0f} %); a run is off by '
            f'{median(map(abs, errors.values())):.0f} % (median), at most {errors[worst]:+.0f} % ({worst})')
    for name, number in elsewhere.items():
        say(f'{number} finished runs left out of that comparison: recorded on {name}')
    if unusable:
        say(f'{unusable} finished runs left out of that comparison: failed, or resumed on the way')


def _say_sums(works: Sequence[GridWork], estimates: list[Estimate], device: Device, console: Console, say) -> None:
    seconds = {entry.work.name: entry.seconds for entry in estimates}
    needs = {entry.work.name: entry.work.needs for entry in estimates}
    unit = device.unit
    total = sum(seconds.values()) / device.workers
    say(f'\n{len(estimates)} trainings to do: {total / 3600:,.1f} {unit}-hours' if total >= 360 else
        f'\n{len(estimates)} trainings to do: {total / 60:.1f} {unit}-minutes')
    if not estimates:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (f'{unit}s', 'until all is done'):
        table.add_column(column, justify='right')
    for number in DEVICES:
        table.add_row(f'{number}', duration(schedule(seconds, needs, number * device.workers) + device.load))
    console.print(table)
    shared = f'a {unit} runs {device.workers} at a time' if device.workers > 1 else f'one run per {unit}'
    say(f'{shared}, longest first, sources before what needs them; more than '
        f'{math.ceil(len(seconds) / device.workers)} {unit}s do not help, unless a run is spread over several '
        '(tools/dist_train.sh)')
    _say_disk(works, estimates, say)
    fullest = max((entry for entry in estimates if entry.measurement.peak is not None), default=None,
                  key=lambda entry: entry.measurement.peak)
    if fullest is None:
        say('memory: not published; the least it can be is weights, gradients and AdamW\'s two moments')
    else:
        peak = (fullest.measurement.peak + device.process) * device.workers
        kind = (f'torch\'s peak on the {unit}' if device.is_gpu else
                f'resident memory of {device.workers} workers, libraries included')
        of = f' of {device.memory / 1024:.1f}' if device.memory else ''
        say(f'memory: {peak / 1024:.1f}{of} GiB ({kind}) at most: {fullest.work.cost.what}')
        if device.memory and peak > device.memory:
            say('warning: more than the device has; split each step: experiment.accumulate=2 under the grid\'s '
                '`options`' + (', or fewer --workers' if device.workers > 1 else ''))
    assumed = {(work.cost.folder.name, work.cost.data.assumed) for one in works for work in one.to_do}
    for source in sorted({source for _, source in assumed} - {''}):
        names = ', '.join(sorted(name for name, where in assumed if where == source))
        say(f'not prepared yet, so cases, slices and store are assumed, {source}: {names}')


def _say_disk(works: Sequence[GridWork], estimates: list[Estimate], say) -> None:
    """Checkpoints are known by their bytes, or as weights and two moments."""
    checkpoints = sum(KEPT * (entry.measurement.checkpoint or 3 * WEIGHT_BYTES * entry.measurement.parameters)
                      for entry in estimates)
    folders = {work.cost.folder: work.cost.data for one in works for work in one.to_do}
    stores = sum(data.stored for data in folders.values())
    guessed = ' (estimated)' if any(data.assumed for data in folders.values()) else ''
    records = RECORD_BYTES * sum(len(one.plan.todo) for one in works)
    say(f'disk: {file_size(checkpoints)} of checkpoints ({KEPT} per training), {file_size(stores)} of prepared '
        f'data{guessed}, {file_size(records)} of records and predictions')


def duration(seconds: float) -> str:
    for limit, unit, length in ((120, 's', 1), (7200, 'min', 60), (48 * 3600, 'h', 3600)):
        if seconds < limit:
            return f'{seconds / length:.1f} {unit}'
    return f'{seconds / 86400:,.1f} days'


def file_size(number: float) -> str:
    for limit, unit in ((2**30, 'MiB'), (2**40, 'GiB')):
        if number < limit:
            return f'{number / limit * 1024:.1f} {unit}'
    return f'{number / 2**40:.2f} TiB'
