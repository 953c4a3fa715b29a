"""What a grid has to do as jobs, and what becomes of them: told, recorded and counted."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmseg_plugins.datasets.splits import describe_fold
from mmseg_plugins.errors import UserError, some
from mmseg_plugins.progress import Progress

from ..runs.agenda import Agenda
from ..runs.execute import execute_permutation, execute_pretraining, execute_run, record_failure
from ..runs.records import read_object, record_path
from ..runs.run import Run

NAMED = 4  # running jobs that the progress names; of the others it gives the number
OPEN = 'waiting', 'running'


@dataclass(frozen=True)
class Job:
    """A run, or the making of an embedded source. It can be pickled, and carried out anywhere.

    Args:
        name: no other job has it.
        function: does it, given a `report`; returns None, or in one line why it failed.
        needs: name of the job that must be done before; None: it can start at once.
        folder: where it works and logs, and goes on if it was interrupted.
        leaves: the JSON file by which it is known that it has ended, a run's record or a source's note.
        steps: of training.
        run: None for a source.
        digest: that a source's note has, as one of another recipe may be there.
    """
    name: str
    function: Callable[[Callable[[int, int], None]], str | None]
    needs: str | None = None
    folder: Path | None = None
    leaves: Path | None = None
    steps: int = 1
    run: Run | None = None
    digest: str = ''

    def __call__(self, report: Callable[[int, int], None]) -> str | None:
        """Carry it out in this process, calling `report` with (step, steps) after every step; see `function`."""
        try:
            return self.function(report)
        except UserError as error:
            return str(error)

    def __str__(self) -> str:
        if not self.run:
            return self.name
        fold = f' {describe_fold(self.run.fold)}' if self.run.fold else ''
        setting = f', {self.run.setting}' if self.run.setting else ''
        return f'{self.run.cell} seed {self.run.seed}{fold}{setting}'

    def left(self) -> dict | None:
        """What it has left, of a run with `state` and, where it failed, `reason`; None: nothing yet."""
        left = self.leaves and read_object(self.leaves)
        return left if left and left.get('digest', '') == self.digest else None


def make_jobs(agenda: Agenda, work: Path, out: Path, options: dict[str, Any]) -> list[Job]:
    """What is to do, in order of preference: sources first, each after what it starts from; then seeds in turn,
    so that a grid which is stopped has whole tables of fewer seeds.

    Args:
        work: folder of the jobs' own.
        out: gets the records.
        options: of `execute_run`.
    """
    names = {source.name: f'source {source.name}' for source in agenda.sources}
    jobs = []
    for source in agenda.sources:
        # beside what it makes, so that grids which need the same wait for one another
        folder = source.out.parent / '.making' / f'{source.name}-{source.digest}'
        make = (partial(execute_pretraining, source.config, source.options, source.out, folder, source.digest)
                if source.config else partial(execute_permutation, source.base, source.out, source.digest))
        jobs.append(Job(names[source.name], make, names.get(source.needs), folder, source.out.with_suffix('.json'),
                        source.steps, digest=source.digest))
    seeds = list(dict.fromkeys(run.seed for run in agenda.runs))
    # runs from random weights need not wait for a source that is still being made
    for run in sorted(agenda.todo, key=lambda run: (seeds.index(run.seed), run.cell.source in names)):
        folder, steps = work / 'runs' / run.name, run.options.get('experiment.steps') or agenda.steps[run.name]
        jobs.append(Job(run.name, partial(execute_run, run, out, folder, **options), names.get(run.cell.source),
                        folder, record_path(out, run), steps, run))
    return jobs


class Controller:
    """Hands jobs to an executor, which tells it what becomes of them.

    Args:
        jobs: in order of preference, each after the one that it needs.
        work: a folder for files of the executor's own.
        out: gets the records of runs that died.
        progress: shows how far all jobs together are.

    Attributes:
        states: of each job by name: `waiting`, `running`, `done`, `failed` with a record that says why, or `lost`
            without one, so that the next call of the grid tries it again.
    """

    def __init__(self, jobs: list[Job], work: Path, out: Path, progress: Progress):
        self.jobs, self.work, self.states = jobs, work, {job.name: 'waiting' for job in jobs}
        self._out, self._progress, self._count = out, progress, progress.counter('training steps')
        self._first, self._last = {}, {}  # steps that each job has told of
        self._queued: dict[str, str] = {}
        if jobs:
            self._show()

    def next(self) -> Job | None:
        """The next job that can start, to be carried out; None: none is left, or they need others that run."""
        for job in self.jobs:
            if self.states[job.name] == 'waiting' and (job.needs is None or self.states[job.needs] == 'done'):
                self.states[job.name] = 'running'
                return job
        return None

    def unfinished(self) -> list[Job]:
        """The jobs whose end nobody has told."""
        return [job for job in self.jobs if self.states[job.name] in OPEN]

    def progress(self, job: Job, step: int, steps: int | None = None) -> None:
        """It is running, and so many of its steps are done."""
        if self.states[job.name] in OPEN:
            self.states[job.name] = 'running'
            self._first.setdefault(job.name, step)
            self._last[job.name] = step
            self._show()

    def queued(self, why: dict[str, str]) -> None:
        """These wait, by name, for what is not another job."""
        self._queued = why
        self.states |= dict.fromkeys(why, 'waiting')
        self._show()

    def again(self, job: Job, why: str) -> None:
        """It was ended from outside, and goes on from its last checkpoint."""
        self._progress.say(f'again  {job}, from its last checkpoint: {why}')

    def ended(self, job: Job, reason: str | None = None) -> None:
        """It is done, or for a reason it is not, and neither is what needs it. Only the first word counts."""
        if self.states[job.name] not in OPEN:
            return
        if not reason and job.leaves and not job.left():
            reason = f'it has not left {job.leaves}'
        self.states[job.name] = 'failed' if reason and job.left() else 'lost' if reason else 'done'
        self._progress.say(f'{f"failed  {job}: {reason}" if reason else f"done  {job}"}  [{self._show()}]')
        if reason:
            for other in [other for other in self.unfinished() if other.needs == job.name]:
                self.ended(other, f'{job} could not be made')

    def died(self, job: Job, reason: str) -> None:
        """It ended without a word, and is not to be tried again: a run's record is written in its place."""
        if job.run:
            record_failure(job.run, self._out, job.folder, reason)
        self.ended(job, reason)

    def _show(self) -> str:
        """Bring the counter up to date; it counts what this call does, not what earlier ones have done."""
        unfinished = self.unfinished()
        done = sum(step - self._first[name] for name, step in self._last.items())
        left = sum(job.steps - self._last.get(job.name, 0) for job in unfinished)
        running = [f'{job.name} ({self._last.get(job.name, 0)}/{job.steps})' for job in unfinished
                   if self.states[job.name] == 'running']
        told = [f'{len(self.jobs) - len(unfinished)} of {len(self.jobs)} ended',
                f'running: {some(running, NAMED) or "nothing yet"}']
        why = Counter(job.needs if self.states.get(job.needs, 'done') != 'done' else self._queued.get(job.name)
                      for job in unfinished if self.states[job.name] == 'waiting')
        if waiting := [f'{count} for {what}' for what, count in why.items() if what]:
            told.append(f'waiting: {some(waiting, NAMED)}')
        return self._count(done, done + left, ', '.join(told))
