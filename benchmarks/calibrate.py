"""Measure what steps, evaluation, start and checkpoints of a grid's classes take here, by real runs cut short.

The runs are mmengine's, made as benchmarks/runner.py makes them, in as many workers at a time as the grid would
have, as processes on one CPU slow each other down. Random values stand in for a dataset that is not prepared.
"""

import gc
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmengine.hooks import Hook

from mmseg_plugins.building import build_runner
from mmseg_plugins.datasets.intensity import PROTOCOLS
from mmseg_plugins.datasets.statistics import describe_volume
from mmseg_plugins.datasets.store import INDEXED, read_index, write_case, write_index
from mmseg_plugins.datasets.volumes import Volume
from mmseg_plugins.evaluation.metrics import choose_metrics
from mmseg_plugins.evaluation.scores import compare, score_case
from mmseg_plugins.experiment import load_config, prepare_for_device

from .devices import Device, Measurement, calibration_path, read_device, write_device
from .estimate import CostClass, DataFacts
from .plan import REPO
from .pool import Job, run_jobs
from .runner import provenance

SECONDS = 12.0  # of steps, and half as long of evaluation: a median of fewer is not steady on a shared CPU
WARM_UP, AT_LEAST = 2, 3  # steps
LONGEST = 60.0  # seconds, by which slow steps are fewer
CPU_STEP = 1.5e12  # FLOPs of a step, beyond which a CPU measures a smaller batch
SMALLEST = 2  # windows, as batch norms need more than one value
NEVER = 10**6  # steps


class _Enough(Exception):
    """Steps have been measured."""


class _Stopwatch(Hook):
    """Take the time from the end of a step to the end of the next, and stop once there are enough.

    So a step holds what it waits for: loading, logging, the optimizer.
    """
    priority = 'NORMAL'  # before mmengine's logger, which resets the GPU's peak

    def __init__(self, seconds: float, report: Callable[[float], None]):
        self.seconds, self.report, self.gpu_peak = seconds, report, 0
        self.train: list[float] = []  # when it began, and the end of each step
        self.val: list[float] = []
        self.cpu: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.gpu_peak = max(self.gpu_peak, torch.cuda.max_memory_allocated())
        self.cpu.append(time.process_time())
        self._tick(self.train, self.seconds)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._tick(self.val, self.seconds / 2)

    def before_train(self, runner) -> None:
        self.train.append(time.perf_counter())

    def before_val(self, runner) -> None:
        self.val.append(time.perf_counter())

    def _tick(self, stamps: list[float], seconds: float) -> None:
        stamps.append(time.perf_counter())
        steps = len(stamps) - 1 - WARM_UP
        spent = stamps[-1] - stamps[min(WARM_UP, len(stamps) - 1)]
        self.report(min(spent / seconds, 1.0))
        if (steps >= AT_LEAST and spent >= seconds) or (len(stamps) > 2 and stamps[-1] - stamps[0] >= LONGEST):
            raise _Enough


def _per_step(stamps: list[float]) -> float:
    """Median seconds from one stamp to the next after warm-up; of no more steps than that, the last one's."""
    between = np.diff(stamps)
    return float(np.median(between[min(WARM_UP, len(between) - 1):]))


class _ProcessMemory:
    """The most that a block's process held, in MiB beyond `floor`, looked at 50 times a second."""

    def __init__(self, floor: float):
        self.floor, self.peak = floor, 0.0

    def __enter__(self) -> '_ProcessMemory':
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, resident() - self.floor)


def resident() -> float:
    """MiB that this process holds; where the system does not tell, the most that it held."""
    try:
        return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@cache
def _libraries() -> float:
    """Resident MiB at the first call: of a worker before its first run."""
    return resident()


