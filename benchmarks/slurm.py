"""Jobs on a cluster: submitted through submitit once, and followed by whichever call comes later.

Before sbatch is called, a file below the grid's work folder notes which jobs a submission holds, under a name that
no other has. By these names squeue tells what is queued or running; what a job leaves tells that it ended well.
"""

import json
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from mmseg_plugins.errors import Stopped, UserError, nearest
from mmseg_plugins.files import write_json

from .grid.yaml_file import read_yaml
from .pool import Job
from .runs.records import read_object
from .slurm_job import Task
from .watch import read_last_line

REPO = Path(__file__).parents[1]
POLL = 3.0  # seconds
TIMEOUTS = 10**6  # a run may need any number of them
ENDED = {'BOOT_FAIL', 'CANCELLED', 'COMPLETED', 'DEADLINE', 'FAILED', 'NODE_FAIL', 'OUT_OF_MEMORY', 'PREEMPTED',
         'TIMEOUT', 'GONE'}
# sbatch's options that are set here, and what sets them
OURS = {'partition': '--partition', 'time': '--time', 'nodes': '--nodes', 'gpus-per-node': '--gpus',
        'ntasks-per-node': '--gpus', 'cpus-per-task': '--cpus', 'mem': '--memory', 'array': '--limit',
        'signal': '--grace', **dict.fromkeys(
            'dependency error job-name kill-on-invalid-dep no-requeue open-mode output requeue'.split(), '')}


def _setting(default: Any, kind: type, help: str, least: int | None = None) -> Any:
    return field(default=default, metadata=dict(kind=kind, help=help, least=least))


@dataclass(frozen=True)
class SlurmSettings:
    """What a run asks Slurm for."""
    partition: str | None = _setting(None, str, "default: the cluster's")
    time: int = _setting(240, int, 'minutes, after which a run is requeued and goes on (default: 240)', 1)
    nodes: int = _setting(1, int, 'nodes of a run (default: 1)', 1)
    gpus: int = _setting(1, int, 'GPUs on each node, a process each; 0: one process on CPUs (default: 1)', 0)
    cpus: int = _setting(4, int, 'CPU cores of each process (default: 4)', 1)
    memory: str | None = _setting(None, str, "on each node, e.g. 32G (default: the cluster's)")
    limit: int = _setting(256, int, 'runs of a submission that run at a time (default: 256)', 1)
    grace: int = _setting(90, int, 'seconds from the signal that the time is up to the end (default: 90)', 1)
    sbatch: dict = field(default_factory=dict, metadata=dict(
        kind=dict, help="any others of sbatch's options, e.g. account=A"))

    @property
    def processes(self) -> int:
        return self.nodes * max(self.gpus, 1)


def add_arguments(parser) -> None:
    group = parser.add_argument_group('Slurm (--executor slurm)')
    group.add_argument('--slurm', type=Path, metavar='FILE.yaml', help='holds any of these; the command line wins')
    for setting in fields(SlurmSettings):
        kind = setting.metadata['kind']
        form = dict(nargs='+', metavar='KEY=VALUE') if kind is dict else dict(type=kind)
        group.add_argument(f'--{setting.name}', help=setting.metadata['help'], **form)
    group.add_argument('--detach', action='store_true', default=None, help='submit and leave')


def given_arguments(args) -> dict:
    """Those of `add_arguments` that were given, by name."""
    names = ['slurm', *(setting.name for setting in fields(SlurmSettings)), 'detach']
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def read_settings(path: Path | None, given: dict) -> SlurmSettings:
    """Settings from a YAML file and, before it, the command line.

    Raises:
        UserError: names the file or option and the key or value that is wrong.
    """
    values = read_yaml(path) if path else {}
    known = {setting.name: setting.metadata for setting in fields(SlurmSettings)}
    for key, value in values.items():
        if key not in known:
            raise UserError(f'{path}: unknown key {key!r}{nearest(key, known)}')
        if not isinstance(value, known[key]['kind']) or isinstance(value, bool):
            form = {int: 'a whole number', str: 'a text', dict: '{key: value}'}[known[key]['kind']]
            raise UserError(f'{path}: {key} is {value!r}; write it as {form}')
    settings = {**values, **given, 'sbatch': dict(values.get('sbatch', ()))}
    for text in given.get('sbatch', ()):
        key, _, value = text.partition('=')
        settings['sbatch'][key] = value or True
    for key in settings['sbatch']:
        if (instead := OURS.get(key.replace('_', '-'))) is not None:
            raise UserError(f'sbatch option {key!r} is set here already{instead and f"; use {instead}"}')
    for key, value in settings.items():
        least = known[key].get('least')
        if least is not None and value < least:
            raise UserError(f'{key} is {value}; it must be at least {least}')
    return SlurmSettings(**settings)


