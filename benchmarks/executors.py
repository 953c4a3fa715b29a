"""Where runs are carried out: by worker processes here, in this process itself, or on a cluster."""

import os
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmseg_plugins.errors import UserError
from mmseg_plugins.parallel import available_cores
from mmseg_plugins.threads import chosen_threads

from .pool import Job, run_jobs
from .slurm import SlurmExecutor, given_arguments, read_settings

EXECUTORS = ('local', 'slurm', 'debug')


class Executor(Protocol):
    """`options` go to `execute_run`; `run` tells events as `pool.run_jobs` does."""
    options: dict

    def run(self, jobs: Sequence[Job], work: Path, on_event: Callable[[str, Hashable, Any], None]) -> None: ...


class LocalExecutor:
    """One worker per GPU; without one, one-thread workers share CPU cores best. OMP_NUM_THREADS is the user's."""
    options: dict = {}

    def __init__(self, workers: int | None):
        import torch

        cores, count = available_cores(), torch.cuda.device_count()
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        self.devices = (visible.split(',') if visible else [str(number) for number in range(count)])[:count]
        chosen = chosen_threads()
        self.workers = workers or count or max(cores // (chosen or 1), 1)
        self.threads = chosen or max(cores // self.workers, 1)

    def __str__(self) -> str:
        on = f' on {len(self.devices)} GPU(s)' if self.devices else ''
        return f'{self.workers} workers of {self.threads} thread(s){on}'

    def run(self, jobs: Sequence[Job], work: Path, on_event: Callable[[str, Hashable, Any], None]) -> None:
        run_jobs(jobs, self.workers, self.threads, self.devices, work / 'logs', on_event)


class DebugExecutor:
    """One job after another in this process; errors other than a user's go on up, to a debugger."""
    options = dict(debug=True)

    def __str__(self) -> str:
        return 'this process'

    def run(self, jobs: Sequence[Job], work: Path, on_event: Callable[[str, Hashable, Any], None]) -> None:
        failed = set()
        for job in jobs:
            if missing := job.needs & failed:
                on_event('blocked', job.name, missing)
                failed.add(job.name)
                continue
            try:
                on_event('done', job.name, job(lambda *steps, name=job.name: on_event('progress', name, steps)))
            except UserError as error:
                on_event('dead', job.name, str(error))
                failed.add(job.name)


def choose_executor(args) -> Executor:
    """By the command line.

    Raises:
        UserError: an option is for another executor.
    """
    given = given_arguments(args)
    of_others = [] if args.executor == 'slurm' else [(f'--{name}', 'slurm') for name in given]
    if args.workers and args.executor != 'local':
        of_others.append(('--workers', 'local'))
    for option, executor in of_others:
        raise UserError(f'{option} is for --executor {executor}, not for {args.executor}')
    if args.executor == 'slurm':
        detach = given.pop('detach', False)
        executor = SlurmExecutor(read_settings(given.pop('slurm', None), given), detach)
        if args.halve_on_oom and executor.options:
            raise UserError('--halve-on-oom is for runs of one process; set experiment.accumulate in the grid')
        return executor
    return LocalExecutor(args.workers) if args.executor == 'local' else DebugExecutor()


def make_jobs(plan, work: Path, out: Path, options: dict) -> list[Job]:
    """What is to do, in order of preference: sources first, each after what it starts from."""
    from .runs.records import record_path

    jobs = []
    for source in plan.sources:
        folder = work / 'sources' / f'{source.name}-{source.digest}'
        jobs.append(Job(('source', source.name), 'benchmarks.runs.execute:execute_pretraining',
                        (source.config, source.options, source.out, folder, source.digest),
                        frozenset({('source', source.needs)} if source.needs else ()),
                        folder=folder, leaves=source.out.with_suffix('.json')))
    made = {source.name for source in plan.sources}
    # runs from random weights need not wait for a source that is still being made
    for run in sorted(plan.todo, key=lambda run: run.cell.source in made):
        folder = work / 'runs' / run.name
        jobs.append(Job(run.name, 'benchmarks.runs.execute:execute_run', (run, out, folder),
                        frozenset({('source', run.cell.source)} if run.cell.source in made else ()), options,
                        folder, record_path(out, run)))
    return jobs


def execute(plan, executor: Executor, work: Path, out: Path, progress, halve: bool) -> tuple[int, int]:
    """Do what is to do, in `work`; returns how many runs failed, and how many ended without a record."""
    runs = {run.name: run for run in plan.todo}
    steps = {('source', source.name): source.steps for source in plan.sources} | {
        name: run.options.get('experiment.steps') or plan.steps[name] for name, run in runs.items()}
    ends = dict(done=0, failed=0, lost=0)

    def on_event(kind: str, name: Hashable, value: Any) -> None:
        if kind == 'progress':
            progress.advance(name, value[0])
            return
        if name not in runs:
            if kind != 'done':
                progress.say(f'source {name[1]}: {"again" if kind == "again" else "failed"}: {value}')
            if kind != 'again':
                progress.finish(name)
            return
        run = runs[name]
        label = f'{run.cell} seed {run.seed}'
        if kind == 'again':
            progress.say(f'again  {label}, from its last checkpoint: {value}')
            return
        reason = f'its source could not be made ({sorted(value)})' if kind == 'blocked' else value
        if kind in ('dead', 'blocked'):
            from .runs.execute import record_failure

            record_failure(run, out, work / 'runs' / name, reason)
        ends['lost' if kind == 'lost' else 'failed' if reason else 'done'] += 1
        progress.finish(name, f'failed  {label}: {reason}' if reason else f'done  {label}')

    progress.begin(steps)
    start = time.monotonic()
    executor.run(make_jobs(plan, work, out, dict(halve=halve) | executor.options), work, on_event)
    if ended := sum(ends.values()):
        made = f' and {len(plan.sources)} sources' if plan.sources else ''
        progress.say(f'{ended} runs{made} in {(time.monotonic() - start) / 60:.1f} minutes')
    return ends['failed'], ends['lost']
