"""What the speed benchmarks share: a case to work on, interleaved timing, and a page that says on what it ran."""

import argparse
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy import ndimage

from benchmarks.runner import provenance
from mmseg_plugins.datasets.phantom import make_phantom
from mmseg_plugins.datasets.volumes import Volume, read_volume, write_nifti
from mmseg_plugins.files import write_atomic

CONSOLE = Console(stderr=True, soft_wrap=True)
PHANTOM = 'a phantom CT made on the spot'


def parse_args(description: str, repeats: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--image', type=Path, help=f'a CT as .nii.gz (default: {PHANTOM})')
    parser.add_argument('--label', type=Path, help='its label map')
    parser.add_argument('--repeats', type=int, default=repeats, help=f'rounds (default: {repeats})')
    parser.add_argument('--out', type=Path, help='the page to write (default: beside this script)')
    args = parser.parse_args()
    if bool(args.image) != bool(args.label):
        parser.error('--image and --label go together')
    return args


def make_case(args: argparse.Namespace, folder: Path) -> tuple[Path, Path, Volume]:
    """The case as files and as a volume: the user's, or a phantom of 512 x 512 x 130."""
    image, label = args.image, args.label
    if image is None:
        CONSOLE.print('drawing a phantom of 512 x 512 x 130')
        hu, organs = make_phantom(1, 128, 26)
        hu = ndimage.zoom(hu.astype(np.float32), (5, 4, 4), order=1, mode='nearest', grid_mode=True)
        # as a scanner's reconstruction has it: 15 HU, correlated within the plane
        noise = np.random.default_rng(1).standard_normal(hu.shape, np.float32)
        noise = ndimage.gaussian_filter(noise, (0, 0.8, 0.8))
        hu = np.clip(np.round(hu + noise * (15 / noise.std())), -1024, 3071).astype(np.int16)
        image, label = folder / 'image.nii.gz', folder / 'label.nii.gz'
        for path, array in ((image, hu), (label, organs.repeat(5, 0).repeat(4, 1).repeat(4, 2))):
            write_nifti(path, np.ascontiguousarray(array.transpose(2, 1, 0)), np.diag([-0.7, -0.7, -2.5, 1.0]))
    return image, label, read_volume(image, label)


def interleave(competitors: dict[str, tuple[Callable[[], object], int]], repeats: int) -> dict[str, float]:
    """Median CPU-seconds per item of each competitor, all of them once per round, in this process.

    Each goes twice in a row, of which the second is timed: its memory is there by then, as in a loop that
    goes on. (A virtual machine may take seconds to get back what another competitor left.)

    Args:
        competitors: name -> (what does one round, number of items in it).
        repeats: rounds.
    """
    seconds = {name: [] for name in competitors}
    for number in range(1, repeats + 1):
        for name, (work, items) in competitors.items():
            work()
            start = time.process_time()
            work()
            seconds[name].append((time.process_time() - start) / items)
            CONSOLE.print(f'round {number}/{repeats}  {name:<52} {seconds[name][-1] * 1000:10.2f} ms')
    return {name: float(np.median(times)) for name, times in seconds.items()}


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first column is text, the others are numbers."""
    rule = ['---', *['---:'] * (len(header) - 1)]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in [header, rule, *rows]) + '\n'


def write_page(script: str, args: argparse.Namespace, text: str, packages: list[str], gpu: bool = False,
               untimed: str = 'run') -> None:
    """Print a page and write it, with the circumstances of its figures, where `--out` says.

    Args:
        script: its path.
        args: with `repeats` and `out`.
        text: Markdown.
        packages: whose versions matter.
        gpu: whether it was the GPU's time.
        untimed: what each competitor did once before it was timed.
    """
    hardware = provenance()['hardware']
    command = ' '.join(['python', f'benchmarks/speed/{Path(script).name}', *sys.argv[1:]])
    text += (f'\nBy `{command}` on {hardware["cpu"]} ({hardware["cores"]} cores), '
             f'{hardware["gpu"] if gpu else "one thread"}, Python '
             f'{sys.version.split()[0]}, ' + ', '.join(f'{name} {version(name)}' for name in packages)
             + f'. {"Wall-clock" if gpu else "CPU"} time; medians of {args.repeats} rounds in which all took '
             f'turns in one process, each after a {untimed} that was not timed.\n')
    print(text)
    path = args.out or Path(script).with_suffix('.md')
    write_atomic(path, text)
    CONSOLE.print(str(path))
