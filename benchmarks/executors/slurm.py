"""Jobs on a cluster: submitted through submitit once, and followed by whichever call comes later.

All jobs of a grid have one name, and a note in its work folder has their numbers. By these squeue tells what is
queued or running; what a job leaves tells that it ended well.
"""

import hashlib
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import time
from argparse import ArgumentParser
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, field, fields
from io import StringIO
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from mmseg_plugins.commands import REPO
from mmseg_plugins.errors import Stopped, UserError, nearest
from mmseg_plugins.files import write_json

from ..grid.yaml_file import read_yaml
from ..runs.records import read_object
from .base import Executor, register_executor
from .jobs import Controller, Job
from .slurm_job import Task
from .watch import read_last_line

NOTE = 'jobs.json'
POLL = 3.0  # seconds
TIMEOUTS = 10**6  # a run may need any number of them
ENDED = {'BOOT_FAIL', 'CANCELLED', 'COMPLETED', 'DEADLINE', 'FAILED', 'NODE_FAIL', 'OUT_OF_MEMORY', 'PREEMPTED',
         'TIMEOUT', 'GONE'}
# sbatch's options that are set here, and what sets them
OURS = {'partition': '--partition', 'time': '--time', 'nodes': '--nodes', 'gpus-per-node': '--gpus',
        'ntasks-per-node': '--gpus', 'cpus-per-task': '--cpus', 'mem': '--memory', 'array': '--limit',
        'signal': '--grace', **dict.fromkeys(
            'dependency error job-name kill-on-invalid-dep no-requeue open-mode output requeue'.split(), '')}


def _setting(default: Any, help: str, least: int | None = None) -> Any:
    must_be = 'a text' if least is None else f'a whole number, at least {least}'
    return field(default=default, metadata=dict(help=help, least=least, must_be=must_be))


@dataclass(frozen=True)
class SlurmSettings:
    """What a run asks Slurm for; an empty text leaves it to the cluster."""
    partition: str = _setting('', "default: the cluster's")
    time: int = _setting(240, 'minutes, after which a run is requeued and goes on (default: 240)', 1)
    nodes: int = _setting(1, 'nodes of a run (default: 1)', 1)
    gpus: int = _setting(1, 'GPUs on each node, a process each; 0: one process on CPUs (default: 1)', 0)
    cpus: int = _setting(4, 'CPU cores of each process (default: 4)', 1)
    memory: str = _setting('', "on each node, e.g. 32G (default: the cluster's)")
    limit: int = _setting(256, 'runs of a submission that run at a time (default: 256)', 1)
    grace: int = _setting(90, 'seconds from the signal that the time is up to the end (default: 90)', 1)
    sbatch: dict = field(default_factory=dict, metadata=dict(
        help="any others of sbatch's options, e.g. account=A", least=None, must_be='options, as {account: A}'))

    @property
    def processes(self) -> int:
        return self.nodes * max(self.gpus, 1)


SETTINGS = {setting.name: setting for setting in fields(SlurmSettings)}


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group('Slurm (--executor slurm)')
    group.add_argument('--slurm', type=Path, metavar='FILE.yaml', help='holds any of these; the command line wins')
    for name, setting in SETTINGS.items():
        form = dict(nargs='+', metavar='KEY=VALUE') if setting.type is dict else dict(type=setting.type)
        group.add_argument(f'--{name}', help=setting.metadata['help'], **form)
    group.add_argument('--detach', action='store_true', default=None, help='submit and leave')


def read_settings(path: Path | None, given: dict[str, Any]) -> SlurmSettings:
    """Settings from a YAML file and, before it, the command line.

    Raises:
        UserError: names the file or option and the key or value that is wrong.
    """
    values = read_yaml(path) if path else {}
    pairs = (text.partition('=') for text in given.get('sbatch', ()))
    options = {key: value or True for key, _, value in pairs}
    for where, settings in ((f'{path}: ', values), ('', given | dict(sbatch=options))):
        for key, value in settings.items():
            if key not in SETTINGS:
                raise UserError(f'{where}unknown key {key!r}{nearest(key, SETTINGS)}')
            rule = SETTINGS[key].metadata
            if type(value) is not SETTINGS[key].type or rule['least'] is not None and value < rule['least']:
                raise UserError(f'{where}{key} is {value!r}; it must be {rule["must_be"]}')
    options = values.get('sbatch', {}) | options
    for key in options:
        if (instead := OURS.get(key.replace('_', '-'))) is not None:
            raise UserError(f'sbatch option {key!r} is set here already{instead and f"; use {instead}"}')
    return SlurmSettings(**{**values, **given, 'sbatch': options})


