"""How a training computes rather than what: precision, recomputation, compilation, memory layout.

    experiment = dict(
        precision='fp32',                # 'fp32', 'tf32', 'bf16' or 'fp16'
        inference_precision='fp32',      # 'fp32', 'bf16' or 'fp16', of evaluation and prediction
        activation_checkpointing=False,  # keep each block's input alone and compute the rest twice
        compile=False,                   # torch.compile of the training's forward and backward pass
        channels_last=False)             # images, feature maps and their kernels with channels innermost

`fp32` is float32 throughout, as the paper's GPUs (Turing) and released code have it: torch's own default
lets convolutions round their factors to TF32's 10 bits on Ampere and later, and here it may not. `tf32`
allows that, and in matrix products too. `bf16` and `fp16` compute those two in half precision under
autocast; weights, optimizer, intensity scaling and losses stay in float32. `fp16` scales the loss, and skips
steps whose gradients overflow; without a GPU it is refused in training, and evaluation and prediction are in
float32. These are in float32 (with `tf32`, in that) unless `inference_precision` is `bf16` or `fp16`, and
always in float32 from the logits on (resizing, averages where windows overlap).
"""

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn
from torch.utils.checkpoint import checkpoint

from .errors import UserError

PRECISIONS = ('fp32', 'tf32', 'bf16', 'fp16')
HALVES = dict(bf16=torch.bfloat16, fp16=torch.float16)


def prepare_acceleration(cfg: Config, train: bool) -> None:
    """Set this process's arithmetic and the optimizer's wrapper; for training, check that the device can.

    Raises:
        UserError: `fp16` without a GPU, or `compile` without a compiler.
    """
    precision, gpu = cfg.experiment.get('precision') or 'fp32', torch.cuda.is_available()
    inference = cfg.experiment.get('inference_precision') or 'fp32'
    # torch 2.9's newer `fp32_precision` makes torch's own reading of these two raise, inside of inductor too.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == 'tf32'
    for key, value in ((dict(precision=precision) if train else {}) | dict(inference_precision=inference)).items():
        if train and value == 'fp16' and not gpu:
            raise UserError(f'experiment.{key}=fp16 needs a GPU, and torch finds none here; bf16 runs on CPUs too')
        if is_main_process() and (remark := _remark(value, gpu)):
            print(f'experiment.{key}={value}: {remark}', file=sys.stderr)
    if not train:
        return
    if precision == 'bf16':
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
    if precision == 'fp16':
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='float16')
    if cfg.experiment.get('compile') and (missing := missing_for_compilation(gpu)):
        raise UserError(f'experiment.compile: torch.compile needs {missing}, which is not here; install it or '
                        'leave the option out')


def _remark(precision: str, gpu: bool) -> str | None:
    """What the user may not expect of a precision on this device."""
    if precision in ('tf32', 'fp16') and not gpu:
        return 'changes nothing on a CPU: float32'
    if precision in ('tf32', 'bf16') and gpu and torch.cuda.get_device_capability() < (8, 0):
        name = torch.cuda.get_device_name()
        return (f'{name} has none: float32' if precision == 'tf32' else
                f'{name} only emulates it, slowly; its half precision is fp16')
    return None


def missing_for_compilation(gpu: bool) -> str | None:
    """The first of what inductor needs that this machine lacks: it would fail with pages in the first step."""
    def found(variable: str, *names: str) -> bool:
        chosen = shlex.split(os.environ.get(variable, ''))[:1]
        return any(map(shutil.which, chosen or names))

    if gpu and importlib.util.find_spec('triton') is None:
        return 'triton'
    if gpu and not found('CC', 'gcc', 'clang'):
        return 'a C compiler (gcc, or CC)'
    if not gpu and not found('CXX', 'clang++' if sys.platform == 'darwin' else 'g++'):
        return 'a C++ compiler (g++, or CXX)'
    if not (Path(sysconfig.get_paths()['include']) / 'Python.h').is_file():
        return 'Python.h (of the package python3-dev)'
    return None


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """bfloat16 mixed precision on GPUs and CPUs.

    mmengine's AmpOptimWrapper refuses CPUs and scales the loss, which bfloat16, with float32's range, has
    no need of: a gradient that overflows is an error.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), half_precision(next(model.parameters()).device, 'bf16'):
            yield


def check_inference_precision(precision: str) -> str:
    """The precision, if it is one of predictions; else raise a UserError."""
    if precision not in ('fp32', *HALVES):
        raise UserError(f'inference_precision {precision!r}: must be one of fp32, {", ".join(HALVES)}')
    return precision


def half_precision(device: torch.device, precision: str) -> torch.autocast:
    """Convolutions and matrix products in half precision where that is asked for; on CPUs `fp16` is float32."""
    halves = precision in HALVES and (precision, device.type) != ('fp16', 'cpu')
    return torch.autocast(device.type, HALVES.get(precision), enabled=halves)


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Let each block keep its input alone for the backward pass, which then runs its forward again.

    timm's own `set_grad_checkpointing` will not do: `forward_intermediates` of timm 1.0.12 does not heed it.
    """
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        block.checkpointed = True


def lay_channels_last(model: nn.Module) -> None:
    """Images and 4D kernels of a model with channels innermost; 5D ones (Video Swin's) as they were."""
    model.data_preprocessor.memory_format = torch.channels_last
    for parameter in model.parameters():
        if parameter.ndim == 4:  # 1 x 1 kernels, whose memory stays, get the strides that gradients will have
            parameter.data = torch.empty_like(parameter, memory_format=torch.channels_last).copy_(parameter.data)


def compile_in_training(model: nn.Module, methods: Iterable[Callable]) -> None:
    """Compile methods of a model's parts for as long as the model is in training mode.

    The training's crop is of one size and one batch; evaluation, whose batches vary, runs as ever. The
    modules stay what they are, and so do the keys of a checkpoint.

    Args:
        model: decides by its mode.
        methods: bound methods of its parts; whoever calls them, by `forward` or by a call of the module.
    """
    torch.compiler.reset()  # of one method torch compiles eight versions; a process may train more models
    for method in methods:
        setattr(method.__self__, method.__name__, _CompiledInTraining(model, method))


class _CompiledInTraining:
    """A method that is compiled where its model trains."""

    def __init__(self, model: nn.Module, method: Callable):
        self.model, self.method = model, method
        self.compiled: Callable | None = None

    def __call__(self, *args, **kwargs):
        if not self.model.training:
            return self.method(*args, **kwargs)
        if self.compiled is None:
            self.compiled = torch.compile(self.method, dynamic=False)
        return self.compiled(*args, **kwargs)

    def __getstate__(self) -> dict:
        """A copy of the model (a moving average) compiles its own parts, not those it was copied from."""
        return self.__dict__ | dict(compiled=None)
