"""How many threads a process computes with: as many as OMP_NUM_THREADS says, wherever it is set."""

import os

import torch

from .errors import UserError


def chosen_threads() -> int | None:
    """The user's OMP_NUM_THREADS; None where it is not set.

    Raises:
        UserError: it is no number of threads.
    """
    text = os.environ.get('OMP_NUM_THREADS', '')
    first = text.split(',')[0].strip()  # of a number for each level of nesting
    if text and (not first.isdecimal() or int(first) < 1):
        raise UserError(f'OMP_NUM_THREADS={text} in the environment is no number of threads; set one, or unset it')
    return int(first) if text else None


def use_threads(default: int) -> None:
    """Let torch compute with as many threads as the user has chosen, or else `default`."""
    torch.set_num_threads(chosen_threads() or default)
