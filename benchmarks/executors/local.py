"""Jobs on this machine: in worker processes, or in this process for a debugger."""

import os
import signal
import sys
import traceback
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from unittest.mock import patch

import torch

from mmseg_plugins.errors import Stopped, raise_stopped
from mmseg_plugins.parallel import available_cores
from mmseg_plugins.threads import chosen_threads

from .base import Executor, register_executor
from .jobs import Controller, Job

SPAWN = get_context('spawn')
DEATHS = 3  # in a row that a job may cause


@register_executor('debug')
class DebugExecutor(Executor):
    """One job after another in this process; errors other than a user's go on up."""
    options = dict(debug=True)

    def __str__(self) -> str:
        return 'this process'

    def run(self, controller: Controller) -> None:
        while job := controller.next():
            controller.ended(job, job(partial(controller.progress, job)))


@register_executor('local')
class LocalExecutor(Executor):
    """One worker per GPU; without one, one-thread workers share CPU cores best. OMP_NUM_THREADS is the user's.

    A dead worker is replaced and its job restarted; after three deaths without progress the job fails. Workers
    whose controller has died end too, after the step at hand.

    Args:
        workers: None: as many as there are GPUs, or else cores.
    """
    flags = ('workers',)

    def __init__(self, workers: int | None = None):
        cores, count = available_cores(), torch.cuda.device_count()
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        self.devices = (visible.split(',') if visible else [str(number) for number in range(count)])[:count]
        chosen = chosen_threads()
        self.workers = workers or count or max(cores // (chosen or 1), 1)
        self.threads = chosen or max(cores // self.workers, 1)

    def __str__(self) -> str:
        on = f' on {len(self.devices)} GPU(s)' if self.devices else ''
        return f'{self.workers} workers of {self.threads} thread(s){on}'

    def run(self, controller: Controller) -> None:
        workers = [_Worker(controller.work / 'logs' / f'worker{number}.log', self.threads,
                           self.devices[number % len(self.devices)] if self.devices else None)
                   for number in range(min(self.workers, len(controller.jobs)))]
        try:
            while True:
                for worker in workers:
                    if worker.job is None and (job := controller.next()):
                        worker.take(job)
                busy = {worker.pipe: worker for worker in workers if worker.job}
                if not busy:
                    return
                for pipe in wait(busy):
                    busy[pipe].hear(controller)
        finally:
            for worker in workers:  # a run at hand is kept first
                worker.pipe.close()
                worker.process.terminate()
            for worker in workers:
                worker.process.join()


class _Worker:
    """A process that imports the libraries once and then takes one job after another; `job` is the one at hand.

    Args:
        log: what it prints.
        threads: of torch.
        device: the only GPU that it sees, as CUDA_VISIBLE_DEVICES names it; None: there is none.
    """

    def __init__(self, log: Path, threads: int, device: str | None):
        self.log, self.threads = log, threads
        self.environment = {} if device is None else {'CUDA_VISIBLE_DEVICES': device}
        self.job: Job | None = None
        self._spawn()

    def _spawn(self) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        # no daemon: it could not start a loader's workers
        self.process = SPAWN.Process(target=_work, args=(theirs, self.threads, self.log))
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: the controller decides
        try:
            with patch.dict(os.environ, self.environment):  # torch, once imported, would not look again
                self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def take(self, job: Job) -> None:
        self.job, self.deaths, self.furthest = job, 0, 0
        try:
            self.pipe.send(job)
        except OSError:  # it died while it had nothing to do
            self._spawn()
            self.pipe.send(job)

    def hear(self, controller: Controller) -> None:
        """Pass on what it has sent, or take its place if it is dead."""
        job = self.job
        try:
            kind, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            end = (f'signal {signal.Signals(-code).name} (out of memory, or killed)' if code < 0 else
                   f'exit status {code}')
            reason = f'its process ended with {end}; see {self.log}'
            self._spawn()
            self.deaths += 1
            if self.deaths < DEATHS:
                self.pipe.send(job)
                controller.again(job, reason)
            else:
                self.job = None
                controller.died(job, f'{DEATHS} times without progress, {reason}')
            return
        if kind == 'progress':
            if value > self.furthest:
                self.furthest, self.deaths = value, 0
            controller.progress(job, value)
        else:
            self.job = None
            (controller.ended if kind == 'ended' else controller.died)(job, value)


def _work(pipe: Connection, threads: int, log: Path) -> None:
    signal.signal(signal.SIGTERM, raise_stopped)  # a command that is under way ends too
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(threads)

    def report(step: int, steps: int) -> None:
        try:
            pipe.send(('progress', step))
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)  # the controller is gone

    try:
        while True:
            try:
                job = pipe.recv()
            except (EOFError, OSError):
                return
            try:
                message = 'ended', job(report)
            except Exception as error:
                traceback.print_exc()
                message = 'died', f'{type(error).__name__}: {error}; see {log}'
            pipe.send(message)
    except Stopped as stop:
        sys.exit(128 + stop.number)