def measure(config: str, options: dict, flops: int | None, seconds: float, submitted: float,
            report: Callable[[int, int], None]) -> dict:
    """Train and evaluate a run for a few seconds each.

    Args:
        config, options: of the run; its dataset is prepared. Its weights are random, whatever its source.
        flops: of a window forward; on a CPU, where steps would take minutes, a smaller batch is measured.
        seconds: of steps after warm-up.
        submitted: time.time() when this was asked for.
        report: called with hundredths of the way.

    Returns:
        Fields of Measurement as far as they are measured, and `load`: seconds from `submitted`; `process`: MiB of
        this worker before its first run; `busy`: CPU-seconds of this process per second of its steps.
    """
    load, floor = time.time() - submitted, _libraries()
    options = options | {'experiment.source': None, 'experiment.inflation': 'random', 'experiment.steps': NEVER,
                         'experiment.val_interval': NEVER, 'experiment.checkpoint_interval': NEVER}
    start = time.perf_counter()
    cfg = load_config(REPO / config, options)
    windows, accumulate = cfg.experiment.batch, cfg.experiment.accumulate
    measured = windows if torch.cuda.is_available() else _affordable(windows, flops)
    if measured != windows:
        cfg = load_config(REPO / config, options | {'experiment.batch': measured, 'experiment.accumulate': 1})
    prepare_for_device(cfg, 'none')
    if cfg.val_evaluator:
        cfg.val_evaluator.only = []
    with tempfile.TemporaryDirectory(prefix='calibration-') as folder, _ProcessMemory(floor) as memory:
        cfg.work_dir, cfg.experiment_name = folder, Path(folder).name
        cfg.visualizer.name = cfg.experiment_name  # mmengine gives one name one folder, which is gone by the next
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        runner = build_runner(cfg)
        watch = _Stopwatch(seconds, lambda part: report(round(60 * part), 100))
        runner.register_hook(watch)
        _until_enough(runner.train)
        step = _per_step(watch.train)
        busy = (watch.cpu[-1] - watch.cpu[0]) / (watch.train[-1] - watch.train[1])
        warm = min(WARM_UP, len(watch.train) - 1)
        started = watch.train[warm] - start - warm * step
        window, surface = 0.0, 0.0
        if cfg.val_dataloader:
            watch.report = lambda part: report(round(60 + 30 * part), 100)
            _until_enough(runner.val)
            window = _per_step(watch.val) / cfg.val_dataloader.batch_size
            surface = _time_metrics(runner.val_dataloader.dataset)
        saving = time.perf_counter()
        runner.save_checkpoint(folder, 'calibration.pth', by_epoch=False)
        saving = time.perf_counter() - saving
        checkpoint = (Path(folder) / 'calibration.pth').stat().st_size
    parameters = sum(parameter.numel() for parameter in runner.model.parameters())
    step *= windows / measured
    peak = watch.gpu_peak / 2**20 if torch.cuda.is_available() else memory.peak
    if measured < windows // accumulate:  # of which only weights, gradients and moments do not grow with windows
        state = 16 * parameters / 2**20
        peak = state + max(peak - state, 0) * windows / accumulate / measured
    del runner, watch
    gc.collect()
    report(100, 100)
    return dict(windows=windows, forward=windows // accumulate, step=step, parameters=parameters,
                measured_windows=measured, window=window, surface=surface, start=max(started, 0.0), save=saving,
                checkpoint=checkpoint, peak=peak, load=load, process=floor,
                busy=busy)


def _until_enough(loop: Callable) -> None:
    try:
        loop()
    except _Enough:
        pass


def _affordable(windows: int, flops: int | None) -> int:
    """Windows of a step that a CPU gets through in seconds: of training, three times the forward pass each."""
    while windows % 2 == 0 and windows > SMALLEST and 3 * windows * (flops or 0) > CPU_STEP:
        windows //= 2
    return windows


def _time_metrics(evaluated) -> float:
    """Seconds per million voxels of a case's metrics, of its label against itself moved by a voxel.

    The first steps' predictions would not do: their surfaces are those of noise.
    """
    index = evaluated.index
    case = index['split'][evaluated.split][0]
    entry = index['cases'][case]
    label = np.asarray(evaluated.store.label(case, list(range(entry['shape'][0]))))
    moved = np.roll(label, (1, 1), (1, 2))
    small, whole = (compare(label[part], moved[part], len(index['labels']), entry['spacing'])
                    for part in (slice(1), slice(None)))
    score_case(small, choose_metrics())  # imports and caches
    start = time.perf_counter()
    score_case(whole, choose_metrics())
    return (time.perf_counter() - start) / (label.size / 1e6)


def write_stand_in(folder: Path, data: DataFacts, depth: int = 8, cases: int = 2) -> None:
    """A prepared dataset of random values in the place of one that is not here: `cases` in each split.

    Labels are balls side by side, so that surfaces are as smooth as organs'.
    """
    rng, (height, width) = np.random.default_rng(0), data.size
    side = int(np.ceil(np.sqrt(data.labels)))
    z, y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in (depth, height, width)), indexing='ij')
    inside = ((z - 0.5) / 2)**2 + ((y * side) % 1 - 0.5)**2 + ((x * side) % 1 - 0.5)**2 < 0.16
    label = np.where(inside, (y * side).astype(int) * side + (x * side).astype(int), 0)
    label = np.where(label < data.labels, label, 0).astype(np.uint8)
    split, entries = {part: [f'{part}{n}' for n in range(cases)] for part in {*data.cases, 'train'}}, {}
    for name in (name for names in split.values() for name in names):
        image = rng.integers(-1000, 1000, (depth, data.channels, height, width), np.int16)
        volume = Volume(image, label, np.diag([1.0, 1.0, 3.0, 1.0]), (2, 1, 0), (False,) * 3)
        meta = write_case(folder, name, volume, describe_volume(volume, data.labels))
        entries[name] = {key: meta[key] for key in INDEXED}
    write_index(folder, dict(
        dataset=folder.name, labels=[f'label {k}' for k in range(data.labels)],
        headline=list(range(1, data.labels)), channels=data.channels,
        intensity=dict.fromkeys(PROTOCOLS, (-1000, 1000)), evaluate=data.evaluate, split=split, split_hash='none',
        cases=entries))