class SlurmExecutor:
    """Jobs in arrays of those that need the same.

    Args:
        detach: submit and leave.
    """

    def __init__(self, settings: SlurmSettings, detach: bool):
        self.settings, self.detach = settings, detach
        self.options = dict(launcher='pytorch') if settings.processes > 1 else {}

    def __str__(self) -> str:
        return f'Slurm, {self.settings.processes} process(es) each'

    def run(self, jobs: Sequence[Job], work: Path, on_event: Callable[[str, Hashable, Any], None]) -> None:
        """Submit what is neither queued nor running, and follow all of it; events as those of `pool.run_jobs`.

        A job that ended without what it should leave is ('lost', name, reason): the next call submits it again.

        Raises:
            UserError: there is no Slurm here, or it refuses.
            SystemExit: interrupted, while the jobs go on.
        """
        for command in ('sbatch', 'squeue', 'srun'):
            if not shutil.which(command):
                raise UserError(f'{command} not found: this machine does not submit to Slurm; '
                                'log in where it does, or use --executor local')
        folder = work / 'slurm'
        try:
            followed = find_submitted(jobs, folder)
            groups: dict[tuple, list[Job]] = {}
            for job in jobs:
                if job.name in followed:
                    continue
                if (read_object(job.leaves) or {}).get('state') == 'done':  # since the plan was made
                    on_event('done', job.name, None)
                else:
                    groups.setdefault((job.needs, 'launcher' in job.options), []).append(job)
            for (needs, parallel), group in groups.items():
                after = [followed[need].number for need in needs if need in followed]
                followed |= self._submit(group, parallel, after, folder)
            if not self.detach:
                _follow(list(followed.values()), on_event)
            elif followed:
                print(f'{len(followed)} jobs are with Slurm; {_what_next(folder)}')
        except (KeyboardInterrupt, Stopped) as end:
            if not any(folder.glob('*.json')):
                raise
            print(f'the jobs go on; {_what_next(folder)}', flush=True)
            raise SystemExit(128 + getattr(end, 'number', signal.SIGINT)) from None

    def _submit(self, jobs: Sequence[Job], parallel: bool, after: Sequence[str], folder: Path
                ) -> dict[Hashable, 'Followed']:
        """One sbatch, for jobs that start once those numbered `after` have ended well."""
        settings = self.settings
        nodes, gpus = (settings.nodes, settings.gpus) if parallel else (1, min(settings.gpus, 1))
        grid = re.sub(r'[^\w-]', '_', folder.parent.name)
        submission = Submission(folder / f'{grid}-{uuid.uuid4().hex[:8]}', [_key(job) for job in jobs])
        submission.write()
        executor = submitit.SlurmExecutor(submission.folder, max_num_timeout=TIMEOUTS)
        executor.update_parameters(
            job_name=submission.name, partition=settings.partition, time=settings.time, nodes=nodes,
            ntasks_per_node=max(gpus, 1), gpus_per_node=gpus or None, cpus_per_task=settings.cpus,
            mem=settings.memory, signal_delay_s=settings.grace, array_parallelism=settings.limit,
            dependency=':'.join(['afterok', *after]) if after else None, stderr_to_stdout=True,
            # srun does not take the first from sbatch
            srun_args=[f'--cpus-per-task={settings.cpus}', '--kill-on-bad-exit=1'],
            setup=[f'export PYTHONPATH={shlex.quote(str(REPO))}${{PYTHONPATH:+:$PYTHONPATH}}'],
            additional_parameters={'requeue': True, 'kill-on-invalid-dep': 'yes', **settings.sbatch})
        try:
            with redirect_stderr(StringIO()):  # submitit repeats there what it raises
                [first, *_] = executor.submit_array([Task(pickle.dumps(job)) for job in jobs])
        except FailedJobError as error:
            submission.note.unlink()
            shutil.rmtree(submission.folder)
            lines = [line.removeprefix('sbatch: ').removeprefix('error: ') for line in str(error).splitlines()]
            raise UserError(f'sbatch: {"; ".join(lines)}; see Slurm in run_grid.py --help') from None
        for job in jobs:  # of an earlier attempt that failed; their processes have yet to start
            job.leaves.unlink(missing_ok=True)
        submission = replace(submission, number=first.job_id.partition('_')[0])
        submission.write()
        return {job.name: Followed(job, submission, index) for index, job in enumerate(jobs)}


