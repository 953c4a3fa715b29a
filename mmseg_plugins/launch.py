"""Which process of which launch this is, by what the launcher has left in the environment."""

import argparse
import os
from collections.abc import Sequence

from .errors import UserError

# By mmengine's name of a launcher: where it says how many processes there are, and the number of this one.
LAUNCHES = {'pytorch': ('WORLD_SIZE', 'RANK'), 'slurm': ('SLURM_NTASKS', 'SLURM_PROCID'),
            'mpi': ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK')}
LAUNCHERS = ('none', *LAUNCHES)
MEETING = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')  # what torchrun tells its processes


def add_launcher(parser: argparse.ArgumentParser, launchers: Sequence[str] = LAUNCHERS) -> None:
    parser.add_argument('--launcher', choices=launchers, default='none')
    # torch.distributed.launch adds it, and says the same in the environment
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def world_size(launcher: str) -> int:
    """Number of processes that share the work."""
    return 1 if launcher == 'none' else _number(LAUNCHES[launcher][0], 1)


def process_rank(launcher: str) -> int:
    """This process's number, known before it has joined the others."""
    return 0 if launcher == 'none' else _number(LAUNCHES[launcher][1], 0)


def was_restarted() -> bool:
    """Whether torchrun (--max-restarts) or Slurm (a requeued job) has started this run before."""
    return any(_number(name, 0) for name in ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'))


def check_launcher(launcher: str, local_rank: int | None) -> None:
    """One of several processes must not do all of the work by itself, beside the others.

    Raises:
        UserError: this is one of several and the launcher is `none`, or it is none and the launcher is `pytorch`;
            a rank on the command line that is not the environment's.
    """
    if local_rank is not None and str(local_rank) != os.environ.get('LOCAL_RANK'):
        raise UserError(f'--local-rank {local_rank}: not the LOCAL_RANK of the environment; leave it out, the '
                        'launcher sets both')
    if launcher == 'pytorch' and (missing := [name for name in MEETING if not os.environ.get(name)]):
        raise UserError(f'--launcher pytorch: {", ".join(missing)} not set; start the processes with torchrun, '
                        'tools/dist_train.sh or tools/dist_test.sh')
    if launcher != 'none':
        if process_rank(launcher) >= world_size(launcher):
            count, rank = LAUNCHES[launcher]
            raise UserError(f'{rank}={process_rank(launcher)}, but {count}={world_size(launcher)} processes are '
                            'numbered from 0; mend one of them')
        return
    for name, (count, rank) in LAUNCHES.items():
        if name == 'slurm':  # of a step, as srun makes it: a batch script is one process and knows its job's tasks
            count = 'SLURM_STEP_NUM_TASKS'
        processes, number = _number(count, 1), _number(rank, 0)
        if processes > 1 or (name != 'slurm' and number):
            raise UserError(f'this is process {number} of {processes} ({rank}, {count} in the environment), and '
                            f'each would do all of the work; add --launcher {name}, or unset these')


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f'{name}={text} in the environment is no whole number; unset it')
    return int(text)