def this_device(workers: int, threads: int, gpus: Iterable[str]) -> str:
    """Name of what runs would train on here: the GPU, or the CPU with how its cores are shared out."""
    if list(gpus):
        return torch.cuda.get_device_name()
    return f'{provenance()["hardware"]["cpu"]}, {workers} workers of {threads} threads'


def calibrate(costs: dict[str, CostClass], workers: int, threads: int, gpus: list[str], progress, command: str,
              seconds: float = SECONDS, folder: Path | None = None) -> Path:
    """Measure classes on this machine, and write them into its calibration.

    Args:
        costs: by digest.
        workers, threads, gpus: as the grid would have them.
        progress: benchmarks.progress.Progress.
        command: what called this, for the calibration to name.
        folder: of the calibrations; None: the repository's.

    Returns:
        The calibration's file.
    """
    name = this_device(workers, threads, gpus)
    jobs = {}
    # all workers busy till the end: some classes are measured twice
    for number in range(-(-len(costs) // workers) * workers):
        digest = list(costs)[number % len(costs)]
        jobs[f'{digest}-{number}'] = digest
    parts, results = dict.fromkeys(jobs, 0), {digest: [] for digest in costs}
    bar = progress.counter('calibrating')

    def on_event(kind: str, job: str, value) -> None:
        what = costs[jobs[job]].what
        if kind == 'progress':
            parts[job] = min(value[0], 99)
        elif kind == 'again':
            progress.say(f'again  {what}: {value}')
        else:
            parts[job] = 100
            if kind == 'done':
                results[jobs[job]].append(value)
                progress.say(f'measured  {what}: {value["step"]:.3g} s per step')
            else:
                progress.say(f'not measured  {what}: {value}')
        bar(sum(parts.values()), 100 * len(jobs), '' if all(part == 100 for part in parts.values()) else what)

    with tempfile.TemporaryDirectory(prefix='calibration-') as temporary:
        roots, data = {}, {}
        for cost in costs.values():
            prepared = (cost.folder / 'index.json').is_file()
            roots[cost.folder] = cost.folder if prepared else Path(temporary) / cost.folder.name
            if not prepared and not roots[cost.folder].exists():
                write_stand_in(roots[cost.folder], cost.data)
            data[cost.folder] = (f'prepared {read_index(cost.folder)["dataset"]}' if prepared else
                                 f'random values of {"x".join(map(str, cost.data.size))} for {cost.folder.name}')
        now = time.time()
        run_jobs([Job(job, 'benchmarks.calibrate:measure',
                      (costs[digest].config, costs[digest].options
                       | {'experiment.data_root': str(roots[costs[digest].folder])},
                       costs[digest].counts and costs[digest].counts[1], seconds, now))
                  for job, digest in jobs.items()],
                 workers, threads, gpus, Path(temporary) / 'logs', on_event)
    measured = {}
    for digest, found in results.items():
        if found:
            measured[digest] = _measurement(costs[digest], found, data[costs[digest].folder], threads)
    every = [result for found in results.values() for result in found]
    return _merge(name, measured, every, workers, threads, gpus, command, folder)


def _measurement(cost: CostClass, found: list[dict], data: str, threads: int) -> Measurement:
    """The median of what was measured of a class; of memory the most."""
    middle = {key: median(result[key] for result in found)
              for key in ('step', 'window', 'surface', 'start', 'save')}
    first, counts = found[0], cost.counts or (None, None, None)
    busy = None if torch.cuda.is_available() else round(median(result['busy'] for result in found) / threads, 2)
    return Measurement(cost.what, first['windows'], first['forward'], parameters=first['parameters'],
                       flops=counts[1], activations=counts[2], measured_windows=first['measured_windows'],
                       data=data, checkpoint=first['checkpoint'], busy=busy,
                       peak=round(max(result['peak'] for result in found), 1),
                       **{key: float(f'{value:.4g}') for key, value in middle.items()})


def _merge(name: str, measured: dict[str, Measurement], every: list[dict], workers: int, threads: int,
           gpus: list[str], command: str, folder: Path | None) -> Path:
    """Write what was measured into the device's calibration; classes of earlier ones stay."""
    path = calibration_path(name, folder)
    if not every:
        return path
    facts = provenance()
    memory = (torch.cuda.get_device_properties(0).total_memory if gpus else
              os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))
    at_once = max(workers, 1)
    device = Device(
        name, f'measured by `{command}`, {at_once} at a time', 1 if gpus else workers, round(memory / 2**20),
        0.0 if gpus else round(median(result['process'] for result in every), 1),
        round(min(result['load'] for result in every), 1), facts['hardware'] | dict(threads=threads),
        facts['packages'] | dict(python=facts['python']), measured)
    if path.is_file():
        before = read_device(name, command, folder)
        if before.packages.get('torch') == device.packages['torch']:
            device.classes = before.classes | measured
    return write_device(device, folder)
