"""What the speed benchmarks share: a case to work on, interleaved timing, and a page that says on what it ran."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from scipy import ndimage

from benchmarks.rendering.markup import to_markdown
from benchmarks.runs.provenance import provenance
from mmseg_plugins.commands import command
from mmseg_plugins.datasets.phantom import make_phantom
from mmseg_plugins.datasets.volumes import Volume, read_volume, write_nifti
from mmseg_plugins.files import write_atomic
from mmseg_plugins.threads import use_threads

CONSOLE = Console(stderr=True, soft_wrap=True)
PHANTOM = 'a phantom CT made on the spot'
SIZE = 512  # its height and width in pixels


def make_parser(description: str, repeats: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--repeats', type=int, default=repeats, help=f'rounds (default: {repeats})')
    parser.add_argument('--out', type=Path, help='the page to write (default: beside this script)')
    return parser


def parse_case_args(description: str, repeats: int, size: int = SIZE, options: Mapping[str, dict] | None = None
                    ) -> argparse.Namespace:
    """Of a script that works on one case.

    Args:
        size: of the phantom, where nothing is said of it.
        options: of the script's own, each with what `add_argument` takes.
    """
    parser = make_parser(description, repeats)
    parser.add_argument('--image', type=Path, help=f'a CT as .nii.gz (default: {PHANTOM})')
    parser.add_argument('--label', type=Path, help='its label map')
    parser.add_argument('--size', type=int, help=f'height and width of {PHANTOM}, in pixels (default: {size})')
    for option, how in (options or {}).items():
        parser.add_argument(option, **how)
    args = parse(parser)
    if bool(args.image) != bool(args.label):
        parser.error('--image and --label go together')
    if args.image and args.size:
        parser.error('--size is of the phantom; an image has its own')
    if args.size is not None and (args.size < 64 or args.size % 4):
        parser.error('--size must be at least 64 and a multiple of 4')
    args.phantom = args.size or size
    return args


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and compute with one thread, unless the user has chosen otherwise.

    Its `given` holds what is not a default, for the command that repeats it.
    """
    use_threads(1)
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error('--repeats must be at least 1')
    chosen = {name: value for name, value in vars(args).items() if value != parser.get_default(name)}
    args.given = [word for name, value in chosen.items()
                  for word in (f'--{name.replace("_", "-")}', *(value if isinstance(value, list) else [value]))]
    return args


def make_case(args: argparse.Namespace, folder: Path) -> tuple[Path, Path, Volume]:
    """The case as files and as a volume: the user's, or a phantom a quarter as deep as wide."""
    image, label = args.image, args.label
    if image is None:
        size = args.phantom
        hu, organs = make_phantom(1, size // 4, 26 * size // SIZE)
        CONSOLE.print(f'drawing a phantom of {size} x {size} x {5 * len(hu)}')
        hu = ndimage.zoom(hu.astype(np.float32), (5, 4, 4), order=1, mode='nearest', grid_mode=True)
        # as a scanner's reconstruction has it: 15 HU, correlated within the plane
        noise = np.random.default_rng(1).standard_normal(hu.shape, np.float32)
        noise = ndimage.gaussian_filter(noise, (0, 0.8, 0.8))
        hu = np.clip(np.round(hu + noise * (15 / noise.std())), -1024, 3071).astype(np.int16)
        image, label = folder / 'image.nii.gz', folder / 'label.nii.gz'
        for path, array in ((image, hu), (label, organs.repeat(5, 0).repeat(4, 1).repeat(4, 2))):
            write_nifti(path, np.ascontiguousarray(array.transpose(2, 1, 0)), np.diag([-0.7, -0.7, -2.5, 1.0]))
    return image, label, read_volume(image, label)


def take_turns(ways: dict[str, Callable[[], float]], repeats: int) -> pd.DataFrame:
    """The seconds that each way says it took, rounds by ways: all of them once per round, in this process."""
    seconds = {name: [] for name in ways}
    for number in range(1, repeats + 1):
        for name, way in ways.items():
            seconds[name].append(way())
            CONSOLE.print(f'round {number}/{repeats}  {name:<52} {seconds[name][-1] * 1000:10.2f} ms')
    return pd.DataFrame(seconds)


def time_second(work: Callable[[], object]) -> float:
    """CPU-seconds of `work` at its second time: its memory is there by then, as in a loop that goes on.

    (A virtual machine may take seconds to get back what another way left.)
    """
    work()
    return timed(work)


def timed(work: Callable[[], object]) -> float:
    """CPU-seconds of `work`, done once."""
    start = time.process_time()
    work()
    return time.process_time() - start


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first column is text, the others are numbers."""
    return to_markdown(pd.DataFrame(rows, columns=header), rule='---:')


def write_page(script: str, args: argparse.Namespace, text: str, packages: list[str], gpu: bool = False,
               untimed: str = 'run') -> None:
    """Print a page and write it, with the circumstances of its figures, where `--out` says.

    Args:
        script: its path.
        args: with `repeats`, `out` and `given`.
        text: Markdown.
        packages: whose versions matter.
        gpu: whether it was the GPU's time.
        untimed: what each competitor did once before it was timed.
    """
    hardware, threads = provenance()['hardware'], torch.get_num_threads()
    device = f', {hardware["gpu"]}' if gpu else ''
    repeat = command(f'benchmarks/speed/{Path(script).name}', *args.given, portable=True)
    versions = ', '.join(f'{name} {version(name)}' for name in packages)
    text += (f'\nBy `{repeat}` on {hardware["cpu"]} ({hardware["cores"]} cores){device}, {threads} '
             f'thread{"s" * (threads > 1)}, Python {sys.version.split()[0]}, {versions}. '
             f'{"Wall-clock" if gpu else "CPU"} time; medians of {args.repeats} rounds in which all took turns in '
             f'one process, each after a {untimed} that was not timed.\n')
    print(text)
    path = args.out or Path(script).with_suffix('.md')
    write_atomic(path, text)
    CONSOLE.print(str(path))
