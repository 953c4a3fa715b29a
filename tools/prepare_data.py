"""Verify and store a dataset: python tools/prepare_data.py DATASET [--raw FOLDER] | FOLDER --layout msd|nnunet

Or images to pre-train on: `layout`, which are drawn, and `photographs`, a folder or .tar of class folders (--raw).
"""

import argparse
import sys
from pathlib import Path

from mmseg_plugins.dataset_arguments import SOURCE_TASKS, add_dataset_arguments, choose_dataset
from mmseg_plugins.datasets.layout_images import prepare_layout
from mmseg_plugins.datasets.photographs import ARCHIVE, SIZE, prepare_photographs
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.progress import counting


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_dataset_arguments(parser, *SOURCE_TASKS)
    parser.add_argument('--out', type=Path, help='default: data/prepared/<dataset>')
    parser.add_argument('--uncompressed', action='store_true',
                        help='memory-mapped arrays: read faster, several times larger')
    parser.add_argument('--size', type=int, help=f'pixels along each side of photographs (default: {SIZE})')
    args = parser.parse_args()
    if args.dataset == 'photographs' and not args.layout:
        return store_photographs(args)
    if args.size is not None:
        raise UserError('--size is for photographs; volumes keep their own')
    if args.dataset == 'layout' and not args.layout:
        if given := [key for key in ('raw', 'name', 'imports', 'workers', 'uncompressed') if getattr(args, key)]:
            raise UserError(f'--{given[0]}: layout is drawn by one process, from nothing; leave it out')
        out = args.out or Path('data/prepared/layout')
        prepare_layout(out)
        print(out)
        return 0
    name, info, raw = choose_dataset(args)
    out = args.out or Path('data/prepared') / name
    with counting('preparing') as count:
        result = prepare_dataset(name, raw, out, count, info, args.workers, args.uncompressed)
    for line in result.warnings:
        print(f'warning: {line}')
    for fault in result.faults:
        print(f'error: {fault}', file=sys.stderr)
    print(f'{result.cases} cases prepared, {result.left_out} left out')
    print(out)
    return 2 if result.faults else 0


def store_photographs(args: argparse.Namespace) -> int:
    """Prepare class folders of images; exit status 2 where a file could not be read."""
    if given := [key for key in ('name', 'imports', 'uncompressed') if getattr(args, key)]:
        raise UserError(f'--{given[0]}: not for photographs; leave it out')
    for key in ('size', 'workers'):
        if getattr(args, key) is not None and getattr(args, key) < 1:
            raise UserError(f'--{key} must be at least 1')
    out = args.out or Path('data/prepared/photographs')
    with counting('preparing') as count:
        faults = prepare_photographs(args.raw or Path('data') / ARCHIVE, out, args.size or SIZE, args.workers,
                                     count)
    for fault in faults:
        print(f'error: {fault}', file=sys.stderr)
    print(out)
    return 2 if faults else 0


if __name__ == '__main__':
    run_main(main)
