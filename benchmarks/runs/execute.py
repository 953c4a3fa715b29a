"""One run inside a worker process: an mmengine training, its evaluation, its record."""

import gc
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmseg_plugins.building import build_runner
from mmseg_plugins.compat import newest_whole
from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.intensity import intensity_ranges
from mmseg_plugins.errors import Busy, OutOfMemory, UserError
from mmseg_plugins.experiment import import_extensions, load_config, prepare_for_device
from mmseg_plugins.faults import peak_memory
from mmseg_plugins.files import only_writer, write_json
from mmseg_plugins.flops import count_cost
from mmseg_plugins.launch import world_size
from mmseg_plugins.parallel import available_cores
from mmseg_plugins.pretraining import pretrain
from mmseg_plugins.work_dir import PATIENCE, RollingCheckpoint

from ..methods.command import run_command
from ..paper.settings import describe_kind, describe_settings
from ..plan import PREPARED
from .records import (
    Run,
    describe_method,
    describe_scores,
    predictions_path,
    read_record,
    record_path,
    write_arrays,
    write_record,
)

REPO = Path(__file__).parents[2]
PACKAGES = ('torch', 'torchvision', 'timm', 'mmengine', 'mmsegmentation', 'numpy', 'nibabel', 'blosc2')


class ReportProgress(Hook):
    """Tell the controller how far training is, and keep what it takes: time, and the GPU's peak memory."""
    priority = 'NORMAL'  # before mmengine's logger, which resets the peak

    def __init__(self, report: Callable[[int, int], None]):
        self.report, self.first, self.peak = report, 0, 0
        self.start = self.validating = time.perf_counter()
        self.ends: list[float] = []  # of steps
        self.worked: list[float] = []  # this process's own seconds up to each
        self.windows: list[float] = []  # seconds of each, by evaluation
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def before_train(self, runner) -> None:
        self.first = runner.iter  # behind 0 where a checkpoint was resumed
        self.report(runner.iter, runner.max_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.report(runner.iter + 1, runner.max_iters)
        self.ends.append(time.perf_counter())
        self.worked.append(time.process_time())
        if torch.cuda.is_available():
            self.peak = max(self.peak, torch.cuda.max_memory_allocated())

    def before_val_epoch(self, runner) -> None:
        self.validating = time.perf_counter()

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.windows.append((time.perf_counter() - self.validating) / len(runner.val_dataloader.dataset))

    def seconds(self) -> dict[str, float]:
        """Of the start up to the first step, of a step with its loading, of an evaluated window with its share of
        the metrics; medians, as saving and evaluation fall between two steps. What did not happen is left out.
        Of a CPU also the share of its threads' time that the steps had: less than 1 where others were at work.
        """
        found = {}
        if len(self.ends) > 1:
            step = median(np.diff(self.ends))
            found = dict(start_seconds=max(self.ends[0] - self.start - step, 0.0), step_seconds=step)
            if not torch.cuda.is_available():
                share = (self.worked[-1] - self.worked[0]) / (self.ends[-1] - self.ends[0])
                found['cpu_share'] = share / torch.get_num_threads()
        if self.windows:
            found['window_seconds'] = median(self.windows)
        return found


def execute_run(run: Run, out: Path, work_dir: Path, report: Callable[[int, int], None], launcher: str = 'none',
                halve: bool = False, debug: bool = False) -> str | None:
    """Train (or resume), evaluate and record one run; returns why it failed, or None.

    Whatever goes wrong becomes a record with its reason, so that the rest of the grid goes on.

    Args:
        launcher: `pytorch` where this process is one of several that share the run (RANK, WORLD_SIZE, ... are
            set). The main one writes, or the one whose fault ends the run.
        halve: a step that does not fit into memory is tried once more, in twice as many passes of half the size;
            for a run of one process.
        debug: errors other than a user's are not recorded but go on up.

    Raises:
        Stopped: by a signal; the run goes on from its checkpoint when it is called again.
    """
    before = read_record(record_path(out, run))
    if (before or {}).get('state') == 'done':
        return None  # by a job that was requeued all the same
    if launcher != 'none' and int(os.environ.get('RANK', 0)):
        if run.cell.is_method:
            return None  # a command runs once, by the main process
        body = _attempt(run, out, work_dir, report, launcher, False, debug)
        if body.pop('own', False):  # the others learn of it by this process's end, and not what it was
            write_record(out, run, body | provenance())
        return body.get('reason')
    try:
        with only_writer(work_dir, patience=PATIENCE):
            now = read_record(record_path(out, run))
            if (now or {}).get('state') == 'done':
                return None  # by a runner that had this folder until now
            body = _attempt(run, out, work_dir, report, launcher, halve and launcher == 'none', debug)
            if body.pop('own', True) or read_record(record_path(out, run)) == before:
                write_record(out, run, body | provenance())
    except Busy as error:
        return str(error)  # no record: the other process writes it
    return body.get('reason')


def _attempt(run: Run, out: Path, work_dir: Path, report: Callable, launcher: str, halve: bool,
             debug: bool) -> dict:
    """The record's body: of the finished run, or of the fault that ended it."""
    try:
        if run.cell.is_method:
            return _run_method(run, work_dir, report)
        return _train_and_evaluate(run, out, work_dir, report, launcher)
    except OutOfMemory as error:
        body = _failure(str(error), work_dir) | dict(out_of_memory=error.facts, own=True)
    except UserError as error:
        body = _failure(str(error), work_dir) | dict(own=True)
    except Exception as error:
        if debug:
            raise
        traceback.print_exc()
        reason = f'{type(error).__name__}: {" ".join(str(error).split())[:500]}'
        body = _failure(reason, work_dir) | dict(own=False)  # may be only that another process has gone
    if not halve or 'out_of_memory' not in body:
        return body
    gc.collect()  # out of the handler, whose traceback held on to the step's tensors
    torch.cuda.empty_cache()
    passes = 2 * body['out_of_memory']['accumulate']
    again = replace(run, options=run.options | {'experiment.accumulate': passes})
    attempt = dict(reason=body['reason'], went_on_with=f'experiment.accumulate={passes}')
    return dict(attempts=[attempt]) | _attempt(again, out, work_dir, report, launcher, False, debug)


def record_failure(run: Run, out: Path, work_dir: Path, reason: str) -> None:
    """The record of a run whose process died before it could write one."""
    write_record(out, run, _failure(reason, work_dir) | provenance())


def _failure(reason: str, work_dir: Path) -> dict:
    """With the checkpoint that --retry-failed starts from."""
    checkpoint = newest_whole(work_dir)
    return dict(state='failed', reason=reason, checkpoint=checkpoint and checkpoint.name)


def _train_and_evaluate(run: Run, out: Path, work_dir: Path, report: Callable, launcher: str) -> dict:
    cfg = load_config(REPO / run.config, run.options, world_size(launcher))
    prepare_for_device(cfg, launcher)
    cfg.work_dir, cfg.resume = str(work_dir), True
    cfg.experiment_name = cfg.visualizer.name = run.name  # mmengine keeps one of a name per process
    import monai.metrics  # noqa: F401  else a worker's first evaluation would be timed with it

    progress = ReportProgress(report)
    runner = build_runner(cfg)
    runner.register_hook(progress)
    metric = runner.val_evaluator.metrics[0]
    evaluated = runner.val_dataloader.dataset
    shown, settings = choose_shown(evaluated), describe_settings(cfg)  # before the hours of training
    metric.keep = shown['case'], shown['slices']
    runner.train()
    seconds = dict(seconds=round(time.perf_counter() - progress.start, 1)) | {
        name: float(f'{value:.4g}') for name, value in (progress.seconds() | _checkpoint_seconds(runner)).items()}
    if is_main_process():
        write_arrays(predictions_path(out, run.cell.dataset), **shown)
        write_arrays(predictions_path(out, run.name), prediction=metric.kept)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    encoder = model.backbone
    return dict(
        state='done',
        data=_data(cfg, evaluated),
        settings=settings,
        scores=describe_scores(metric.scores, evaluated.index),
        training=_training_summary(runner),
        load=_load_report(encoder),
        cost=dict(parameters=_parameters(model), encoder_parameters=_parameters(encoder),
                  **_flops(model, cfg.experiment.img_size), **seconds, resumed_from=progress.first,
                  processes=get_world_size(),
                  kind=describe_kind(run.title, cfg.experiment, len(evaluated.index['labels'])),
                  **_peak_memory(progress.peak)))


def _run_method(run: Run, work_dir: Path, report: Callable) -> dict:
    import_extensions(run.options['custom_imports.imports'], run.config)
    prepared, start = PREPARED / run.cell.dataset, time.perf_counter()
    index = read_index(prepared)
    split = run.options['experiment.evaluate'] or index['evaluate']
    found, label_maps = run_command(run.config, run.seed, prepared, split, work_dir, report)
    body = describe_method(found, index, label_maps, run.config)
    return body | dict(cost=dict(seconds=round(time.perf_counter() - start, 1)))


def _data(cfg, evaluated) -> dict:
    """What was trained and evaluated on: split by hash and counts, intensity rule, input in pixels (H, W)."""
    index, size = evaluated.index, cfg.experiment.img_size
    return dict(dataset=index['dataset'], split_hash=index['split_hash'],
                cases={part: len(cases) for part, cases in index['split'].items()}, evaluated=evaluated.split,
                protocol=evaluated.protocol, input_size=[size, size] if isinstance(size, int) else list(size))


def choose_shown(evaluated) -> dict:
    """What the paper's Figure 2 shows of a dataset: five consecutive slices of the case with most labels.

    Returns:
        `case`, `slices` (5,), `image` (5, H, W) uint8 as scaled for the network, `label` (5, H, W) and `spacing`
        in mm along (D, H, W). In the middle is the slice with most labels, of these the fullest.
    """
    index, store = evaluated.index, evaluated.store
    case = max(index['split'][evaluated.split], key=lambda name: np.count_nonzero(index['cases'][name]['voxels']))
    entry = index['cases'][case]
    depth, _, *size = entry['shape']
    label = np.asarray(store.label(case, list(range(depth))))
    middle = max(range(depth), key=lambda z: (len(np.unique(label[z])), np.count_nonzero(label[z])))
    first = min(max(middle - 2, 0), max(depth - 5, 0))
    slices = list(range(first, min(first + 5, depth)))
    image = np.asarray(store.window(case, slices)).reshape(-1, len(slices), *size)[0].astype(np.float32)
    low, high = intensity_ranges(index, evaluated.protocol, entry)[0]
    scaled = (image.clip(low, high) - low) / max(high - low, 1e-6) * 255
    return dict(case=case, slices=slices, image=scaled.round().astype(np.uint8), label=label[slices],
                spacing=entry['spacing'])


def _training_summary(runner) -> dict:
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    losses = np.asarray(losses, float)
    parts = np.array_split(losses, min(20, len(losses)))
    return dict(steps=len(losses), last_loss=round(float(losses[-20:].mean()), 5),
                curve=[round(float(part.mean()), 5) for part in parts])


def _load_report(encoder) -> dict | None:
    report = encoder.load_report
    return report and dict(file=Path(report.source).name, loaded=len(report.loaded),
                           resized=report.resized, inflated=report.inflated, dropped=report.dropped,
                           missing=report.missing)


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flops(model: torch.nn.Module, size: int | Sequence[int]) -> dict:
    """Of one window, whole model and encoder."""
    costs = count_cost(model, [size, size] if isinstance(size, int) else size)
    return dict(flops=sum(cost.flops for cost in costs.values()),
                encoder_flops=costs['patch embedding'].flops + costs['blocks'].flops)


def _checkpoint_seconds(runner) -> dict[str, float]:
    taken = [hook.seconds for hook in runner.hooks if isinstance(hook, RollingCheckpoint) and hook.seconds]
    return dict(checkpoint_seconds=taken[0]) if taken else {}


def _peak_memory(gpu: int) -> dict:
    if torch.cuda.is_available():
        return dict(peak_memory_mib=round(gpu / 2**20), memory_of='GPU, training')
    return dict(peak_memory_mib=round(peak_memory() / 2**20), memory_of='worker process, all its runs so far')


@cache
def provenance() -> dict:
    """Code revision, package versions and hardware of this process."""
    def git(*arguments):
        result = subprocess.run(['git', *arguments], cwd=REPO, capture_output=True, text=True, check=False)
        return result.stdout.strip()

    # a calibration that was made here is no change of the code
    code = ['mmseg_plugins', 'configs', 'tools', 'benchmarks', ':!benchmarks/speed/calibrations']
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    hardware = dict(cpu=_cpu_name(), cores=available_cores(), threads=torch.get_num_threads(),
                    gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None)
    return dict(code=dict(revision=git('rev-parse', 'HEAD') or None,
                          modified=bool(git('status', '--porcelain', '--', *code))),
                python=platform.python_version(), packages=versions, hardware=hardware)


def _cpu_name() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def execute_pretraining(config: str, options: dict, out: Path, work_dir: Path, digest: str,
                        report: Callable[[int, int], None]) -> None:
    """Make an embedded source checkpoint, and beside it a note of what it was made by."""
    cfg = load_config(REPO / config, options)
    prepare_for_device(cfg, 'none')
    cfg.work_dir, cfg.resume = str(work_dir), True
    cfg.experiment_name = cfg.visualizer.name = f'pretrain-{out.stem}-{digest}'
    with only_writer(work_dir, patience=PATIENCE):
        metrics = pretrain(cfg, out, [ReportProgress(report)])
    write_json(out.with_suffix('.json'), dict(made_by=config, digest=digest, metrics=metrics) | provenance())
