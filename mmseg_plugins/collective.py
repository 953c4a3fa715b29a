"""Sums over the processes of a run that gradients flow through."""

import torch
import torch.distributed as torch_dist
from torch import Tensor


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_, x: Tensor) -> Tensor:
        x = x.clone()
        torch_dist.all_reduce(x)
        return x

    backward = forward  # what every process made of the sum comes back to each summand


def sum_over_processes(x: Tensor) -> Tensor:
    """The same in every process; without a process group, `x` itself."""
    return _Sum.apply(x) if torch_dist.is_available() and torch_dist.is_initialized() else x
