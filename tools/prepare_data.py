"""Verify and store a dataset: python tools/prepare_data.py DATASET [--raw FOLDER] | FOLDER --layout msd|nnunet"""

import argparse
import sys
from pathlib import Path

from mmseg_plugins.dataset_arguments import add_dataset_arguments, choose_dataset
from mmseg_plugins.datasets.layout_images import prepare_layout
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.progress import counting


def main() -> int:
    parser = argparse.ArgumentParser(description='Verify a dataset and store it for training.')
    add_dataset_arguments(parser, 'layout')
    parser.add_argument('--out', type=Path, help='default: data/prepared/<dataset>')
    parser.add_argument('--uncompressed', action='store_true',
                        help='memory-mapped arrays: read faster, several times larger')
    args = parser.parse_args()
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


if __name__ == '__main__':
    run_main(main)
