"""What each lifting preserves of a source's 2D model: python benchmarks/certificates.py   (minutes)

Every lifting is given to the source's encoder, and what it makes of random windows is compared with what the 2D
model makes of their centre slice, in float64 (mmseg_plugins/certificate.py; tools/inflate.py prints one). Writes
certificates.md.
"""

import argparse
import logging
import sys
import textwrap
from pathlib import Path

import pandas as pd
import torch

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from benchmarks.rendering.markup import to_markdown  # noqa: E402
from mmseg_plugins.certificate import build_encoder, certify  # noqa: E402
from mmseg_plugins.errors import UserError, run_main  # noqa: E402
from mmseg_plugins.files import file_sha256, write_atomic  # noqa: E402
from mmseg_plugins.flops import count_cost  # noqa: E402
from mmseg_plugins.lifting import LIFTINGS  # noqa: E402
from mmseg_plugins.options import path  # noqa: E402
from mmseg_plugins.progress import counting  # noqa: E402

CHECKPOINT = 'weights/dinov2_vits14.safetensors'
SLICES = (1, 2, 5)
MORE = ('joint(2)', 'joint(5)')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('checkpoint', type=path, nargs='?', default=Path(CHECKPOINT))
    parser.add_argument('--encoder', default='timm/vit_small_patch14_dinov2.lvd142m', help='as of inflate.py')
    parser.add_argument('--img-size', type=int, default=112, help='pixels')
    parser.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.md'))
    args = parser.parse_args()
    logging.disable(logging.INFO)
    names = sorted([*LIFTINGS, *MORE], key=lambda name: (name != 'kernel', name))
    rows, refused = [], []
    with counting('liftings') as count:
        for number, name in enumerate(names):
            count(number, len(names), name)
            try:
                rows.append(certify_all(name, args))
            except UserError as error:
                if name == 'kernel':  # then nothing fits
                    raise
                refused.append(f'\nNot here: {error}.\n')
    write_atomic(args.out, describe(rows, args) + ''.join(refused))
    print(args.out)


def certify_all(name: str, args: argparse.Namespace) -> dict[str, str]:
    """A lifting's line."""
    row = {'lifting': name}
    for slices in SLICES:
        torch.manual_seed(0)  # of what starts at random
        model = build_encoder(args.checkpoint, args.encoder, slices, 1, 'centering', args.img_size, name)
        made = certify(model, args.checkpoint, args.encoder, args.img_size)
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


if __name__ == '__main__':
    run_main(main)
