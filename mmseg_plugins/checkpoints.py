"""Published checkpoint formats -> state dict of the inflated model, every key accounted for.

What wraps an encoder, containers (`state_dict`, `teacher`) and prefixes (`module.`, `_orig_mod.`,
`backbone.`) alike, is a path of names, and the encoder is where a patch embedding's kernel lies. The keys
below the shortest part of that path from which the family's own filter understands them become the model's,
position tables resized (timm's filter; torchvision's names for Video Swin). Of several encoders the one
below `teacher` or `ema` is taken, else the one that is not below `student`, `target` or `momentum`; where
that does not decide, the file is refused.

What that and the inflation did is reported per key, and whatever no rule explains is an error: nothing is ever
loaded in part.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.logging import print_log
from timm.models.beit import Beit
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from . import compat
from .errors import UserError
from .flax_names import is_googles, name_as_timm
from .inflation import inflate_kernel, trained_form
from .positions import inflate_swin_table, resize_beit_table
from .safe_load import check_format, load_checkpoint, load_trained
from .untrusted import OTHERS, find_fault

State = dict[str, Tensor]

PATCH_KERNEL = 'patch_embed.proj.weight'

# The patch embedding's kernel in the namings that timm's filters know; CLIP's only beside its positions.
KERNELS = re.compile(r'(?:^|\.)((?:patch_embed\.proj|patch_embed\.projection|vision_embed\.proj|patchifier\.proj'
                     r'|patch_generator\.embedder|conv1)\.weight)$')
TAKEN, LEFT = {'teacher', 'ema'}, {'student', 'target', 'momentum'}  # words in the path of one of several encoders

OWN_ROOT = 'backbone.model.'  # of a segmentor of this project, whose kernel may be inflated already
BUFFERS = r'(relative_position_index|downsample\.order|attn_mask|relative_coords_table|rope\..*)$'
# What a pre-training file carries beyond the encoder's blocks, and a segmentation encoder never uses.
DROPPED_BY_RULE = {
    r'^(head|head_dist|cls_head|pre_logits|fc_norm|lm_head|fc|attn_pool)(\.|$)':
        'classification or pre-training head',
    r'^(norm|layer_norm)\.': 'final norm, which the feature taps precede',
    r'^mask_token$': 'masked-image-modelling token',
    r'^(decoder_|cls_pt_|conv\.)': 'pre-training decoder',
    r'^(rotation|contrastive)_': 'pre-training head',
    BUFFERS: 'buffer, rebuilt for the new size',
}

# What a file without a vision Transformer in a known naming looks like.
RESEMBLES = {
    r'(^|\.)layer[1-4]\.\d+\.(conv|bn)\d\.': 'a ResNet\'s; choose the checkpoint of a vision Transformer',
    r'(^|\.)stages\.\d+\.(blocks\.)?\d+\.(dwconv|conv_dw|depthwise_conv)\.':
        'a ConvNeXt\'s; choose the checkpoint of a vision Transformer',
    r'patch_embeddings\.projection\.': 'a Transformer\'s in the naming of Hugging Face\'s transformers; take the '
                                       'file of its authors or of timm',
    r'(^|\.)ffn\.layers\.0\.0\.': 'a Transformer\'s in mmpretrain\'s naming; take the file of its authors or of '
                                  'timm',
    r'(^|\.)lora_(A|B|down|up)\.': 'adapters (LoRA) alone; merge them into their model first',
    r'(^|\.)(word_embeddings|embed_tokens|token_embedding|wte)\.': 'a language model\'s',
    r'(^|\.)(decode_head|decoder\w*)\.': 'a decoder\'s alone; choose the checkpoint of its encoder',
    r'(^|\.)features\.\d+\.': 'a convolutional network\'s; choose the checkpoint of a vision Transformer',
}


@dataclass(frozen=True)
class Naming:
    """How a model names its weights.

    Args:
        keys: of the whole model, with what lies behind the feature taps.
        translate: a state dict as its authors publish it -> one with the model's keys and position tables.
        kernel: of its first layer, which takes the image and is inflated.
        leaves: pattern of keys that `translate` leaves out -> why.
    """
    keys: frozenset[str]
    translate: Callable[[State], State]
    kernel: str = PATCH_KERNEL
    leaves: Mapping[str, str] = field(default_factory=dict)

    @property
    def bias(self) -> str:
        """Of the first layer, where it has one."""
        return self.kernel.removesuffix('weight') + 'bias'


@dataclass
class LoadReport:
    """What became of every key of a source checkpoint; `missing` names model keys it did not fill.

    `root` is where in the file the encoder lies, and `kernel` its first layer's before inflation.
    """
    file: str
    root: str = ''
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    kernel: Tensor | None = field(default=None, repr=False)

    def __str__(self) -> str:
        below = f' (below {self.root!r})' if self.root else ''
        return (f'{Path(self.file).name}{below}: {len(self.loaded)} keys loaded, '
                f'{len(self.resized)} resized, {len(self.inflated)} inflated, '
                f'{len(self.dropped)} dropped by rule, {len(self.missing)} left at initialization')


def check_source_file(path: str | Path) -> None:
    """Raise UserError where there is no such file, or one of another kind, with what to do."""
    path = Path(path)
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in ('.pth', '.pt', '.bin', '.safetensors'))
        raise UserError(f'{path}: is a folder; name the checkpoint in it'
                        + (f', e.g. {path / inside[0]}' if inside else ', which has none (.pth, .safetensors)'))
    if not path.is_file():
        raise UserError(f'{path}: source checkpoint not found; fetch it (tools/sources.py --get), or make it '
                        'with tools/pretrain.py, and put it there (docs/sources.md)')
    check_format(path)


def read_checkpoint(path: str | Path) -> State:
    """Every tensor of a checkpoint by its path of names, `teacher.backbone.norm.bias`; Google's by timm's.

    Raises:
        UserError: missing, truncated, of another format, or needing arbitrary unpickling.
    """
    check_source_file(path)
    content = load_checkpoint(path)
    state = dict(_flatten(content, '', set()))
    if not state:
        only = ' (an optimizer\'s state alone)' if isinstance(content, dict) and 'param_groups' in content else ''
        raise UserError(f'{path}: holds no state dict (names -> tensors){only}; save the model\'s with torch.save')
    return name_as_timm(state) if is_googles(state) else state


def _flatten(value: dict, path: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(value, dict) or id(value) in seen:
        return
    seen.add(id(value))
    for key, entry in value.items():
        if isinstance(key, str) and isinstance(entry, Tensor):
            yield path + key, entry
        elif isinstance(key, str):
            yield from _flatten(entry, f'{path}{key}.', seen)


def find_encoder(state: State, path: str | Path, kernel: str = PATCH_KERNEL) -> tuple[str, str]:
    """Where the encoder of a checkpoint lies: the path before its first layer's kernel, and the kernel's name.

    Raises:
        UserError: there is none, which says what the file is instead, or several that no rule decides between.
    """
    pattern, kind = ((KERNELS, 'vision Transformer') if kernel == PATCH_KERNEL else
                     (re.compile(rf'(?:^|\.)({re.escape(kernel)})$'), 'encoder of the kind that is meant'))
    found = {key[:match.start(1)]: match[1] for key in state if (match := pattern.search(key)) and (
        match[1] != 'conv1.weight' or key[:match.start(1)] + 'positional_embedding' in state)}
    if not found:
        raise UserError(f'{path}: no key {kernel!r}, so no {kind} in its authors\' or timm\'s '
                        f'naming{_resemblance(state)}')

    def rank(root: str) -> int:
        words = set(re.split(r'[._]', root))
        return 0 if words & TAKEN else 2 if words & LEFT else 1
    best = [root for root in found if rank(root) == min(map(rank, found))]
    if len(best) > 1:
        raise UserError(f'{path}: holds several encoders, below {", ".join(map(repr, sorted(best)))}; save the '
                        'state dict of the one that is meant in a file of its own (torch.save)')
    return best[0], found[best[0]]


def _resemblance(state: State) -> str:
    for pattern, what in RESEMBLES.items():
        if any(re.search(pattern, key) for key in state):
            return f'; its keys are {what}'
    return f'; its keys are {", ".join(list(state)[:3])}, ...'


def read_source(path: str | Path, naming: Naming) -> tuple[State, LoadReport]:
    """A checkpoint's encoder with a model's keys and tables, and what became of every other key.

    Raises:
        UserError: it is not one that the model's family can start from.
    """
    everything = read_checkpoint(path)
    if any(re.search(r'(^|\.)backbone\.(low_rank|form)\.', key) for key in everything):
        raise UserError(f'{path}: is of this project, and keeps what was trained beside its weights; merge it '
                        'first (tools/export.py), and take its model.safetensors')
    deepest, kernel = find_encoder(everything, path, naming.kernel)
    parts = deepest.split('.')[:-1]
    for length in range(len(parts) + 1):
        root = ''.join(f'{part}.' for part in parts[:length])
        # half precision would round where tables are resized and colours summed
        source = {key.removeprefix(root): value.float() if value.is_floating_point() and value.element_size() < 4
                  else value for key, value in everything.items() if key.startswith(root)}
        try:
            with redirect_stdout(None):  # timm's filter for EVA prints
                state = naming.translate(dict(source))
            fault = None
        except (AttributeError, KeyError, RuntimeError, IndexError, ValueError, AssertionError) as error:
            state, fault = {}, error
        if naming.kernel in state:
            break
    else:
        missing = (key for key in sorted(naming.keys - set(source)) if not re.search(BUFFERS, key))
        lacking = next(missing, '')
        # what a filter meets where a key is missing tells nothing of the file
        reason = f'it lacks {lacking!r}' if isinstance(fault, AttributeError | KeyError) and lacking else fault
        why = (f'its tables or sizes are of another model ({" ".join(str(reason).split())[:200]}); choose the '
               'encoder the file was made for' if fault else
               f'{deepest + kernel!r} is in no naming that timm knows for it{_resemblance(everything)}')
        raise UserError(f'{path}: does not fit the encoder: {why}') from fault
    raw, made = everything[deepest + kernel], state[naming.kernel]
    if raw.ndim > 2 and raw.shape[-2:] != made.shape[-2:]:  # timm would resample it, and say so to nobody
        raise UserError(f'{path}: key {deepest + kernel!r} has shape {tuple(raw.shape)}, the encoder\'s patches '
                        f'are {" x ".join(map(str, made.shape[-2:]))}; choose the encoder the file was made for')
    report = LoadReport(str(path), root)
    for key in everything:
        if not key.startswith(root):
            common = len([1 for a, b in zip(key.split('.'), parts, strict=False) if a == b])
            report.dropped['.'.join(key.split('.')[:common + 1]) + '.*'] = 'outside the encoder'
    given, kept = ({id(value) for value in values.values()} for values in (source, state))
    changed = {key for key, value in source.items() if id(value) not in kept}
    for key in (key for key, value in state.items() if id(value) not in given):
        same = next((name for name in changed if f'.{name}'.endswith(f'.{key}')), None)
        changed.discard(same)
        if _is_table(key) or same and source[same].shape != state[key].shape:
            report.resized.append(key)
    for key in sorted(changed):
        report.dropped[key] = _rule(key, naming.leaves) or 'taken apart or left out by the family\'s own filter'
    biases = [key for key in changed if key.endswith('qkv.bias') and source[key].any()]
    if any(f'{key.removesuffix("qkv.bias")}q_bias' not in state for key in biases):  # DINOv3's
        print_log(f'{path}: its attention has biases, which the encoder has no place for; timm may have a model '
                  'that does (..._qkvb)', logger='current', level=logging.WARNING)
    return state, report


def _rule(key: str, more: Mapping[str, str] | None = None) -> str | None:
    rules = {**DROPPED_BY_RULE, **(more or {})}
    return next((why for pattern, why in rules.items() if re.search(pattern, key)), None)


def load_source(model: nn.Module, naming: Naming, path: str | Path, slices: int, channels: int,
                inflation: str) -> LoadReport:
    """Load a checkpoint into an encoder's inner model (timm, or torchvision's Video Swin).

    Args:
        model: timm model whose patch embedding takes C * S input channels, channel-major, or a
            SwinTransformer3d with C; what lies behind the feature taps may be left out.
        naming: the model's.
        path: checkpoint file as its authors published it.
        slices: S.
        channels: C.
        inflation: registered inflation method.

    Raises:
        UserError: names the first key that no rule explains, is missing, has a wrong shape or no numbers.
    """
    state, report = read_source(path, naming)
    report.kernel = kernel = state.pop(naming.kernel)
    _check_numbers(path, naming.kernel, kernel)
    if not kernel.any():
        raise UserError(f'{path}: {naming.kernel} is zero throughout, as in a model that was never trained; take '
                        'another checkpoint')
    width = len(model.state_dict()[naming.kernel])
    if len(kernel) != width:
        raise UserError(f'{path}: {naming.kernel} has shape {tuple(kernel.shape)}, the encoder is {width} wide; '
                        'choose the encoder the file was made for')
    video = isinstance(model, SwinTransformer3d)
    if video and kernel.ndim == 5:
        slices = 1  # along the kernel's channels, as depth is an axis of it
    if inflation != 'random' and (window := _own_window(path, report.root, kernel)) and (
            window[0] > 1 or window == (slices, channels) and (kernel.ndim == 5 or not video)):
        if trained_form(inflation):
            raise UserError(f'{path}: is of this project, its kernel inflated already, and inflation {inflation} '
                            'starts from a 2D one; choose another, or take the source that it started from')
        if window != (slices, channels):
            raise UserError(f'{path}: is of this project, its kernel inflated already, to {window[0]} slices and '
                            f'{window[1]} channels, and the encoder takes {slices} and {channels}; train with as '
                            'many, or take the source that it started from')
        _fill(model, naming, state, kernel, report)
        report.loaded, report.inflated = [*report.inflated, *report.loaded], []
        return report
    if video:
        kernel = _video_kernel(model, kernel, channels, inflation)
        report.inflated, report.resized = report.resized, []  # tables, over depth
    else:
        kernel = inflate_kernel(kernel, slices, channels, inflation)
        kernel = None if kernel is None else kernel.flatten(1, 2)
    _fill(model, naming, state, kernel, report)
    return report


def _own_window(path: str | Path, root: str, kernel: Tensor) -> tuple[int, int] | None:
    """Slices and channels that the kernel of a checkpoint of this project spans; None: it is of one image.

    Its shape alone does not tell three slices from three colours; what the checkpoint carries does.
    """
    if not root.endswith(OWN_ROOT):
        return None
    content = load_trained(path)
    wanted: dict = dict(channels=int)
    for part in ('data', 'carried', 'meta'):
        wanted = OTHERS | {part: OTHERS | wanted}
    if find_fault(content, wanted):
        return None  # somebody else's
    channels = max(content['meta']['carried']['data']['channels'], 1)
    slices = kernel.shape[1] // channels
    return None if slices == channels == 1 else (slices, channels)


def load_volume_source(model: nn.Module, naming: Naming, path: str | Path, channels: int) -> LoadReport:
    """Load a checkpoint whose patches are of volumes into the encoder of a network that takes volumes.

    Args:
        model: the encoder, with a Conv3d as `patch_embed.proj` of C channels.
        naming: the encoder's.
        path: checkpoint file as its authors published it.
        channels: C. The kernel, summed over the file's channels, is repeated over them and divided by their
            number.

    Raises:
        UserError: names the first key that no rule explains, is missing, has a wrong shape or no numbers.
    """
    state, report = read_source(path, naming)
    report.kernel = kernel = state[PATCH_KERNEL]
    if kernel.ndim != 5:
        raise UserError(f'{path}: {PATCH_KERNEL} has shape {tuple(kernel.shape)}, the encoder\'s patches are of '
                        'volumes; choose the checkpoint of such an encoder')
    if kernel.shape[1] != channels:
        kernel = kernel.sum(1, keepdim=True).repeat(1, channels, 1, 1, 1) / channels
    _fill(model, naming, state, kernel, report)
    report.loaded, report.inflated = [*report.inflated, *report.loaded], []
    return report


def timm_naming(name: str, **sizes) -> Naming:
    """How a timm model names its weights; `sizes` are what it is created with."""
    whole, timms_filter = compat.describe_timm_model(name, **sizes)

    def translate(source: State) -> State:
        # kept from timm's filter, which resizes tables its own way, and those of oblong grids always
        tables = _beit_tables(whole, source) if isinstance(whole, Beit) else {}
        rest = {key: value for key, value in source.items() if not (tables and _is_table(key))}
        return timms_filter(rest, whole) | tables
    return Naming(frozenset(whole.state_dict()), translate)


def _is_table(key: str) -> bool:
    return key.endswith('relative_position_bias_table')


def _beit_tables(model: Beit, source: State) -> State:
    """BEiT's relative-position tables for the model's grid; one shared by all blocks is given to each."""
    tables = {key: value for key, value in source.items() if _is_table(key)}
    shared = tables.pop('rel_pos_bias.relative_position_bias_table', None)
    if shared is not None:
        tables |= {f'blocks.{i}.attn.relative_position_bias_table': shared for i in range(len(model.blocks))}
    return {key: resize_beit_table(value, model.patch_embed.grid_size) for key, value in tables.items()}


def _video_kernel(model: SwinTransformer3d, kernel: Tensor, channels: int, inflation: str) -> Tensor | None:
    """Video Swin's kernel spans 2 slices: a video source's keeps its depth, a 2D one is inflated to it."""
    depth = model.patch_embed.proj.kernel_size[0]
    if kernel.ndim == 4:
        return inflate_kernel(kernel, depth, channels, inflation)
    if inflation == 'random':
        return None
    return kernel.sum(1, keepdim=True).repeat(1, channels, 1, 1, 1) / channels


def video_swin_naming(model: SwinTransformer3d) -> Naming:
    """Swin's and Video Swin's own keys -> torchvision's; a 2D source's tables are inflated over depth."""
    wanted = {key: len(value) for key, value in model.state_dict().items() if _is_table(key)}

    def translate(source: State) -> State:
        # the authors merge patches at a stage's end, timm at the next one's start
        merges, state = 1 if 'layers.0.downsample.reduction.weight' in source else -1, {}
        for key, value in source.items():
            name = re.sub(r'^layers\.(\d+)\.blocks\.', lambda m: f'features.{2 * int(m[1])}.', key)
            name = re.sub(r'^layers\.(\d+)\.downsample\.', lambda m: f'features.{2 * int(m[1]) + merges}.', name)
            name = name.replace('.mlp.fc1.', '.mlp.0.').replace('.mlp.fc2.', '.mlp.3.')
            if name in wanted:
                depth = model.get_submodule(name.rpartition('.')[0]).window_size[0]
                if wanted[name] == (2 * depth - 1) * len(value) and depth > 1:
                    value = inflate_swin_table(value, depth)
            state[name] = value
        return state
    return Naming(frozenset(model.state_dict()), translate)


def _fill(model: nn.Module, naming: Naming, state: State, kernel: Tensor | None, report: LoadReport) -> None:
    """Check every key against the model's and load them all, or raise and load none."""
    path, family = report.file, type(model).__name__
    parameters = {name for name, _ in model.named_parameters()}
    wanted = {key: value for key, value in model.state_dict().items()
              if key in parameters or not re.search(BUFFERS, key)}
    if kernel is None:
        why = 'inflation `random` keeps the fresh layer'
        report.dropped[naming.kernel] = why
        if state.pop(naming.bias, None) is not None:
            report.dropped[naming.bias] = why
    else:
        report.inflated.append(naming.kernel)
        state[naming.kernel] = kernel
    for key in list(state):
        if key not in wanted:
            report.dropped[key] = _rule(key) or ('behind the last feature tap' if key in naming.keys else '')
            if not report.dropped[key]:
                raise UserError(f'{path}: key {key!r} is unknown to {family}{_compare_depth(key, state, naming)}; '
                                'nothing was loaded')
            del state[key]
        elif state[key].shape != wanted[key].shape:
            raise UserError(f'{path}: key {key!r} has shape {tuple(state[key].shape)}, the encoder '
                            f'needs {tuple(wanted[key].shape)}; nothing was loaded')
        else:
            _check_numbers(path, key, state[key])
            if key not in report.inflated and key not in report.resized:
                report.loaded.append(key)
    report.resized = [key for key in report.resized if key in state]
    report.missing = [key for key in wanted if key not in state]
    for key in report.missing:
        if kernel is not None or key not in (naming.kernel, naming.bias):
            raise UserError(f'{path}: key {key!r} of {family} is missing{_compare_depth(key, state, naming)}; '
                            'nothing was loaded')
    model.load_state_dict(state, strict=False)  # what it may lack was accounted for above


def _compare_depth(key: str, state: State, naming: Naming) -> str:
    """Of a key that only one of a file and a model has: how many blocks each has there, if that is why."""
    block = re.match(r'((?:.*\.)?blocks\.|features\.\d+\.|layers\.)\d+\.', key)
    if not block:
        return ''
    here, there = (len({name[len(block[1]):].split('.')[0] for name in names if name.startswith(block[1])})
                   for names in (state, naming.keys))
    return f' (the file has {here} {block[1][:-1]}, the encoder {there})' if here != there else ''


def _check_numbers(path: str | Path, key: str, value: Tensor) -> None:
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        raise UserError(f'{path}: key {key!r} holds {str(value.dtype).removeprefix("torch.")}, no plain '
                        'fractions; take the file as it was before it was quantized or compressed')
    if not value.isfinite().all():
        raise UserError(f'{path}: key {key!r} holds numbers that are NaN or infinite; take another checkpoint; '
                        'nothing was loaded')
