"""Inflate a checkpoint into a standalone file, and prove it: python tools/inflate.py CHECKPOINT --encoder beit"""

import argparse
import json
import logging

import torch
from safetensors.torch import save
from torch import nn

from mmseg_plugins.certificate import ENCODERS, Certificate, build_encoder, certify, standalone_state
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.experiment import import_extensions
from mmseg_plugins.files import check_output, file_sha256, write_atomic
from mmseg_plugins.options import path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Inflate a published checkpoint; prints a certificate.')
    parser.add_argument('checkpoint', type=path)
    parser.add_argument('--encoder', required=True, help=f'{", ".join(ENCODERS)}, or timm/<model>')
    parser.add_argument('--slices', type=int, default=5)
    parser.add_argument('--channels', type=int, default=1)
    parser.add_argument('--method', default='centering', help='inflation method')
    parser.add_argument('--lifting', default='kernel', help='how depth enters the blocks')
    parser.add_argument('--imports', nargs='+', default=[], metavar='MODULE',
                        help='modules of yours with a method or a lifting')
    parser.add_argument('--img-size', type=int, default=224, help='pixels; position tables are resized to it')
    parser.add_argument('--out', type=path, help='write the weights here (.safetensors)')
    parser.add_argument('--overwrite', action='store_true', help='OUT may be there already')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import_extensions(args.imports, '--imports')
    logging.disable(logging.INFO)  # the certificate says it better
    if args.out:
        if args.out.suffix != '.safetensors':
            raise UserError(f'{args.out}: must be named .safetensors')
        check_output(args.out, 'the inflated checkpoint', [args.checkpoint], args.overwrite)
    model = build(args, args.slices)
    standalone = args.out and standalone_state(model, args.checkpoint)  # refused before minutes of comparing
    show(certify(model, args.checkpoint, args.encoder, args.img_size), args)
    for slices in (1, 2, 5) if args.lifting != 'kernel' else ():
        if slices != args.slices:
            print(f'    random windows of {slices} slice{"s" * (slices > 1)}: {compare(args, slices)}')
    if args.out:
        state, lines = standalone
        made = dict(source=args.checkpoint.name, sha256=file_sha256(args.checkpoint), encoder=args.encoder,
                    slices=args.slices, channels=args.channels, method=args.method, img_size=args.img_size)
        write_atomic(args.out, save(state, {key: json.dumps(value) for key, value in made.items()}))
        print(f'to load it without this package, input (B, {args.channels * args.slices}, H, W), channel-major:\n'
              f'{lines}\nfrom safetensors.torch import load_file\n'
              f'model.load_state_dict(load_file({str(args.out)!r}))')
        print(args.out)


def build(args: argparse.Namespace, slices: int) -> nn.Module:
    """The encoder, for windows of so many slices; what starts at random is the same in each call."""
    torch.manual_seed(0)
    return build_encoder(args.checkpoint, args.encoder, slices, args.channels, args.method, args.img_size,
                         args.lifting)


def compare(args: argparse.Namespace, slices: int) -> str:
    """How far the lifted model is from the 2D one at first, or why there is none of so many slices."""
    try:
        made = certify(build(args, slices), args.checkpoint, args.encoder, args.img_size)
    except UserError as error:
        return str(error)
    return f'largest difference {made.centre:.2e}'


def show(certificate: Certificate, args: argparse.Namespace) -> None:
    """Print what was preserved, a line each."""
    report, scale = certificate.report, certificate.scale
    print(f'{args.checkpoint.name} -> {args.encoder}, {args.slices} slices, {args.channels} channels, '
          f'{args.method}' + f', lifting {args.lifting}' * (args.lifting != 'kernel'))
    print(f'  keys: {len(report.loaded)} loaded, {len(report.resized)} resized, {len(report.inflated)} inflated, '
          f'{len(report.dropped)} dropped by rule, {len(report.missing)} left at initialization; none unexplained')
    for why in dict.fromkeys(report.dropped.values()):
        keys = [key for key, rule in report.dropped.items() if rule == why]
        print(f'    dropped, {why}: {keys[0]}' + (f' and {len(keys) - 1} more' if len(keys) > 1 else ''))
    if certificate.added:
        print(f'  new parameters: {certificate.added:,}')
    print(f'  kernel sum: {certificate.kernel_before:.6f} before, {certificate.kernel_after:.6f} after; '
          f'largest difference at any weight {certificate.kernel_difference:.2e}')
    print(f'  features against {certificate.reference}')
    if scale is not None:
        print(f'    random windows: largest difference {certificate.centre:.2e} (largest feature {scale:.2f})')
        print(f'    windows of one image repeated: {certificate.constant:.2e}')


if __name__ == '__main__':
    run_main(main)
