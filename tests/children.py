"""Small runs and scripts in child processes that start at once: a server imports everything once and forks."""

import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import torch
from conftest import free_port
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

import benchmarks.report  # noqa: F401  (a grid ends with it)
from benchmarks import run_grid
from benchmarks.executors import local
from benchmarks.rendering import plotting
from benchmarks.runs import execute as runs
from mmseg_plugins.building import build_runner
from mmseg_plugins.errors import run_main
from mmseg_plugins.experiment import load_config, prepare_for_device
from mmseg_plugins.launch import world_size
from mmseg_plugins.models import WindowSegmentor

REPO = Path(__file__).parents[1]
CONFIG = REPO / 'configs' / 'mini_beit_centering_hippocampus.py'
PYTHON = sys.executable

context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(['children'])


def options(data_root: Path, **experiment) -> dict:
    values = dict(data_root=str(data_root), source=None, steps=12, warmup=2, batch=8, slices=3, evaluate='train',
                  checkpoint_interval=100) | experiment
    return {f'experiment.{key}': value for key, value in values.items()}


def _begin(log: Path, errors: Path | None = None, folder: Path = REPO) -> None:
    """What is printed goes to a file (errors to their own); Ctrl-C is heeded even where a shell has it ignored.

    Called from another folder than the repository, figures are drawn without PDFs, which take half of their time.
    """
    if folder != REPO:
        plotting.UNDATED.pop('pdf', None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    for number, path in ((1, log), (2, errors or log)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)


def train(work_dir: Path, options: dict, launcher: str = 'none', hooks: Sequence[Hook] = (),
          log: Path | None = None, path: Path | None = None, config: Path = CONFIG, group: bool = False) -> None:
    """Train a config as tools/train.py --resume does, if asked as the first process of a group.

    Args:
        path: where its own modules are.
    """
    if group:
        os.setpgid(0, 0)
    _begin(log or work_dir.with_suffix('.log'))
    sys.path[:0] = [str(path)] * (path is not None)

    def main() -> None:
        cfg = load_config(config, options, world_size(launcher))
        prepare_for_device(cfg, launcher)
        cfg.work_dir, cfg.resume, cfg.default_hooks.logger.interval = str(work_dir), True, 1
        training = build_runner(cfg)
        for hook in hooks:
            training.register_hook(hook)
        training.train()

    run_main(main)


def execute(run, place: Path, fits: int | None = None, stop_at: int | None = None, patience: float | None = None,
            **settings) -> None:
    """A run of a grid, as a worker executes it.

    Args:
        fits: windows that a pass may have at most, as if memory were short.
        stop_at: the step in which it gets a SIGTERM.
        patience: seconds to wait for another process.
    """
    _begin(place / 'log')
    if fits:
        loss = WindowSegmentor.loss

        def limited(self, inputs, samples):
            if len(inputs) > fits:
                raise torch.cuda.OutOfMemoryError('CUDA out of memory')
            return loss(self, inputs, samples)

        WindowSegmentor.loss = limited
    if patience is not None:
        runs.PATIENCE = patience

    def report(step: int, steps: int) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    run_main(lambda: print(runs.execute_run(run, place / 'out', place / 'work', report, **settings)))


def script(arguments: Sequence, log: Path, errors: Path | None = None, folder: Path = REPO,
           environment: dict | None = None) -> None:
    """A script as Python runs it, called from `folder`; a grid's workers are forked too."""
    _begin(log, errors, folder)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [str(argument) for argument in arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    local.SPAWN = multiprocessing.get_context('fork')
    runpy.run_path(sys.argv[0], run_name='__main__')


def run(command: Sequence, folder: Path = REPO, **environment: str) -> subprocess.CompletedProcess:
    """What a command leaves and prints; a Python script need not import everything anew."""
    command, environment = [str(word) for word in command], os.environ | environment
    if command[0] != PYTHON or not command[1].endswith('.py'):
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as place:
        out, errors = Path(place) / 'out', Path(place) / 'errors'
        process = start(script, command[1:], out, errors, folder, environment)
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode, out.read_text(), errors.read_text())


def grid(place: Path, arguments: Sequence[str], group: bool = False, fork: bool = False) -> None:
    """benchmarks/run_grid.py, called from `place`.

    Args:
        group: as the first process of a group.
        fork: its workers start at once; they do not notice when it is killed, as they hold its end of the pipe.
    """
    if group:
        os.setpgid(0, 0)
    if fork:
        local.SPAWN = multiprocessing.get_context('fork')
    _begin(place / 'log', folder=place)
    os.chdir(place)
    sys.argv = ['run_grid.py', *map(str, arguments)]
    run_main(run_grid.main)


def start(target, *args, **kwargs) -> multiprocessing.Process:
    # where the server finds `children`, in Python up to 3.13: it passes over what it cannot import
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join([str(REPO / 'tests'), str(REPO)])):
        forkserver.ensure_running()
    process = context.Process(target=target, args=args, kwargs=kwargs)
    process.start()
    return process


def start_ranks(count: int, target, *args, **kwargs) -> list[multiprocessing.Process]:
    """One process per rank, as torchrun would start them."""
    common = dict(WORLD_SIZE=str(count), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    return [start(with_environment, dict(common, RANK=str(rank), LOCAL_RANK=str(rank)), target, args, kwargs)
            for rank in range(count)]


def finish(processes, status: int = 0) -> None:
    """Wait for processes to end with a status; what is left of them when one has not is killed."""
    processes = processes if isinstance(processes, list) else [processes]
    try:
        for process in processes:
            process.join(300)
            assert process.exitcode == status
    finally:
        for process in processes:
            process.kill()


def with_environment(environment: dict, target, args: Sequence, kwargs: dict) -> None:
    os.environ.update(environment)
    target(*args, **kwargs)


class Linger(Hook):
    """Every step takes so long that something can happen in it."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        time.sleep(self.seconds)


class StopAtStep(Hook):
    """It gets a SIGTERM in a step."""

    def __init__(self, step: int):
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._stop(runner.iter + 1)

    def _stop(self, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class StopAtValidation(StopAtStep):
    """It gets a SIGTERM as the validation after a step begins."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        pass

    def before_val_epoch(self, runner) -> None:
        self._stop(runner.iter)


class Choke(Hook):
    """From one step on, the process is killed once it has written so many bytes into a file."""

    def __init__(self, step: int, size: int):
        self.step, self.size = step, size

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx + 1 == self.step:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@HOOKS.register_module()
class Spoil(Hook):
    """In one step, one process's first window or a weight's gradient is no number."""

    def __init__(self, step: int, rank: int, what: str):
        self.step, self.rank, self.what = step, rank, what

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx + 1 == self.step and runner.rank == self.rank:
            if self.what == 'window':
                data_batch['inputs'][0].fill_(float('nan'))
            else:
                weight = next(parameter for parameter in runner.model.parameters() if parameter.requires_grad)
                weight.register_hook(lambda gradient: gradient * float('nan'))
