"""Several processes of a run: sums over them that gradients flow through, and the model that each has."""

import torch
import torch.distributed as torch_dist
from mmengine.model import is_model_wrapper
from torch import Tensor, nn


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


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, of one that several processes train."""
    return model.module if is_model_wrapper(model) else model
