"""Published checkpoint formats -> state dict of the inflated model, every key accounted for.

Files are read with `weights_only` (or as safetensors). Keys are renamed and position tables resized as
the encoder's family demands (timm's own filter, torchvision's names for Video Swin); what that and the
inflation did is reported per key, and whatever no rule explains is an error: nothing is ever loaded in
part.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.models.beit import Beit
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from .errors import UserError
from .inflation import inflate_kernel
from .positions import inflate_swin_table, resize_beit_table
from .safe_load import load_checkpoint

PATCH_KERNEL, PATCH_BIAS = 'patch_embed.proj.weight', 'patch_embed.proj.bias'

# What a pre-training file carries beyond the encoder's blocks, and a segmentation encoder never uses.
DROPPED_BY_RULE = {
    r'^(head|head_dist|cls_head|fc_norm|lm_head|fc|attn_pool)(\.|$)': 'classification or pre-training head',
    r'^norm\.': 'final norm, which the feature taps precede',
    r'^mask_token$': 'masked-image-modelling token',
    r'(relative_position_index|attn_mask|relative_coords_table|rope\..*)$': 'buffer, rebuilt for the new size',
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
    if path.suffix == '.safetensors':
        try:
            state = load_file(path)
        except Exception as error:
            reason = ' '.join(str(error).split())[:200] or type(error).__name__
            raise UserError(f'{path}: cannot be read ({reason}); download it again') from error
    else:
        state = load_checkpoint(path)
    for container in ('teacher', 'state_dict', 'model', 'module'):
        if isinstance(state, dict) and isinstance(state.get(container), dict):
            state = state[container]
    if not isinstance(state, dict) or not all(isinstance(key, str) and isinstance(value, Tensor)
                                              for key, value in state.items()):
        raise UserError(f'{path}: holds no state dict (names -> tensors)')
    return {re.sub(r'^((module|backbone|encoder)\.)+', '', key): value
            for key, value in state.items()}


def load_source(model: nn.Module, path: str | Path, slices: int, channels: int,
                inflation: str) -> LoadReport:
    """Load a checkpoint into an encoder's inner model (timm, or torchvision's Video Swin).

    Args:
        model: timm model whose patch embedding takes C * S input channels, channel-major, or a
            SwinTransformer3d with C.
        path: checkpoint file as its authors published it.
        slices: S.
        channels: C.
        inflation: registered inflation method.

    Raises:
        UserError: names the first key that no rule explains, is missing, or has a wrong shape.
    """
    report, state = LoadReport(str(path)), {}
    for key, value in read_checkpoint(path).items():
        rule = next((why for pattern, why in DROPPED_BY_RULE.items() if re.search(pattern, key)), None)
        if rule:
            report.dropped[key] = rule
        else:
            state[key] = value
    if PATCH_KERNEL not in state:
        raise UserError(f'{path}: no key {PATCH_KERNEL!r}: not a checkpoint of a vision Transformer '
                        'in its authors\' or timm\'s naming')
    kernel = state.pop(PATCH_KERNEL)
    embed_dim = model.patch_embed.proj.out_channels
    if len(kernel) != embed_dim:
        raise UserError(f'{path}: {PATCH_KERNEL} has width {len(kernel)}, the encoder {embed_dim}; '
                        'choose the encoder the file was made for')
    kernel = kernel.to(torch.promote_types(kernel.dtype, torch.float32))  # sums round in half precision
    if isinstance(model, SwinTransformer3d):
        kernel = _video_kernel(model, kernel, channels, inflation)
        state = _to_video_swin(model, state, report)
    else:
        kernel = inflate_kernel(kernel, slices, channels, inflation)
        kernel = None if kernel is None else kernel.flatten(1, 2)
        state = _to_timm(model, state, report)
    _fill(model, state, kernel, report)
    return report


def _to_timm(model: nn.Module, source: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """Keys and position tables as the timm model has them."""
    try:
        # kept from timm's filter, which resizes tables its own way, and those of oblong grids always
        tables = _beit_tables(model, source, report) if isinstance(model, Beit) else {}
        rest = {key: value for key, value in source.items() if not (tables and _is_table(key))}
        state = sys.modules[type(model).__module__].checkpoint_filter_fn(dict(rest), model)
    except (AttributeError, KeyError, RuntimeError, IndexError, ValueError) as error:
        raise UserError(f'{report.source}: does not fit {type(model).__name__}: '
                        f'{" ".join(str(error).split())}') from error
    kept = {id(value) for value in state.values()}
    for key, value in rest.items():
        if id(value) in kept:
            continue  # as it is, perhaps under another name
        if key in state:
            report.resized.append(key)
        else:
            raise UserError(f'{report.source}: key {key!r} is unknown to {type(model).__name__}; '
                            'nothing was loaded')
    return state | tables


def _is_table(key: str) -> bool:
    return key.endswith('relative_position_bias_table')


def _beit_tables(model: Beit, source: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """BEiT's relative-position tables for the model's grid; one shared by all blocks is given to each."""
    tables = {key: value for key, value in source.items() if _is_table(key)}
    shared = tables.pop('rel_pos_bias.relative_position_bias_table', None)
    if shared is not None:
        tables |= {f'blocks.{i}.attn.relative_position_bias_table': shared for i in range(len(model.blocks))}
    for key, value in tables.items():
        tables[key] = resize_beit_table(value, model.patch_embed.grid_size)
        if tables[key] is not value:
            report.resized.append(key)
    return tables


def _video_kernel(model: SwinTransformer3d, kernel: Tensor, channels: int, inflation: str) -> Tensor | None:
    """Video Swin's kernel spans 2 slices: a video source's keeps its depth, a 2D one is inflated to it."""
    depth = model.patch_embed.proj.kernel_size[0]
    if kernel.ndim == 4:
        return inflate_kernel(kernel, depth, channels, inflation)
    if inflation == 'random':
        return None
    return kernel.sum(1, keepdim=True).repeat(1, channels, 1, 1, 1) / channels


def _to_video_swin(model: SwinTransformer3d, source: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """Swin's and Video Swin's own keys -> torchvision's; a 2D source's tables are inflated over depth."""
    wanted, state = model.state_dict(), {}
    # the authors merge patches at a stage's end, timm at the next one's start
    merges = 1 if 'layers.0.downsample.reduction.weight' in source else -1
    for key, value in source.items():
        name = re.sub(r'^layers\.(\d+)\.blocks\.', lambda m: f'features.{2 * int(m[1])}.', key)
        name = re.sub(r'^layers\.(\d+)\.downsample\.', lambda m: f'features.{2 * int(m[1]) + merges}.', name)
        name = name.replace('.mlp.fc1.', '.mlp.0.').replace('.mlp.fc2.', '.mlp.3.')
        if _is_table(name) and name in wanted:
            depth = model.get_submodule(name.rpartition('.')[0]).window_size[0]
            if len(wanted[name]) == (2 * depth - 1) * len(value) and depth > 1:
                value = inflate_swin_table(value, depth)
                report.inflated.append(name)
        state[name] = value
    return state


def _fill(model: nn.Module, state: dict[str, Tensor], kernel: Tensor | None, report: LoadReport) -> None:
    """Check every key against the model's and load them all, or raise and load none."""
    path, family = report.source, type(model).__name__
    wanted = {key: value for key, value in model.state_dict().items()
              if not any(re.search(pattern, key) for pattern in DROPPED_BY_RULE)}
    if kernel is None:
        why = 'inflation `random` keeps the fresh layer'
        report.dropped[PATCH_KERNEL] = why
        if state.pop(PATCH_BIAS, None) is not None:
            report.dropped[PATCH_BIAS] = why
    else:
        report.inflated.append(PATCH_KERNEL)
        state[PATCH_KERNEL] = kernel
    blocks = len(getattr(model, 'blocks', ()))
    for key in list(state):
        block = re.match(r'blocks\.(\d+)\.', key)
        if block and blocks and int(block[1]) >= blocks:
            report.dropped[key] = 'block behind the last feature tap'
            del state[key]
        elif key not in wanted:
            raise UserError(f'{path}: key {key!r} is unknown to {family}; nothing was loaded')
        elif state[key].shape != wanted[key].shape:
            raise UserError(f'{path}: key {key!r} has shape {tuple(state[key].shape)}, the encoder '
                            f'needs {tuple(wanted[key].shape)}; nothing was loaded')
        elif key not in report.inflated and key not in report.resized:
            report.loaded.append(key)
    report.missing = [key for key in wanted if key not in state]
    for key in report.missing:
        if kernel is not None or key not in (PATCH_KERNEL, PATCH_BIAS):
            raise UserError(f'{path}: key {key!r} of {family} is missing; nothing was loaded')
    model.load_state_dict(state, strict=False)  # what it may lack was accounted for above
