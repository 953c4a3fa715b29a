"""Verify and store a dataset: python tools/prepare_data.py DATASET [--raw FOLDER] [--out FOLDER]"""

import argparse
import sys
from pathlib import Path

from mmseg_plugins.datasets import CATALOGUE, dataset_info
from mmseg_plugins.datasets.layout_images import prepare_layout
from mmseg_plugins.datasets.phantom import write_phantom
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.errors import run_main


def main() -> int:
    parser = argparse.ArgumentParser(description='Verify a dataset and store it for training.')
    parser.add_argument('dataset', help=f'one of: {", ".join([*CATALOGUE, "layout"])}')
    parser.add_argument('--raw', type=Path, help='the archive\'s folder (default: data/<its name>)')
    parser.add_argument('--out', type=Path, help='default: data/prepared/<dataset>')
    args = parser.parse_args()
    out = args.out or Path('data/prepared') / args.dataset
    if args.dataset == 'layout':
        prepare_layout(out)
        print(out)
        return 0
    raw = args.raw or Path('data') / dataset_info(args.dataset).folder
    if args.dataset == 'phantom':
        write_phantom(raw, progress=show('drawing'))
    result = prepare_dataset(args.dataset, raw, out, show('preparing'))
    for fault in result.faults:
        print(f'error: {fault}', file=sys.stderr)
    print(f'{result.cases} cases prepared, {len(result.faults)} left out')
    print(out)
    return 2 if result.faults else 0


def show(title: str):
    """A counter on one line of the terminal."""
    def count(done: int, total: int, case: str) -> None:
        if sys.stderr.isatty():
            print(f'\r{title} {done}/{total} {case:<24}', end='\n' if done == total else '', file=sys.stderr)
    return count


if __name__ == '__main__':
    run_main(main)
