"""What tools share on the command line: a progress bar, and how a dataset is named."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .datasets.catalogue import CATALOGUE, DatasetInfo, dataset_info
from .datasets.layouts import describe_folder
from .errors import UserError
from .experiment import import_extensions


def counter(title: str) -> Callable[[int, int, str], None]:
    """A bar for work that is counted in items, called with (done, total, item); it goes when all is done.

    Silent where standard error is no terminal.
    """
    console = Console(stderr=True)
    bar = Progress(TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                   TextColumn('{task.description}'), console=console, transient=True,
                   disable=not console.is_terminal)
    task = None

    def count(done: int, total: int, item: str) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task('', total=total)
        bar.update(task, completed=done, total=total, description=item)
        if done == total:
            bar.stop()
            task = None
    return count


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('dataset', help=f'one of: {", ".join([*CATALOGUE, "layout"])}; or a folder, with --layout')
    parser.add_argument('--raw', type=Path, help='the archive\'s folder (default: data/<its name>)')
    parser.add_argument('--layout', choices=['msd', 'nnunet'],
                        help='DATASET is a folder with a dataset.json of this kind, not in the catalogue')
    parser.add_argument('--imports', nargs='+', default=[], metavar='MODULE',
                        help='your own modules that add to the catalogue')
    parser.add_argument('--workers', type=int, help='processes that read (default: one per core, at most 8)')


def choose_dataset(args: argparse.Namespace) -> tuple[str, DatasetInfo, Path]:
    """The dataset that the arguments name: its name, its entry, its raw folder."""
    if (args.workers or 1) < 1:
        raise UserError('--workers must be at least 1')
    import_extensions(args.imports, '--imports')
    if args.layout:
        raw = Path(args.dataset)
        if not raw.is_dir():
            raise UserError(f'{raw}: folder not found; with --layout, name the folder that holds dataset.json')
        return *describe_folder(raw, args.layout), raw
    info = dataset_info(args.dataset)
    return args.dataset, info, args.raw or Path('data') / info.folder
