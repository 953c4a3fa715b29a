"""Proof that an inflated checkpoint is right: the 3D model beside the one it was inflated from."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from mmseg.registry import MODELS
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import PatchEmbed3d, SwinTransformer3d

from .checkpoints import PATCH_KERNEL, LoadReport, find_encoder, read_checkpoint, read_source
from .computed import merged_state
from .errors import UserError, nearest
from .keys import sides
from .lifting import parse_lifting
from .models.encoders import is_inflated, timm_encoder
from .sources import TIMM, timm_model

# The paper's encoders: registered class and timm's name.
ENCODERS = {'beit': ('InflatedViT', 'beit_base_patch16_224'), 'dino': ('InflatedViT', 'vit_base_patch16_224'),
            'swin': ('InflatedSwin', 'swin_base_patch4_window7_224'), 'videoswin': ('VideoSwin', None)}
# The networks that they are compared with, in their published sizes.
BASELINES = {'transunet': 'TransUNet', 'swinunet': 'SwinUNet'}


@dataclass(frozen=True)
class Certificate:
    """What an inflation preserved.

    Args:
        report: what became of every key.
        kernel_before: sum over all weights of the source's kernel.
        kernel_after: of the inflated one.
        kernel_difference: largest difference of the two summed over colour, and over channels and slices.
        reference: what the features are compared with.
        centre: largest difference of any feature on random windows, against the reference on the centre
            slice (for a video source: on the window itself); None where nothing corresponds.
        constant: the same on windows whose slices are all one image.
        scale: largest feature of the reference, to judge the two by.
        added: parameters that the lifting has beside the 2D model's.
    """
    report: LoadReport
    kernel_before: float
    kernel_after: float
    kernel_difference: float
    reference: str
    centre: float | None
    constant: float | None
    scale: float | None
    added: int = 0


def infer_sizes(path: str | Path, encoder: str) -> dict:
    """Width, depth and heads of a checkpoint's model, from the shapes of its tensors.

    Args:
        path: checkpoint.
        encoder: `beit`, `dino`, `swin`, `videoswin`.
    """
    everything = read_checkpoint(path)
    root, name = find_encoder(everything, path)
    if name != PATCH_KERNEL:
        raise UserError(f'{path}: not in the naming of {encoder}; name the model: --encoder timm/<model>')
    state = {key.removeprefix(root): value for key, value in everything.items() if key.startswith(root)}
    kernel = state[PATCH_KERNEL]

    def count(pattern):
        return 1 + max((int(m[1]) for key in state if (m := re.match(pattern, key))), default=-1)

    def heads(prefix):
        tables = [value for key, value in state.items()
                  if key.startswith(prefix) and key.endswith('relative_position_bias_table')]
        if not tables and len(kernel) % 64:
            raise UserError(f'{path}: {len(kernel)} wide, no multiple of 64, so that it tells no number of heads; '
                            'name the model: --encoder timm/<model>')
        return tables[0].shape[1] if tables else len(kernel) // 64

    sizes = dict(embed_dim=len(kernel))
    if encoder in ('swin', 'videoswin'):
        layers = range(count(r'layers\.(\d+)\.'))
        sizes |= dict(depths=tuple(count(rf'layers\.{i}\.blocks\.(\d+)\.') for i in layers),
                      num_heads=tuple(heads(f'layers.{i}.') for i in layers))
        if not sizes['depths']:
            raise UserError(f'{path}: no keys layers.<i>.blocks.<j>: not a checkpoint of {encoder}')
        if encoder == 'swin':
            table = state.get('layers.0.blocks.0.attn.relative_position_bias_table')
            if table is None:
                raise UserError(f'{path}: no relative-position tables: not a checkpoint of swin; for a '
                                'relative of it name the model: --encoder timm/<model>')
            sizes |= dict(window_size=(round(len(table) ** 0.5) + 1) // 2, patch_size=kernel.shape[-1])
        return sizes
    blocks = count(r'blocks\.(\d+)\.')
    if not blocks:
        raise UserError(f'{path}: no keys blocks.<i>: not a checkpoint of {encoder}')
    return sizes | dict(depth=blocks, num_heads=heads(''), patch_size=kernel.shape[-1])


def build_encoder(path: str | Path, encoder: str, slices: int, channels: int, inflation: str,
                  img_size: int | Sequence[int], lifting: str = 'kernel') -> nn.Module:
    """The encoder that a checkpoint fits, with its weights inflated, in evaluation mode.

    Args:
        path: checkpoint as published.
        encoder: a name of ENCODERS or BASELINES, or timm's of a model.
        slices: S.
        channels: C.
        inflation: registered method.
        img_size: pixels.
        lifting: registered lifting.

    Raises:
        UserError: unknown encoder or lifting, or one that does not fit the other.
    """
    shared = dict(source=str(path), slices=slices, channels=channels, inflation=inflation, img_size=img_size)
    if encoder in ENCODERS:
        kind, name = ENCODERS[encoder]
        sizes = infer_sizes(path, encoder)
        settings = dict(type=kind, sizes=sizes) | ({'model': name} if name else {})
        if kind == 'InflatedViT':
            last = sizes['depth'] - 1
            settings['out_indices'] = (3, 5, 7, 11) if last == 11 else (last // 3, last // 2, last, last)
    elif encoder in BASELINES:
        settings = dict(type=BASELINES[encoder])
    elif encoder.startswith(TIMM) or timm_model(encoder):
        settings = timm_encoder(encoder.removeprefix(TIMM), img_size,
                                dict(backbone={}, decode_head=dict(norm_cfg=None)))['backbone']
    else:
        known = [*ENCODERS, *BASELINES, 'timm/<model>']
        raise UserError(f'unknown encoder {encoder!r}{nearest(encoder, known)}')
    if parse_lifting(lifting)[0]:
        if not is_inflated(settings):
            raise UserError(f'{encoder} is not an encoder that lifting {lifting} can be given to')
        shared['lifting'] = lifting
    model = MODELS.build(settings | shared)
    model.init_weights()
    return model.eval()


@torch.no_grad()
def certify(model: nn.Module, path: str | Path, encoder: str, img_size: int | Sequence[int],
            windows: int = 2, seed: int = 0) -> Certificate:
    """Compare an encoder from build_encoder with the model it was inflated from.

    That is the 2D model of the same file with its colour kernel, fed one gray slice on all colours; for a lifted
    encoder with its kernel inflated over channels, fed the slice; for a video source the video model, fed the gray
    window on all colours. All in float64.

    Args:
        model: the encoder.
        path: its checkpoint.
        encoder: its name.
        img_size: pixels.
        windows: random windows to compare on.
        seed: of the windows.
    """
    slices, channels = model.slices, model.channels
    model = copy.deepcopy(model).double()  # so that what differs is not rounding
    before = model.load_report.kernel.double()
    after = model.model.get_submodule(model.naming.kernel.rpartition('.')[0]).weight
    video = isinstance(model.model, SwinTransformer3d)
    # both as (E, P, P), or (E, 2, P, P) where a video kernel keeps its depth
    summed = after.sum(1) if before.ndim == 5 else (after.sum((1, 2)) if video else after.sum(1))
    comparable = dict(report=model.load_report, kernel_before=float(before.sum()), kernel_after=float(after.sum()),
                      kernel_difference=float((summed - before.sum(1)).abs().max()))
    if video and before.ndim == 4:
        return Certificate(**comparable, reference='none: attention over depth has no 2D counterpart', centre=None,
                           constant=None, scale=None)
    lifting = getattr(model, 'lifting', None)
    colours = channels if lifting else before.shape[1]
    flat = build_encoder(path, encoder, slices if video else 1, colours,
                         'centering' if video or lifting else 'none', img_size).double()
    if video:
        flat.model.patch_embed.proj.weight.copy_(before)
    fresh = {name: value for name, value in flat.named_parameters() if not name.startswith('model.')}
    model.load_state_dict(fresh, strict=False)
    height, width = sides(img_size)
    generator = torch.Generator().manual_seed(seed)
    window = torch.randn(windows, channels, slices, height, width, generator=generator,
                         dtype=torch.float64)

    def differ(x: Tensor) -> tuple[float, float]:
        if lifting:  # all slices, so that matrix products are as large as the lifted model's, and round alike
            wanted = [level.unflatten(0, (windows, slices))[:, slices // 2]
                      for level in flat(x.movedim(2, 1).flatten(0, 1))]
        else:
            gray = x.mean(1, keepdim=True) if video else x[:, :, slices // 2].mean(1, keepdim=True)
            wanted = flat(gray.repeat(1, colours, *[1] * (gray.ndim - 2)).reshape(windows, -1, height, width))
        got = model(x.flatten(1, 2))
        return (max(float((a - b).abs().max()) for a, b in zip(got, wanted, strict=True)),
                max(float(b.abs().max()) for b in wanted))

    centre, scale = differ(window)
    constant, _ = differ(window[:, :, :1].expand_as(window).contiguous())
    reference = 'the video model on the same window' if video else 'the 2D model on the centre slice'
    added = sum(map(torch.numel, lifting.parameters())) if lifting else 0
    return Certificate(**comparable, reference=reference, centre=centre, constant=constant, scale=scale,
                       added=added)


def standalone_state(model: nn.Module, path: str | Path) -> tuple[dict[str, Tensor], str]:
    """Weights that timm or torchvision load strictly, and the lines of Python that do so.

    What lies behind the taps (final norm) is taken from the checkpoint, or fresh where it has none.

    Raises:
        UserError: it is no model of theirs.
    """
    if type(model).__name__ in BASELINES.values():
        raise UserError(f'{type(model).__name__} is no model of timm or torchvision, which could load its weights')
    if getattr(model, 'lifting', None) is not None:
        raise UserError('a lifted encoder is no model of timm, which could load its weights; leave --out out')
    inner = model.model
    arguments = ', '.join(f'{key}={value!r}' for key, value in model.sizes.items())
    if isinstance(inner, SwinTransformer3d):
        whole = SwinTransformer3d(
            patch_embed=lambda **kw: PatchEmbed3d(in_channels=model.channels, **kw), **model.sizes)
        whole.head = nn.Identity()
        lines = ('from torch import nn\n'
                 'from torchvision.models.video.swin_transformer import PatchEmbed3d, SwinTransformer3d\n'
                 f'model = SwinTransformer3d({arguments},\n'
                 f'                          patch_embed=lambda **kw: PatchEmbed3d(in_channels={model.channels}, '
                 '**kw))\nmodel.head = nn.Identity()')
    else:
        whole = timm.create_model(model.name, num_classes=0, **model.timm_sizes)
        lines = (f'import timm\nmodel = timm.create_model({model.name!r}, num_classes=0, '
                 f'in_chans={model.channels * model.slices}, img_size={model.img_size}'
                 f'{", " + arguments if arguments else ""})')
    state, (source, _) = whole.state_dict(), read_source(path, model.naming)
    state |= {key: value for key, value in source.items() if key in state and state[key].shape == value.shape}
    state |= merged_state(inner)
    return {key: value.contiguous().clone() for key, value in state.items()}, lines
