"""One run inside a worker process: an mmengine training, its evaluation, its record."""

import gc
import math
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook

from mmseg_plugins.building import build_runner
from mmseg_plugins.collective import unwrapped
from mmseg_plugins.commands import REPO
from mmseg_plugins.compat import newest_whole
from mmseg_plugins.datasets import read_index
from mmseg_plugins.errors import Busy, OutOfMemory, UserError
from mmseg_plugins.experiment import import_extensions, load_config, prepare_for_device, training_split
from mmseg_plugins.faults import TrainingMemory
from mmseg_plugins.files import only_writer
from mmseg_plugins.flops import Cost, count_cost, input_size
from mmseg_plugins.launch import process_rank, world_size
from mmseg_plugins.pretraining import pretrain
from mmseg_plugins.sources import describe_weights, permute_source, read_note, write_note
from mmseg_plugins.work_dir import PATIENCE, RollingCheckpoint, drop_checkpoints, keep_weights

from ..methods.command import run_command
from . import records
from .agenda import identify
from .inputs import PREPARED
from .provenance import provenance
from .run import Run, describe_kind
from .settings import describe_settings


class ReportProgress(Hook):
    """Tell the controller how far training is, and keep what it takes: time, and the peak of memory."""
    priority = 'NORMAL'  # before mmengine's logger, which resets the peak

    def __init__(self, report: Callable[[int, int], None]):
        self.report, self.first, self.memory = report, 0, TrainingMemory()
        self.start = self.validating = time.perf_counter()
        self.ends: list[tuple[float, float]] = []  # of steps: on the clock, and in this process's own seconds
        self.windows: list[float] = []  # seconds of each, by evaluation

    def before_train(self, runner) -> None:
        self.first = runner.iter  # behind 0 where a checkpoint was resumed
        self.memory.look()
        self.report(runner.iter, runner.max_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.report(runner.iter + 1, runner.max_iters)
        self.ends.append((time.perf_counter(), time.process_time()))
        self.memory.look()

    def before_val_epoch(self, runner) -> None:
        self.validating = time.perf_counter()

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.windows.append((time.perf_counter() - self.validating) / len(runner.val_dataloader.dataset))
        self.memory.begin()

    def seconds(self, runner) -> dict[str, float]:
        """In all; of the start up to the first step, of a step with its loading, of an evaluated window with its
        share of the metrics, of a checkpoint. Medians, as saving and evaluation fall between two steps; what did
        not happen is left out. Of a CPU also the share of its threads' time that the steps had: less than 1 where
        others were at work.
        """
        total, found = round(time.perf_counter() - self.start, 1), {}
        if len(self.ends) > 1:
            ends, worked = np.transpose(self.ends)
            step = median(np.diff(ends))
            found = dict(start_seconds=max(ends[0] - self.start - step, 0.0), step_seconds=step)
            if not torch.cuda.is_available():
                share = (worked[-1] - worked[0]) / (ends[-1] - ends[0])
                found['cpu_share'] = share / torch.get_num_threads()
        if self.windows:
            found['window_seconds'] = median(self.windows)
        for hook in runner.hooks:
            if isinstance(hook, RollingCheckpoint) and hook.seconds:
                found['checkpoint_seconds'] = hook.seconds
        return dict(seconds=total) | {name: float(f'{value:.4g}') for name, value in found.items()}


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
    path, main = records.record_path(out, run), process_rank(launcher) == 0
    if run.cell.without_config and not main:
        return None  # a command runs once
    before, made_by = records.read_record(path), provenance()
    try:
        with only_writer(work_dir, patience=PATIENCE) if main else nullcontext():
            if (records.read_record(path) or {}).get('state') == 'done':
                drop_checkpoints(work_dir)  # of one that was killed when it had just written its record
                return None  # by a job that was requeued all the same, or the runner that had this folder
            if run.source_digest != '' and run.identity != identify(run):
                return 'its config or data have changed since the grid was called; call it again'
            body = _attempt(run, out, work_dir, report, launcher, debug)
            if halve and launcher == 'none' and 'out_of_memory' in body:
                gc.collect()  # the step's tensors, which the traceback held
                torch.cuda.empty_cache()
                passes = 2 * body['out_of_memory']['accumulate']
                again = replace(run, options=run.options | {'experiment.accumulate': passes})
                attempt = dict(reason=body['reason'], went_on_with=f'experiment.accumulate={passes}')
                body = dict(attempts=[attempt]) | _attempt(again, out, work_dir, report, launcher, debug)
                run = again  # whose command it is that repeats this
            # the others learn of a fault by the end of the process that has it, and not what it was
            if body.pop('own', main) or main and records.read_record(path) == before:
                trained = body['state'] == 'done' and not run.cell.without_config
                if trained and not run.setting:  # a search wants its figure alone
                    keep_weights(work_dir)
                records.write_record(out, run, body | made_by)
                if trained:
                    drop_checkpoints(work_dir)
    except Busy as error:
        return str(error)  # no record: the other process writes it
    return body.get('reason')


def record_failure(run: Run, out: Path, work_dir: Path, reason: str) -> None:
    """The record of a run whose process died before it could write one."""
    records.write_record(out, run, _failure(reason, work_dir) | provenance())


def _attempt(run: Run, out: Path, work_dir: Path, report: Callable, launcher: str, debug: bool) -> dict:
    """The record's body: of the finished run, or of its fault; `own`: that is surely this process's."""
    try:
        if run.cell.without_config:
            return _call_command(run, work_dir, report)
        return _train_and_evaluate(run, out, work_dir, report, launcher)
    except Busy:
        raise
    except UserError as error:
        facts = dict(out_of_memory=error.facts) if isinstance(error, OutOfMemory) else {}
        return _failure(str(error), work_dir) | facts | dict(own=True)
    except Exception as error:
        if debug:
            raise
        traceback.print_exc()
        reason = f'{type(error).__name__}: {" ".join(str(error).split())[:500]}'
        return _failure(reason, work_dir) | dict(own=False)  # may be only that another process has gone


def _failure(reason: str, work_dir: Path) -> dict:
    """With the checkpoint that --retry-failed starts from."""
    checkpoint = newest_whole(work_dir)
    return dict(state='failed', reason=reason, checkpoint=checkpoint and checkpoint.name)


def _load(config: str, options: dict, work_dir: Path, name: str, launcher: str = 'none') -> Config:
    """A config that goes on in its own folder."""
    cfg = load_config(REPO / config, options, world_size(launcher))
    prepare_for_device(cfg, launcher)
    cfg.work_dir, cfg.resume = str(work_dir), True
    cfg.experiment_name = cfg.visualizer.name = name  # mmengine keeps one of a name per process
    return cfg


def _train_and_evaluate(run: Run, out: Path, work_dir: Path, report: Callable, launcher: str) -> dict:
    cfg = _load(run.config, run.options, work_dir, run.name, launcher)
    import monai.metrics  # noqa: F401  else a worker's first evaluation would be timed with it

    progress = ReportProgress(report)
    runner = build_runner(cfg)
    runner.register_hook(progress)
    metric, evaluated = runner.val_evaluator.metrics[0], runner.val_dataloader.dataset
    # before the hours of training; of several folds the first shows a case, as each evaluates others
    unseen = run.setting or run.fold and run.fold[0]  # of a search, or of a fold beside the first
    shown, settings = None if unseen else choose_shown(evaluated), describe_settings(cfg)
    metric.keep = shown and (shown['case'], shown['slices'])
    source = _describe_source(run, cfg)
    runner.train()
    seconds = progress.seconds(runner)
    if shown and is_main_process():
        records.write_arrays(records.predictions_path(out, run.cell.dataset), **shown)
        records.write_arrays(records.predictions_path(out, run.name), prediction=metric.kept)
    model = unwrapped(runner.model)
    size = input_size(cfg.experiment)
    parts = count_cost(model, size)
    whole = sum(parts.values(), Cost())
    of_encoder = {}
    if 'blocks' in parts:
        encoder = parts['patch embedding'] + parts['blocks']
        of_encoder = dict(encoder_parameters=encoder.parameters, encoder_flops=encoder.flops)
    body = records.describe_result(metric.scores, evaluated.index, evaluated.split, training_split(cfg.experiment))
    body['data'] |= dict(protocol=evaluated.protocol, input_size=size)
    return body | dict(
        settings=settings, training=_training_summary(runner), source=source,
        load=_load_report(getattr(model, 'backbone', None) or model.network),
        cost=dict(parameters=whole.parameters, flops=whole.flops, **of_encoder,
                  trained_parameters=sum(each.numel() for each in model.parameters() if each.requires_grad),
                  **seconds, resumed_from=progress.first, processes=get_world_size(),
                  kind=describe_kind(run.title, cfg.experiment, len(evaluated.index['labels'])),
                  peak_memory_mib=round(progress.memory.peak / 2**20), memory_of=progress.memory.of))


def _call_command(run: Run, work_dir: Path, report: Callable) -> dict:
    import_extensions(run.options['custom_imports.imports'], run.config)
    prepared, start = PREPARED / run.cell.dataset, time.perf_counter()
    index = read_index(prepared)
    split = run.options['experiment.evaluate'] or index['evaluate']
    # what was done before is not in its seconds, as of a config that was resumed
    resumed = dict(resumed_from=1) if '{work}' in run.config and (work_dir / 'command').exists() else {}
    found, label_maps, told = run_command(run.config, run.seed, prepared, split, work_dir, report)
    body = records.describe_method(found, index, label_maps, run.config, told.pop('settings', None))
    return body | dict(cost=dict(seconds=round(time.perf_counter() - start, 1)) | resumed | told)


def choose_shown(evaluated) -> dict:
    """What the paper's Figure 2 shows of a dataset: five consecutive slices of the case with most labels.

    Returns:
        `case`, `slices` (5,), `image` (5, H, W) uint8 as scaled for the network, `label` (5, H, W) and `spacing`
        in mm along (D, H, W). In the middle is the slice with most labels, of these the fullest.
    """
    index, store = evaluated.index, evaluated.store
    case = max(evaluated.cases, key=lambda name: np.count_nonzero(index['cases'][name]['voxels']))
    entry = index['cases'][case]
    depth, _, *size = entry['shape']
    label = np.asarray(store.label(case, list(range(depth))))
    middle = max(range(depth), key=lambda z: (len(np.unique(label[z])), np.count_nonzero(label[z])))
    first = min(max(middle - 2, 0), max(depth - 5, 0))
    slices = list(range(depth))[first:first + 5]
    image = np.asarray(store.window(case, slices)).reshape(-1, len(slices), *size)[0].astype(np.float32)
    low, high = evaluated.describe_case(case)['intensity_range'][0]
    scaled = (image.clip(low, high) - low) / max(high - low, 1e-6) * 255
    return dict(case=case, slices=slices, image=scaled.round().astype(np.uint8), label=label[slices],
                spacing=entry['spacing'])


def _training_summary(runner) -> dict:
    losses = np.asarray(runner.message_hub.get_scalar('train/loss').data[0], float)
    return dict(steps=len(losses), last_loss=round(float(losses[-20:].mean()), 5),
                curve=[round(float(part.mean()), 5) for part in np.array_split(losses, min(20, len(losses)))])


def _load_report(encoder) -> dict | None:
    report = getattr(encoder, 'load_report', None)
    return report and dict(file=Path(report.file).name, loaded=len(report.loaded),
                           resized=report.resized, inflated=report.inflated, dropped=report.dropped,
                           missing=report.missing)


def _describe_source(run: Run, cfg: Config) -> dict | None:
    """Which weights it started from, exactly; None: random ones."""
    path = cfg.experiment.source
    return path and dict(name=run.cell.source) | describe_weights(Path(path))


def execute_pretraining(config: str, options: dict, out: Path, work_dir: Path, digest: str,
                        report: Callable[[int, int], None]) -> None:
    """Make an embedded source checkpoint, and beside it a note of what it was made by, unless it is there."""
    with only_writer(work_dir, patience=math.inf):  # of another grid, which makes the same
        if read_note(out).get('digest') != digest:
            cfg = _load(config, options, work_dir, f'pretrain-{out.stem}-{digest}')
            pretrain(cfg, out, [ReportProgress(report)], made_by=config, digest=digest, **provenance())
        drop_checkpoints(work_dir)


def execute_permutation(base: Path, out: Path, digest: str, report: Callable[[int, int], None]) -> None:
    """Make the permuted source of another."""
    permute_source(base, out)
    write_note(out, read_note(out) | dict(digest=digest))
    report(1, 1)
