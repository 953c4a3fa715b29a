"""Prepared cases: compressed arrays chunked by slice, so that a window is a few neighbouring chunks.

    <prepared>/index.json              dataset, classes, intensity rules, split, one entry per case
    <prepared>/split.json              the split alone, with its hash
    <prepared>/cases/<case>/image.b2nd (D, C, H, W) in the volume's own dtype, a chunk is a slice
    <prepared>/cases/<case>/label.b2nd (D, H, W) uint8
    <prepared>/cases/<case>/meta.json  its facts (statistics.py), and what it was made from
"""

import json
import os
import shutil
from collections import OrderedDict
from pathlib import Path

import blosc2
import numpy as np

from ..errors import UserError
from ..files import write_atomic
from .catalogue import how_to_prepare
from .intensity import STATISTICS
from .volumes import Volume

blosc2.set_nthreads(1)  # the loader's workers are the parallelism
OPEN_CASES = 64  # file handles per process; a window touches one case


def write_case(folder: Path, case: str, volume: Volume, meta: dict) -> dict:
    """Store one case; it appears under `folder/cases` whole or not at all. Returns its metadata, `meta`."""
    final, temporary = folder / 'cases' / case, folder / 'cases' / f'.{case}.{os.getpid()}'
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    arrays = {'image': volume.image} | ({} if volume.label is None else {'label': volume.label})
    for name, array in arrays.items():
        blosc2.asarray(array, urlpath=str(temporary / f'{name}.b2nd'), mode='w',
                       chunks=(1, *array.shape[1:]), blocks=(1, *array.shape[1:]),
                       cparams=dict(codec=blosc2.Codec.ZSTD, clevel=3, nthreads=1,
                                    filters=[blosc2.Filter.SHUFFLE]))
    (temporary / 'meta.json').write_text(json.dumps(meta))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    return meta


# What an index repeats of a case.
INDEXED = ('shape', 'spacing', 'orientation', *STATISTICS, 'voxels', 'slices', 'variation', 'image_sha256',
           'sha256')


def discard_unfinished(folder: Path) -> None:
    """Take away what a killed preparation left half written."""
    for path in (folder / 'cases').glob('.*'):
        shutil.rmtree(path, ignore_errors=True)


def read_meta(folder: Path, case: str) -> dict | None:
    """A stored case's metadata, or None where the case is not (wholly) there."""
    try:
        meta = json.loads((folder / 'cases' / case / 'meta.json').read_text())
    except (OSError, ValueError):
        return None
    return meta if all(key in meta for key in INDEXED) else None


def write_index(folder: Path, index: dict) -> None:
    write_atomic(folder / 'index.json', json.dumps(index, indent=1))


def read_index(folder: str | Path) -> dict:
    """The index of a prepared dataset.

    Raises:
        UserError: not prepared, with the command that prepares it.
    """
    path = Path(folder) / 'index.json'
    try:
        index = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f'{path}: dataset not prepared; {how_to_prepare(Path(folder).name)}') from None
    except ValueError as error:
        raise UserError(f'{path}: not valid JSON ({error}); prepare the dataset again') from error
    if not isinstance(index.get('intensity'), dict):
        raise UserError(f'{path}: made by an earlier version; {how_to_prepare(Path(folder).name)}')
    return index


def window_indices(centre: int, depth: int, slices: int, stride: int) -> list[int]:
    """`clamp(centre + (k - S // 2) * stride, 0, depth - 1)` for k = 0..S-1."""
    return [min(max(centre + (k - slices // 2) * stride, 0), depth - 1) for k in range(slices)]


class Store:
    """Read access to prepared cases; safe to use in any number of processes.

    Args:
        folder: the prepared dataset.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._open: OrderedDict[tuple[str, str], blosc2.NDArray] = OrderedDict()

    def __getstate__(self):
        return dict(folder=self.folder, _open=OrderedDict())  # handles do not cross processes

    def _array(self, case: str, name: str):
        key = (case, name)
        if key not in self._open:
            path = self.folder / 'cases' / case / f'{name}.b2nd'
            try:
                self._open[key] = blosc2.open(str(path), mode='r')
            except (OSError, RuntimeError) as error:
                raise UserError(f'{path}: cannot be read; prepare the dataset again') from error
            if len(self._open) > OPEN_CASES:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def window(self, case: str, indices: list[int]) -> np.ndarray:
        """Slices `indices` of a case's image as (C, S, H, W)."""
        return self._planes(self._array(case, 'image'), indices).swapaxes(0, 1)

    def label(self, case: str, indices: list[int]) -> np.ndarray:
        """Label planes `indices` as (S, H, W) uint8."""
        return self._planes(self._array(case, 'label'), indices)

    @staticmethod
    def _planes(array, indices: list[int]) -> np.ndarray:
        # Each distinct slice is decompressed once: clamped windows repeat the edge slice.
        distinct = sorted(set(indices))
        if distinct[-1] - distinct[0] + 1 == len(distinct):
            planes = array[distinct[0]:distinct[-1] + 1]
        else:
            planes = np.stack([array[z] for z in distinct])
        if distinct == indices:
            return planes
        return planes[np.searchsorted(distinct, indices)]
