"""How many threads a process computes with, and what they do while they wait for each other."""

import os

from .errors import UserError

# What of OpenMP's decides how long a thread that waits keeps its core (GNU's, everybody's, Intel's).
WAITING = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'KMP_BLOCKTIME')


def chosen_threads() -> int | None:
    """The user's OMP_NUM_THREADS; None where it is not set.

    Raises:
        UserError: it is no number of threads.
    """
    text = os.environ.get('OMP_NUM_THREADS', '')
    first = text.split(',')[0].strip()  # a number for each level of nesting
    if not text:
        return None
    if not first.isdecimal() or int(first) < 1:
        raise UserError(f'OMP_NUM_THREADS={text} in the environment is no number of threads; set one, or unset it')
    return int(first)


def use_threads(default: int) -> None:
    """Let torch compute with as many threads as the user has chosen, or else `default`."""
    import torch

    torch.set_num_threads(chosen_threads() or default)


def rest_while_waiting() -> None:
    """Let threads that wait give up their core soon: on a busy machine others have work for it.

    OpenMP reads this once, when torch is imported. What the user has set holds.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ['GOMP_SPINCOUNT'] = '1000'
