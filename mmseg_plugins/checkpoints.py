"""Published 2D checkpoint formats -> state dict of the inflated model, every key accounted for.

Files are read with `weights_only` (or as safetensors). timm's own filter of the model's family
renames keys and resizes position tables; what it and the inflation did is reported per key, and
whatever no rule explains is an error: nothing is ever loaded in part.
"""

import pickle
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import UserError
from .inflation import inflate_kernel

PATCH_KERNEL = 'patch_embed.proj.weight'

# What a pre-training file carries beyond the encoder's blocks, and a segmentation encoder never uses.
DROPPED_BY_RULE = {
    r'^(head|head_dist|fc_norm|lm_head|fc)(\.|$)': 'classification or pre-training head',
    r'^norm\.': 'final norm, which the feature taps precede',
    r'^mask_token$': 'masked-image-modelling token',
    r'(relative_position_index|attn_mask)$': 'index buffer, rebuilt for the new size',
}


@dataclass
class LoadReport:
    """What became of every key of a source checkpoint; `missing` names model keys it did not fill."""
    source: str
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (f'{Path(self.source).name}: {len(self.loaded)} keys loaded, '
                f'{len(self.resized)} resized, {len(self.inflated)} inflated, '
                f'{len(self.dropped)} dropped by rule, {len(self.missing)} left at initialization')


def check_source_file(path: str | Path) -> None:
    """Raise UserError where there is no such file, with what to do."""
    if not Path(path).is_file():
        raise UserError(f'{path}: source checkpoint not found; download it from its authors, or make it with '
                        'tools/pretrain.py, and put it there (README, "Sources")')


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from .pth/.pt/.safetensors, unwrapped from the usual containers.

    Raises:
        UserError: missing, truncated, or needing arbitrary unpickling.
    """
    path = Path(path)
    check_source_file(path)
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file
            state = load_file(path)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f'{path}: holds more than tensors, or is no checkpoint; refused, since '
                        'reading it could run code. Save its state dict alone with torch.save'
                        ) from error
    except Exception as error:
        raise UserError(f'{path}: cannot be read ({str(error).splitlines()[0]}); '
                        'download it again') from error
    for container in ('teacher', 'state_dict', 'model', 'module'):
        if isinstance(state, dict) and isinstance(state.get(container), dict):
            state = state[container]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f'{path}: holds no state dict (names -> tensors)')
    return {re.sub(r'^((module|backbone|encoder)\.)+', '', key): value
            for key, value in state.items()}


def load_source(model: nn.Module, path: str | Path, slices: int, channels: int,
                inflation: str) -> LoadReport:
    """Load a 2D checkpoint into a timm model whose patch embedding has channels x slices inputs.

    Args:
        model: timm model; its patch embedding takes C * S input channels, channel-major.
        path: checkpoint file as its authors published it.
        slices: S.
        channels: C.
        inflation: registered inflation method, or `none`: the kernel has the model's shape already.

    Raises:
        UserError: names the first key that no rule explains, is missing, or has a wrong shape.
    """
    source = read_checkpoint(path)
    report = LoadReport(str(path))
    state = {}
    for key, value in source.items():
        rule = next((why for pattern, why in DROPPED_BY_RULE.items() if re.search(pattern, key)), None)
        if rule:
            report.dropped[key] = rule
        else:
            state[key] = value
    if PATCH_KERNEL not in state:
        raise UserError(f'{path}: no key {PATCH_KERNEL!r}: not a checkpoint of a vision Transformer '
                        'in its authors\' or timm\'s naming')
    embed_dim = getattr(model, 'embed_dim', None)
    if embed_dim and len(state[PATCH_KERNEL]) != embed_dim:
        raise UserError(f'{path}: {PATCH_KERNEL} has width {len(state[PATCH_KERNEL])}, '
                        f'the encoder {embed_dim}; choose the encoder the file was made for')
    family = sys.modules[type(model).__module__]
    try:
        state = family.checkpoint_filter_fn(state, model)
    except (AttributeError, KeyError, RuntimeError, IndexError) as error:
        raise UserError(f'{path}: does not fit {type(model).__name__}: {error}') from error

    wanted = model.state_dict()
    weight = state.pop(PATCH_KERNEL)
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))  # sums round in half precision
    if inflation == 'none':
        kernel = state[PATCH_KERNEL] = weight
    else:
        kernel = inflate_kernel(weight, slices, channels, inflation)
    if kernel is None:
        report.dropped[PATCH_KERNEL] = 'inflation `random` keeps the fresh layer'
        if state.pop('patch_embed.proj.bias', None) is not None:
            report.dropped['patch_embed.proj.bias'] = report.dropped[PATCH_KERNEL]
    elif inflation != 'none':
        report.inflated.append(PATCH_KERNEL)
        state[PATCH_KERNEL] = kernel.flatten(1, 2)
    blocks = len(getattr(model, 'blocks', ()))
    for key in list(state):
        block = re.match(r'blocks\.(\d+)\.', key)
        if block and blocks and int(block[1]) >= blocks:
            report.dropped[key] = 'block behind the last feature tap'
            del state[key]
        elif key not in wanted:
            raise UserError(f'{path}: key {key!r} is unknown to {type(model).__name__}; '
                            'nothing was loaded')
        elif state[key].shape != wanted[key].shape:
            raise UserError(f'{path}: key {key!r} has shape {tuple(state[key].shape)}, the encoder '
                            f'needs {tuple(wanted[key].shape)}; nothing was loaded')
        elif key in report.inflated:
            continue
        elif key in source and source[key].shape != state[key].shape:
            report.resized.append(key)
        else:
            report.loaded.append(key)
    report.missing = [key for key in wanted if key not in state]
    allowed = {PATCH_KERNEL, 'patch_embed.proj.bias'} if kernel is None else set()
    for key in report.missing:
        if key not in allowed:
            raise UserError(f'{path}: key {key!r} of {type(model).__name__} is missing; '
                            'nothing was loaded')
    model.load_state_dict(state, strict=kernel is not None)
    return report
