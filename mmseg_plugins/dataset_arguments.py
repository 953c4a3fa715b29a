"""How a dataset is named on a command line."""

import argparse
from pathlib import Path

from .datasets.catalogue import CATALOGUE, DatasetInfo, dataset_info
from .datasets.layouts import describe_folder
from .datasets.phantom import write_phantom
from .errors import UserError
from .experiment import import_extensions
from .progress import counting
from .untrusted import check_name, find_twins

SOURCE_TASKS = ('layout', 'photographs')  # 2D images to pre-train on, which have no volumes


def add_dataset_arguments(parser: argparse.ArgumentParser, *others: str) -> None:
    parser.add_argument('dataset', help=f'one of: {", ".join([*CATALOGUE, *others])}; or a folder, with --layout')
    parser.add_argument('--raw', type=Path, help='the archive\'s folder (default: data/<its name>)')
    parser.add_argument('--layout', choices=['msd', 'nnunet'],
                        help='DATASET is a folder with a dataset.json of this kind, not in the catalogue')
    parser.add_argument('--name', help='what to call it, with --layout (default: from the folder\'s name)')
    parser.add_argument('--imports', nargs='+', default=[], metavar='MODULE',
                        help='your own modules that add to the catalogue')
    parser.add_argument('--workers', type=int, help='processes that read (default: one per core, at most 8)')


def choose_dataset(args: argparse.Namespace) -> tuple[str, DatasetInfo, Path]:
    """The dataset that the arguments name: its name, its entry, its raw folder."""
    if args.workers is not None and args.workers < 1:
        raise UserError('--workers must be at least 1')
    import_extensions(args.imports, '--imports')
    if not args.layout:
        if args.name:
            raise UserError('--name is for a folder with --layout; the catalogue\'s datasets have theirs')
        info = dataset_info(args.dataset)
        raw = args.raw or Path('data') / info.folder
        if args.dataset == 'phantom':
            with counting('drawing') as count:
                write_phantom(raw, progress=count)
        return args.dataset, info, raw
    raw = Path(args.dataset)
    if args.raw:
        raise UserError(f'--raw {args.raw}: with --layout, the dataset is the folder itself; leave --raw out')
    if not raw.is_dir():
        raise UserError(f'{raw}: folder not found; with --layout, name the folder that holds dataset.json')
    name, info = describe_folder(raw, args.layout)
    name = check_name(args.name or name, '--name' if args.name else f'{raw} (choose another with --name)')
    if taken := [known for known in (*CATALOGUE, *SOURCE_TASKS) if find_twins((known, name))]:
        raise UserError(f'{raw}: the catalogue has a dataset {taken[0]!r} already; call this one otherwise: '
                        f'--name {name}2')
    return name, info, raw
