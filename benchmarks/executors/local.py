"""Worker processes that import the libraries once and then take one job after another.

A worker that dies takes only its own job with it, which a fresh worker takes up again, until it has died so often
without getting further that it would for ever. A controller that dies ends its workers at their next report, as a
signal would: they keep what they have.
"""

import importlib
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mmseg_plugins.errors import Stopped

SPAWN = multiprocessing.get_context('spawn')
DEATHS = 3  # of a job, without a step more than before


@dataclass(frozen=True)
class Job:
    """Work: `function(*arguments, report, **options)`, startable once all of `needs` are done.

    It works in `folder`, where its log is, and writes the file `leaves` last.
    """
    name: Hashable
    function: str  # 'module:function', imported where it runs
    arguments: tuple
    needs: frozenset = field(default_factory=frozenset)
    options: dict = field(default_factory=dict)
    folder: Path | None = None
    leaves: Path | None = None

    def __call__(self, report: Callable[[int, int], None]) -> Any:
        module, function = self.function.split(':')
        return getattr(importlib.import_module(module), function)(*self.arguments, report, **self.options)


def run_jobs(jobs: Iterable[Job], workers: int, threads: int, devices: Sequence[str], log_folder: Path,
             on_event: Callable[[str, Hashable, Any], None]) -> None:
    """Run all jobs whose needs get done.

    Args:
        jobs: in order of preference.
        workers: processes.
        threads: torch threads of each.
        devices: GPUs (as CUDA_VISIBLE_DEVICES names them), shared out over the workers; empty: CPU.
        log_folder: gets what the workers print, one file each.
        on_event: called with ('progress', name, (step, steps)), ('done', name, result), ('again', name, reason)
            and ('dead', name, reason) of one whose process died, and ('blocked', name, missing needs) for what
            could not start.
    """
    waiting, finished = list(jobs), set()
    furthest, deaths = {}, Counter()  # by name
    pool = [_Worker(number, threads, devices, log_folder) for number in range(min(workers, len(waiting)))]
    try:
        while True:
            for worker in pool:
                if worker.job is None:
                    job = next((job for job in waiting if job.needs <= finished), None)
                    if job:
                        waiting.remove(job)
                        worker.start(job)
            busy = [worker for worker in pool if worker.job]
            if not busy:
                break
            ready = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe not in ready:
                    continue
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    job = worker.replace()
                    name, reason = job.name, f'its process ended with {worker.last_status}'
                    deaths[name] += 1
                    if deaths[name] < DEATHS:
                        waiting.insert(0, job)
                        on_event('again', name, reason)
                    else:
                        on_event('dead', name, reason)
                    continue
                name = worker.job.name
                if kind == 'progress' and value[0] > furthest.setdefault(name, value[0]):
                    furthest[name], deaths[name] = value[0], 0
                if kind == 'done':
                    finished.add(name)
                if kind in ('done', 'dead'):
                    worker.job = None
                on_event(kind, name, value)
        for job in waiting:
            on_event('blocked', job.name, job.needs - finished)
    finally:
        for worker in pool:
            worker.end()
        for worker in pool:
            worker.process.join()


@contextmanager
def _visible(device: str | None):
    """What is started meanwhile sees this GPU alone; torch must find it so before it looks."""
    before = os.environ.get('CUDA_VISIBLE_DEVICES')
    if device is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = device
    try:
        yield
    finally:
        if device is not None:
            if before is None:
                del os.environ['CUDA_VISIBLE_DEVICES']
            else:
                os.environ['CUDA_VISIBLE_DEVICES'] = before


class _Worker:
    def __init__(self, number: int, threads: int, devices: Sequence[str], log_folder: Path):
        self.threads, self.log = threads, log_folder / f'worker{number}.log'
        self.device = devices[number % len(devices)] if devices else None
        self.job: Job | None = None
        self.last_status = ''
        self._spawn()

    def _spawn(self) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        # no daemon: it could not start a loader's workers
        self.process = SPAWN.Process(target=_work, args=(theirs, self.threads, self.log))
        with _visible(self.device):
            self.process.start()
        theirs.close()

    def start(self, job: Job) -> None:
        try:
            self.pipe.send(job)
        except OSError:  # it died while it had nothing to do
            self._respawn()
            self.pipe.send(job)
        self.job = job

    def replace(self) -> Job:
        """After a death: take the job back and put a fresh process in place."""
        died = self._respawn()
        code = died.exitcode
        self.last_status = (f'signal {signal.Signals(-code).name} (out of memory, or killed)' if code < 0
                            else f'exit status {code}') + f'; see {self.log}'
        job, self.job = self.job, None
        return job

    def _respawn(self) -> SPAWN.Process:
        """Put a fresh process in the place of one that ended, and return that."""
        died = self.process
        died.join()
        self._spawn()
        return died

    def end(self) -> None:
        """Ask it to; a run at hand is kept first."""
        self.pipe.close()
        self.process.terminate()


def _work(pipe: Connection, threads: int, log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the controller decides
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    import torch

    torch.set_num_threads(threads)

    def report(step: int, steps: int) -> None:
        try:
            pipe.send(('progress', (step, steps)))
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)  # the controller is gone

    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(('done', job(report)))
        except Stopped as stop:
            sys.exit(128 + stop.number)
        except Exception as error:
            import traceback

            traceback.print_exc()
            pipe.send(('dead', f'{type(error).__name__}: {error}; see {log}'))
