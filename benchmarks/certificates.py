"""What each lifting preserves of a source's 2D model: python benchmarks/certificates.py   (minutes)

Every lifting is given to the source's encoder, and what it makes of random windows is compared with what the 2D
model makes of their centre slice, in float64 (mmseg_plugins/certificate.py; tools/inflate.py prints one). Then the
same with encoders of other kinds, from random weights. Writes certificates.md.
"""

import argparse
import logging
import sys
import tempfile
import textwrap
from pathlib import Path

import pandas as pd
import timm
import torch

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from benchmarks.rendering.markup import to_markdown  # noqa: E402
from mmseg_plugins.certificate import Certificate, build_encoder, certify  # noqa: E402
from mmseg_plugins.errors import UserError, run_main  # noqa: E402
from mmseg_plugins.files import file_sha256, write_atomic  # noqa: E402
from mmseg_plugins.flops import count_cost  # noqa: E402
from mmseg_plugins.lifting import LIFTINGS  # noqa: E402
from mmseg_plugins.options import path  # noqa: E402
from mmseg_plugins.progress import counting  # noqa: E402

CHECKPOINT = 'weights/dinov2_vits14.safetensors'
SLICES = (1, 2, 5)
MORE = ('joint(2)', 'joint(5)')
OTHERS = {'BEiT': 'beit_base_patch16_224', 'EVA-02': 'eva02_small_patch14_336.mim_in22k_ft_in1k',
          'DINOv3': 'vit_small_patch16_dinov3.lvd1689m', 'Swin': 'swin_tiny_patch4_window7_224.ms_in1k'}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('checkpoint', type=path, nargs='?', default=Path(CHECKPOINT))
    parser.add_argument('--encoder', default='timm/vit_small_patch14_dinov2.lvd142m', help='as of inflate.py')
    parser.add_argument('--img-size', type=int, default=112, help='pixels')
    parser.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.md'))
    args = parser.parse_args()
    logging.disable(logging.INFO)
    names = sorted([*LIFTINGS, *MORE], key=lambda name: (name != 'kernel', name))
    rows, others, refused, drawn = [], [], [], {}
    with counting('liftings') as count, tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            count(number, len(names), name)
            try:
                rows.append(certify_all(name, args))
            except UserError as error:
                if name == 'kernel':  # then nothing fits
                    raise
                refused.append(f'\nNot here: {error}.\n')
            # not before the first has shown that the checkpoint fits
            drawn = drawn or {kind: draw_source(model, Path(folder)) for kind, model in OTHERS.items()}
            others.append({'lifting': name} | {kind: share_of_feature(name, path, OTHERS[kind], args.img_size)
                                               for kind, path in drawn.items()})
    write_atomic(args.out, describe(rows, args) + ''.join(refused) + describe_others(others))
    print(args.out)


def certify_one(name: str, slices: int, path: Path, encoder: str, img_size: int
                ) -> tuple[torch.nn.Module, Certificate]:
    """A lifted encoder, and what it preserved."""
    torch.manual_seed(0)  # of what starts at random
    model = build_encoder(path, encoder, slices, 1, 'centering', img_size, name)
    return model, certify(model, path, encoder, img_size)


def draw_source(model: str, folder: Path) -> Path:
    """A checkpoint of random weights in which everything counts that starts at zero, or next to it, in timm's."""
    torch.manual_seed(0)
    state = timm.create_model(model, pretrained=False, num_classes=0).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.abs().max() < 1e-3:
            tensor.normal_(0, 0.1)
    path = folder / f'{model}.pth'
    torch.save({'model': state}, path)
    return path


def share_of_feature(name: str, path: Path, model: str, img_size: int) -> str:
    """The largest difference with a window of five slices, as a share of the 2D model's largest feature."""
    try:
        _, made = certify_one(name, max(SLICES), path, f'timm/{model}', img_size)
    except UserError:
        if name == 'kernel':  # then it is the size that does not fit
            raise
        return '—'
    return f'{made.centre / made.scale:.1g}' if made.centre else '0'


def certify_all(name: str, args: argparse.Namespace) -> dict[str, str]:
    """A lifting's line."""
    row = {'lifting': name}
    for slices in SLICES:
        model, made = certify_one(name, slices, args.checkpoint, args.encoder, args.img_size)
        row[f'{slices} slice{"s" * (slices > 1)}'] = f'{made.centre:.1g}' if made.centre else '0'
    report = made.report
    row['keys'] = f'{len(report.loaded)} loaded, {len(report.resized)} resized, {len(report.inflated)} inflated'
    row['new parameters'], row['GFLOPs'] = f'{made.added:,}', f'{flops_of(model, args.img_size) / 1e9:.2f}'
    row['largest feature'] = f'{made.scale:.1f}'
    return row


def flops_of(encoder: torch.nn.Module, img_size: int) -> int:
    """Of one window, as mmseg_plugins/flops.py counts them."""
    class Alone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = encoder

        def forward(self, window: torch.Tensor, mode: str):
            return self.backbone(window)

    return sum(cost.flops for cost in count_cost(Alone(), (img_size, img_size)).values())


def describe(rows: list[dict[str, str]], args: argparse.Namespace) -> str:
    """The page."""
    columns = ['lifting', *(name for name in rows[0] if name.split()[0].isdigit()), 'largest feature',
               'new parameters', 'GFLOPs', 'keys']
    above = f'''{args.checkpoint.name} ({file_sha256(args.checkpoint)[:16]}), centering, {args.img_size} pixels. By
        windows of 1, 2 and 5 slices: the largest difference of any feature from the 2D model's on the centre
        slice, on random windows in float64; 0 is exactly nothing. `kernel` stands against the model of colour
        images, whose kernel was summed over colour in float32; the others against the same with one slice. Beside
        it, with 5 slices, the 2D model's largest feature, the parameters that the lifting adds, the encoder's
        FLOPs, and the keys of the checkpoint, of which none is unexplained.'''
    command = f'benchmarks/certificates.py {args.checkpoint} --encoder {args.encoder} --img-size {args.img_size}'
    return '\n'.join(['# What liftings preserve at the start', '', f'    python {command}', '',
                      textwrap.fill(' '.join(above.split()), 115), '',
                      to_markdown(pd.DataFrame(rows, columns=columns))])


def describe_others(rows: list[dict[str, str]]) -> str:
    """The page's second half."""
    above = f'''Other kinds of positions: relative ones in a table (BEiT), rotary ones (EVA-02; DINOv3, with
        registers), windows (Swin), in timm's {", ".join(OTHERS.values())}. Weights are random, and what starts at
        zero, or next to it, is drawn too, so that each part counts: what is not 0 or rounding (below 1e-6) is of
        these weights, and tells nothing of a trained model. Windows of {max(SLICES)} slices; the largest
        difference as a share of the 2D model's largest feature. —: the lifting does not take this encoder, and
        says so.'''
    return '\n'.join(['', '## Other encoders', '', textwrap.fill(' '.join(above.split()), 115), '',
                      to_markdown(pd.DataFrame(rows))])


if __name__ == '__main__':
    run_main(main)