@dataclass(frozen=True)
class Submission:
    """Jobs that went to Slurm together; `number` is Slurm's, None until all that they need is in place."""
    folder: Path
    keys: Sequence[str]
    number: str | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def note(self) -> Path:
        return self.folder.with_suffix('.json')

    def write(self) -> None:
        write_json(self.note, dict(keys=self.keys, number=self.number))


@dataclass
class Followed:
    """A job that is with Slurm, as squeue last told of it."""
    job: Job
    submission: Submission
    index: int
    state: str = 'PENDING'
    reason: str = ''
    step: int | None = None
    missed: int = 0  # times in a row that it had ended, or was not known, without what it should leave

    @property
    def number(self) -> str:
        """Slurm's name of it."""
        submission = self.submission
        return f'{submission.number}_{self.index}' if len(submission.keys) > 1 else submission.number

    @property
    def log(self) -> Path:
        return self.submission.folder / f'{self.number}_0_log.out'


def _key(job: Job) -> str:
    """What it makes, from what."""
    return f'{job.folder.name} {job.leaves.resolve()}'


def _what_next(folder: Path) -> str:
    names = ','.join(sorted(path.stem for path in folder.glob('*.json')))
    return f'call again to follow them, cancel them with: scancel --name={names}'


def _ask(*command: str) -> list[str]:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f'{command[0]}: {" ".join(result.stderr.split())}')
    return result.stdout.splitlines()


def _ask_queue(names: Iterable[str]) -> dict[tuple[str, int], tuple[str, str]]:
    """State and reason of the jobs that Slurm still knows, ended ones among them, by submission and index."""
    names = ','.join(sorted(set(names)))
    lines = _ask('squeue', '-h', '-r', '-t', 'all', f'--name={names}', '-o', '%j|%K|%T|%r') if names else []
    rows = [line.split('|', 3) for line in lines]
    return {(name, int(index) if index.isdigit() else 0): (state, '' if reason == 'None' else reason)
            for name, index, state, reason in rows}


def find_submitted(jobs: Iterable[Job], folder: Path) -> dict[Hashable, Followed]:
    """Those of the jobs that are queued or running, by name; notes of what has ended are taken away."""
    submissions = []
    for path in sorted(folder.glob('*.json')):
        submission = Submission(path.with_suffix(''), **json.loads(path.read_text()))
        if submission.number is None:  # its controller died in between, so its jobs may lack their input
            _ask('scancel', f'--name={submission.name}')
            path.unlink()
        else:
            submissions.append(submission)
    queue = _ask_queue(submission.name for submission in submissions)
    by_key, found = {_key(job): job for job in jobs}, {}
    for submission in submissions:
        alive = {index: queue[submission.name, index] for index in range(len(submission.keys))
                 if queue.get((submission.name, index), ('GONE',))[0] not in ENDED}
        if not alive:
            submission.note.unlink()
        for index, (state, reason) in alive.items():
            if job := by_key.get(submission.keys[index]):
                found[job.name] = Followed(job, submission, index, state, reason)
    return found


def _follow(followed: list[Followed], on_event: Callable[[str, Hashable, Any], None]) -> None:
    """Poll until all have ended."""
    silent = False
    while followed:
        try:
            queue = _ask_queue(each.submission.name for each in followed)
            silent = False
        except UserError as error:
            if not silent:
                print(f'{error}; asking on')
            silent = True
            time.sleep(POLL)
            continue
        followed = [each for each in followed if not _look_at(each, queue, on_event)]
        if followed:
            time.sleep(POLL)


def _look_at(each: Followed, queue: dict, on_event: Callable[[str, Hashable, Any], None]) -> bool:
    """Tell what has changed; whether it has ended."""
    name, before = each.job.name, each.state
    each.state, reason = queue.get((each.submission.name, each.index), ('GONE', ''))
    each.reason = reason or each.reason
    if (left := read_object(each.job.leaves)) is not None:
        on_event('done', name, left.get('reason'))
        return True
    each.missed = each.missed + 1 if each.state in ENDED else 0
    if each.missed == 2:  # a shared disk may show a file late
        state = 'its job ended' if each.state == 'GONE' else f'its job is {each.state.lower()}'
        on_event('lost', name, f'{state}{each.reason and f" ({each.reason})"}; see {each.log}')
        return True
    if before == 'RUNNING' and each.state == 'PENDING':
        on_event('again', name, 'its job was requeued')
    step = read_last_line(each.job.folder).get('step')
    if step is not None and step != each.step:
        each.step = step
        on_event('progress', name, (step, None))
    return False
