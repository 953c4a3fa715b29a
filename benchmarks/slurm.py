"""What a run asks Slurm for: on the command line, or in the YAML file of a cluster."""

from argparse import ArgumentParser
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmseg_plugins.errors import UserError, nearest

from .grid.yaml_file import read_yaml

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