@register_executor('slurm')
class SlurmExecutor(Executor):
    """Jobs of a Slurm cluster, in arrays of those that need the same.

    A job that ended without what it should leave is lost: the next call submits it again.

    Args:
        slurm: a YAML file of settings.
        detach: submit and leave.
        given: settings that come before those of the file; None: not given.
    """
    flags = ('slurm', *SETTINGS, 'detach')

    def __init__(self, slurm: Path | None = None, detach: bool | None = None, **given):
        self.settings = read_settings(slurm, {key: value for key, value in given.items() if value is not None})
        self.detach = bool(detach)
        self.options = dict(launcher='pytorch') if self.settings.processes > 1 else {}

    def __str__(self) -> str:
        return f'Slurm, {self.settings.processes} process(es) each'

    def run(self, controller: Controller) -> None:
        """Submit what is neither queued nor running, and follow all of it.

        Raises:
            UserError: there is no Slurm here, or it refuses.
            SystemExit: interrupted, while the jobs go on.
        """
        for command in ('sbatch', 'squeue', 'srun'):
            if not shutil.which(command):
                raise UserError(f'{command} not found: this machine does not submit to Slurm; '
                                'log in where it does, or use --executor local')
        folder = controller.work / 'slurm'
        what_next = f'call again to follow them, cancel them with: scancel --name={name_of(folder)}'
        try:
            numbers = find_submitted(controller.jobs, folder)
            groups: dict[tuple, list[Job]] = {}
            for job in controller.jobs:
                if job.name in numbers:
                    continue
                if (job.left() or {}).get('state') == 'done':  # since the agenda was made
                    controller.ended(job)
                else:
                    groups.setdefault((job.needs, bool(job.run)), []).append(job)
            for (needs, parallel), group in groups.items():
                numbers |= self._submit(group, parallel, numbers.get(needs), folder)
            if not self.detach:
                _follow(controller, numbers, folder)
            elif numbers:
                print(f'{len(numbers)} jobs are with Slurm; {what_next}')
        except (KeyboardInterrupt, Stopped) as end:
            if not read_object(folder / NOTE):
                raise
            print(f'the jobs go on; {what_next}', flush=True)
            raise SystemExit(128 + getattr(end, 'number', signal.SIGINT)) from None

    def _submit(self, jobs: list[Job], parallel: bool, after: str | None, folder: Path) -> dict[str, str]:
        """One sbatch, for jobs that start once a number's has ended well; returns their numbers by name."""
        settings = self.settings
        nodes, gpus = (settings.nodes, settings.gpus) if parallel else (1, min(settings.gpus, 1))
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
        executor.update_parameters(
            job_name=name_of(folder), partition=settings.partition or None, time=settings.time, nodes=nodes,
            ntasks_per_node=max(gpus, 1), gpus_per_node=gpus or None, cpus_per_task=settings.cpus,
            mem=settings.memory or None, signal_delay_s=settings.grace, array_parallelism=settings.limit,
            dependency=after and f'afterok:{after}', stderr_to_stdout=True,
            # srun does not take the first from sbatch
            srun_args=[f'--cpus-per-task={settings.cpus}', '--kill-on-bad-exit=1'],
            setup=[f'export PYTHONPATH={shlex.quote(str(REPO))}${{PYTHONPATH:+:$PYTHONPATH}}'],
            additional_parameters={'requeue': True, 'kill-on-invalid-dep': 'yes', **settings.sbatch})
        try:
            with redirect_stderr(StringIO()):  # submitit repeats there what it raises
                submitted = executor.submit_array([Task(pickle.dumps(job)) for job in jobs])
        except FailedJobError as error:
            lines = [line.removeprefix('sbatch: ').removeprefix('error: ') for line in str(error).splitlines()]
            raise UserError(f'sbatch: {"; ".join(lines)}; see Slurm in run_grid.py --help') from None
        for job in jobs:  # of an earlier attempt that failed; their processes have yet to start
            if not job.digest or job.left():  # a source's note of another recipe is not taken for this one's
                job.leaves.unlink(missing_ok=True)
        numbers = {job.name: each.job_id for job, each in zip(jobs, submitted, strict=True)}
        write_json(folder / NOTE, read_object(folder / NOTE) | {_key(job): numbers[job.name] for job in jobs})
        return numbers


