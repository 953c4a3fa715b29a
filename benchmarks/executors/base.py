"""What an executor is, and how one is registered, chosen and set to work."""

import time
from abc import ABC, abstractmethod
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.progress import Progress
from mmseg_plugins.registering import register_once

from ..runs.agenda import Agenda
from .jobs import Controller, make_jobs

EXECUTORS: dict[str, type['Executor']] = {}


class Executor(ABC):
    """Where the jobs of a grid are carried out. One's own stands in any module (`run_grid.py --imports`):

        @register_executor('here')
        class Here(Executor):
            def run(self, controller):
                while job := controller.next():
                    controller.ended(job, job(partial(controller.progress, job)))

    Attributes:
        options: keyword arguments of every run, for `execute_run`.
        flags: options of run_grid.py that its constructor takes, and other executors do not, without their dashes.
        detach: whether `run` returns while jobs go on.
    """
    options: dict[str, Any] = {}
    flags: Sequence[str] = ()
    detach = False

    def __str__(self) -> str:
        return type(self).__name__

    @abstractmethod
    def run(self, controller: Controller) -> None:
        """Carry out the controller's jobs, each after the one that it needs, and tell how each of them ends.

        `controller.next()` is the next job that can start; `controller.jobs` are all. Calling a job, in this
        process or wherever it is sent, carries it out and leaves the file `job.leaves`, which must get here. Then
        `controller.ended` is told what the call has returned, or `controller.died` that it has not; before that,
        `controller.progress` and `controller.again` may be told what happens to it.

        Raises:
            UserError: no job can be carried out here.
        """


def register_executor(name: str) -> Callable[[type[Executor]], type[Executor]]:
    """A decorator of an executor's class: `run_grid.py --executor NAME` chooses it."""
    return register_once(EXECUTORS, name, 'executor')


def choose_executor(args: Namespace) -> Executor:
    """By the command line of run_grid.py, once the grid's own modules are imported.

    Raises:
        UserError: there is no such executor, or an option is for another.
    """
    if args.executor not in EXECUTORS:
        raise UserError(f'--executor {args.executor}: not registered{nearest(args.executor, EXECUTORS)}; name the '
                        'module that registers it: --imports MODULE')
    chosen = EXECUTORS[args.executor]
    for name, executor in EXECUTORS.items():
        for flag in executor.flags:
            if flag not in chosen.flags and getattr(args, flag) is not None:
                raise UserError(f'--{flag} is for --executor {name}, not for {args.executor}')
    executor = chosen(**{flag: getattr(args, flag) for flag in chosen.flags})
    if args.halve_on_oom and 'launcher' in executor.options:
        raise UserError('--halve-on-oom is for runs of one process; set experiment.accumulate in the grid')
    return executor


def execute(agenda: Agenda, executor: Executor, work: Path, out: Path, progress: Progress, halve: bool
            ) -> tuple[int, int]:
    """Do what is to do; returns how many runs failed, and how many ended without a record.

    Args:
        work: folder of the jobs' own.
        out: gets the records.
        halve: of `execute_run`.
    """
    jobs = make_jobs(agenda, work, out, dict(halve=halve) | executor.options)
    controller, start = Controller(jobs, work, out, progress), time.monotonic()
    executor.run(controller)
    if executor.detach:
        return 0, 0
    for job in controller.unfinished():
        controller.ended(job, f'{executor} has left it undone')
    ends = Counter(controller.states[job.name] for job in jobs if job.run)
    if ends:
        made = f' and {len(agenda.sources)} sources' if agenda.sources else ''
        progress.say(f'{ends.total()} runs{made} in {(time.monotonic() - start) / 60:.1f} minutes')
    return ends['failed'], ends['lost']