def name_of(folder: Path) -> str:
    """Slurm's name of all jobs that are submitted from a folder."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
    return f'{re.sub(r"[^-_0-9A-Za-z]", "_", folder.parent.name)}-{digest[:8]}'


def find_submitted(jobs: Iterable[Job], folder: Path) -> dict[str, str]:
    """Slurm's numbers, by name, of those of the jobs that are queued or running.

    Jobs of what these runs were before their config or data changed are cancelled.
    """
    noted, names = read_object(folder / NOTE) or {}, {_key(job): job.name for job in jobs}
    alive = {number for number, (state, _) in _ask_queue(folder).items() if state not in ENDED}
    if torn := alive - set(noted.values()):  # their controller died in sbatch, so they may lack their input
        _ask('scancel', *torn)
    noted = {key: number for key, number in noted.items() if number in alive}
    runs = {_run_of(_key(job)) for job in jobs if job.run}
    if old := [key for key in noted if key not in names and _run_of(key) in runs
               and not Path(key.partition(' ')[2]).exists()]:  # else it is about to end
        _ask('scancel', *(noted.pop(key) for key in old))
    write_json(folder / NOTE, noted)
    return {names[key]: number for key, number in noted.items() if key in names}


def _follow(controller: Controller, numbers: dict[str, str], folder: Path) -> None:
    """Ask again and again what becomes of the jobs, until all have ended."""
    states, trouble = dict.fromkeys(numbers, 'PENDING'), None
    while jobs := controller.unfinished():
        pending = {}
        time.sleep(POLL)
        try:
            queue, trouble = _ask_queue(folder), None
        except UserError as error:
            if not trouble:
                print(f'{error}; asking on')
            trouble = error
            continue
        for job in jobs:
            number, before = numbers[job.name], states[job.name]
            state, reason = queue.get(number, ('GONE', ''))
            states[job.name] = state
            if (left := job.left()) is not None:
                controller.ended(job, left.get('reason'))
            elif {before, state} <= ENDED:  # seen twice, as a shared disk may show a file late
                end = 'its job ended' if state == 'GONE' else f'its job is {state.lower()}'
                controller.ended(job, f'{end}{reason and f" ({reason})"}; see {folder / f"{number}_0_log.out"}')
            elif state == 'PENDING':
                if before == 'RUNNING':
                    controller.again(job, 'its job was requeued')
                pending[job.name] = f'Slurm{reason and f" ({reason})"}'
            elif step := read_last_line(job.folder).get('step'):
                controller.progress(job, step)
        controller.queued(pending)


def _key(job: Job) -> str:
    """What it makes, from what."""
    return f'{job.folder.name} {job.leaves.resolve()}'


def _run_of(key: str) -> tuple[str, str]:
    """The folder of a run's record, and its name without its identity."""
    record = Path(key.partition(' ')[2])
    return str(record.parent), record.stem.rpartition('-')[0]


def _ask(*command: str) -> list[str]:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f'{command[0]}: {" ".join(result.stderr.split())}')
    return result.stdout.splitlines()


def _ask_queue(folder: Path) -> dict[str, tuple[str, str]]:
    """State and reason, by number, of the folder's jobs that Slurm still knows, ended ones among them."""
    lines = _ask('squeue', '-h', '-r', '-t', 'all', f'--name={name_of(folder)}', '-o', '%i|%T|%r')
    rows = (line.split('|', 2) for line in lines)
    return {number: (state, '' if reason == 'None' else reason) for number, state, reason in rows}
