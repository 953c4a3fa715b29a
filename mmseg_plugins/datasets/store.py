"""Prepared cases: compressed arrays chunked by slice, so that a window is a few neighbouring chunks.

    <prepared>/index.json              dataset, classes, intensity rules, split, one entry per case
    <prepared>/split.json              the split alone, with its hash
    <prepared>/folds_5.json            five folds of all cases, as nnU-Net's splits_final.json, once they were used
    <prepared>/cases/<case>/image.b2nd (D, C, H, W) in the volume's own dtype, a chunk is a slice
    <prepared>/cases/<case>/label.b2nd (D, H, W) uint8 (uint16 of photographs of more than 255 classes)
    <prepared>/cases/<case>/meta.json  its facts (statistics.py), and what it was made from

A case may be stored uncompressed instead, as image.npy and label.npy: read still faster, and several times
larger. Both forms are memory-mapped: what a process reads belongs to the system's cache, which shares it between
processes and takes it back when memory is short. benchmarks/speed/loader.py measures both.
"""

import errno
import json
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from ..errors import UserError, some
from ..files import only_writer, sync_folder, write_json
from ..untrusted import OTHERS, check_name, find_fault, find_twins, read_json
from .catalogue import CATALOGUE, DatasetInfo, how_to_prepare, is_tolerance
from .intensity import PROTOCOLS, STATISTICS
from .planes import Planes
from .splits import list_folds
from .volumes import Volume

MOST_CLASSES = 2**16  # with background; those of label maps from files are fewer (layouts.py)
OPEN_ARRAYS = 64  # mapped files per process; a window touches two
BLOCK = 2**16  # bytes: what is decompressed at a time; larger compresses no better, smaller has more overhead


def write_case(folder: Path, case: str, volume: Volume, meta: dict, mapped: bool = False) -> dict:
    """Store one case; it appears under `folder/cases` whole or not at all. Returns its metadata, `meta`.

    Args:
        mapped: uncompressed, to be memory-mapped.
    """
    final, temporary = folder / 'cases' / case, folder / 'cases' / f'.{case}.{os.getpid()}'
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    arrays = {'image': volume.image} | ({} if volume.label is None else {'label': volume.label})
    for name, array in arrays.items():
        path = temporary / f'{name}.{"npy" if mapped else "b2nd"}'
        try:
            np.save(path, array) if mapped else _compress(array, path)
        except (OSError, RuntimeError) as error:  # neither library says why
            if shutil.disk_usage(temporary).free > array.nbytes:
                raise
            shutil.rmtree(temporary)
            raise OSError(errno.ENOSPC, 'no space left', str(path)) from error
    meta = meta | dict(bytes={path.name: path.stat().st_size for path in _synced(temporary)})
    write_json(temporary / 'meta.json', meta)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    sync_folder(final.parent)
    return meta


def _synced(folder: Path) -> list[Path]:
    """The files of a folder, all on the disk: else a power cut could leave the name and lose the content."""
    paths = sorted(folder.iterdir())
    for path in paths:
        with open(path, 'rb') as file:
            os.fsync(file.fileno())
    return paths


def _compress(array: np.ndarray, path: Path) -> None:
    """Write (D, ..., H, W) with a slice as chunk, and bands of its rows as blocks.

    Chosen by measurement on CTs: LZ4 in its slow-to-write form is smaller than the .nii.gz and decompressed
    three times faster than zstd, which saves another tenth. Floats are either few distinct values,
    scaled, which zstd finds as they are, or many, whose bytes must be sorted first.
    """
    *_, height, width = array.shape
    bands = -(-height * width * array.itemsize // BLOCK)
    sort = blosc2.Filter.SHUFFLE if array.itemsize > 1 else blosc2.Filter.BITSHUFFLE
    options = dict(codec=blosc2.Codec.LZ4HC, clevel=5, filters=[sort])
    if array.dtype.kind == 'f':
        middle = np.ascontiguousarray(array[len(array) // 2])
        options = min((dict(codec=blosc2.Codec.ZSTD, clevel=9, filters=[how])
                       for how in (blosc2.Filter.NOFILTER, blosc2.Filter.SHUFFLE)),
                      key=lambda options: len(blosc2.compress2(middle, typesize=array.itemsize, **options)))
    blosc2.asarray(array, urlpath=str(path), mode='w', chunks=(1, *array.shape[1:]),
                   blocks=(*(1,) * (array.ndim - 2), -(-height // bands), width),
                   cparams=dict(nthreads=1, **options))


def is_mapped(folder: Path, case: str) -> bool:
    """Whether a stored case is in the uncompressed form."""
    return (folder / 'cases' / case / 'image.npy').exists()


# What an index repeats of a case.
INDEXED = ('shape', 'spacing', 'orientation', *STATISTICS, 'voxels', 'slices', 'variation', 'image_sha256',
           'sha256')


def discard_unfinished(folder: Path) -> None:
    """Take away what a killed preparation left half written."""
    for path in (folder / 'cases').glob('.*'):
        shutil.rmtree(path, ignore_errors=True)


def read_meta(folder: Path, case: str) -> dict | None:
    """A stored case's metadata, or None where the case is not (wholly) there."""
    path = folder / 'cases' / case
    try:
        meta = json.loads((path / 'meta.json').read_text())
        whole = all((path / name).stat().st_size == size for name, size in meta['bytes'].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return meta if whole and all(key in meta for key in INDEXED) else None


def check_case(folder: Path, index: dict, case: str) -> dict:
    """A stored case's metadata.

    Raises:
        UserError: it is not (wholly) there, or another than the index tells of: preparing it was interrupted.
    """
    meta = read_meta(folder, case)
    if meta is None:
        raise UserError(f'{folder}: case {case!r} is not wholly there; prepare the dataset again')
    if any(meta[key] != index['cases'][case][key] for key in ('shape', 'spacing', 'sha256')):
        raise UserError(f'{folder}: case {case!r} is newer than index.json, as where preparing was interrupted; '
                        'prepare the dataset again')
    return meta


@contextmanager
def preparing(folder: Path, dataset: str, archive: str | None = None) -> Iterator[None]:
    """While a dataset is prepared the folder is its own; what a killed preparation left half written goes first.

    Raises:
        UserError: another process is at it, or see `check_owner`.
    """
    with only_writer(folder):
        check_owner(folder, dataset, archive)
        discard_unfinished(folder)
        yield


def check_owner(folder: Path, dataset: str, archive: str | None = None) -> None:
    """Refuse to prepare a dataset where another one is, or beside one whose folder differs in capitals alone.

    Args:
        dataset: its name.
        archive: the name of its archive's folder.

    Raises:
        UserError: names both; or the folder holds what no preparation has left.
    """
    for other in sorted(folder.parent.glob('*/index.json')):
        name = other.parent.name
        if name != folder.name and find_twins((name, folder.name)):
            raise UserError(f'{folder}: {name!r} is there, which many file systems take for the same; choose '
                            'another name')
    others = sorted(path.name for path in folder.iterdir() if not re.fullmatch(
        r'\..*|cases|(split|index|folds_\d+)\.json', path.name)) if folder.is_dir() else []
    try:
        there = read_json(folder / 'index.json', '')
    except (OSError, UserError):
        if others or (folder / 'split.json').exists() and not (folder / 'cases').is_dir():
            raise UserError(f'{folder}: holds {some(others or ["split.json"])}, so is no prepared dataset; give '
                            '--out another folder') from None
        return
    other = (there.get('dataset'), there.get('folder')) if isinstance(there, dict) else (dataset, archive)
    if other != (dataset, archive):
        raise UserError(f'{folder}: holds the dataset {other[0]!r} (archive {other[1]}), whose place {dataset!r} '
                        f'(archive {archive}) would take; give --out another folder, or remove this one')


def write_index(folder: Path, index: dict) -> None:
    """Write a prepared dataset's index; of its cases' metadata it keeps what INDEXED names.

    Entries of an index of an earlier version may lack some of that.
    """
    cases = {case: {key: meta[key] for key in INDEXED if key in meta} for case, meta in index['cases'].items()}
    write_json(folder / 'index.json', index | dict(cases=cases))


def write_folds(folder: Path, folds: int) -> None:
    """Write all folds of a prepared dataset beside it, for its user to read and for nnU-Net to take."""
    write_json(folder / f'folds_{folds}.json', list_folds(read_index(folder), folds))


def read_index(folder: str | Path) -> dict:
    """The index of a prepared dataset.

    Raises:
        UserError: not prepared, with the command that prepares it.
    """
    path = Path(folder) / 'index.json'
    try:
        index = read_json(path, 'prepare the dataset again')
    except FileNotFoundError:
        raise UserError(f'{path}: dataset not prepared; {how_to_prepare(path.parent)}') from None
    if isinstance(index, dict) and not isinstance(index.get('intensity'), dict):
        raise UserError(f'{path}: made by an earlier version; {how_to_prepare(path.parent)}')
    if fault := _index_fault(index, path):
        raise UserError(f'{path}: {fault}; prepare the dataset again')
    tolerance = CATALOGUE.get(index['dataset'], DatasetInfo).nsd_tolerance  # the class, for its default
    return dict(nsd_tolerance=tolerance, nominal_spacing=False, citation='') | index


INDEX = OTHERS | dict(
    dataset=str, labels=[str], headline=[int], channels=int, evaluate=str, split={str: [str]}, split_hash=str,
    cases=dict, groups=({str: str}, ...), folds=([dict(train=[str], val=[str])], ...),
    nominal_spacing=(bool, ...), citation=(str, ...),
    intensity=dict.fromkeys((*PROTOCOLS, str), (str, [float])))
ENTRY = OTHERS | dict(
    shape=[int], spacing=[float], **dict.fromkeys(STATISTICS, [float]), voxels=[int], slices=[int],
    variation=[[float]], sha256=str)


def find_class_fault(index: dict) -> str | None:
    """What of an index's labels, channels and intensity rules cannot be a dataset's; None: nothing."""
    labels = len(index['labels'])
    if (not 2 <= labels <= MOST_CLASSES or index['channels'] < 1
            or not set(index['headline']) <= set(range(labels))):
        return 'labels, headline or channels are not of a dataset'
    for rule in index['intensity'].values():
        if rule not in ('percentiles', 'maximum') and (isinstance(rule, str) or len(rule) < 2):
            return f'an intensity rule is {str(rule)[:40]!r}'
    return None


def _index_fault(index: Any, path: Path) -> str | None:
    """What of an index training could not work with; None: nothing."""
    if fault := find_fault(index, INDEX) or find_class_fault(index):
        return fault
    labels, channels, cases = len(index['labels']), index['channels'], index['cases']
    for key in ('input_size', 'steps'):  # which indexes of earlier versions lack
        if type(number := index.get(key, 1)) is not int or number < 1:
            return f'its {key} is {str(number)[:40]!r}, no whole number above 0'
    if not is_tolerance(millimetres := index.get('nsd_tolerance', 1)):  # which they lack too
        return f'its nsd_tolerance is {str(millimetres)[:40]!r}, no number of mm above 0'
    if index['evaluate'] not in index['split']:
        return f'its split has no {index["evaluate"][:40]!r}'
    for name, entry in cases.items():
        check_name(name, f'{path}: a case')
        if fault := find_fault(entry, ENTRY, f'case {name}'):
            return fault
        if not (len(entry['shape']) == 4 and min(entry['shape']) > 0 and entry['shape'][1] == channels
                and len(entry['spacing']) == 3 and all(0 < size < 1e6 for size in entry['spacing'])
                and all(len(entry[key]) == channels for key in STATISTICS)
                and all(len(entry[key]) == labels for key in ('voxels', 'slices', 'variation'))):
            return f'case {name} does not have the shape, spacing or statistics of one'
    folds = {f'fold {number}': sum(fold.values(), []) for number, fold in enumerate(index.get('folds') or ())}
    for part, names in (index['split'] | folds).items():
        if unknown := [name for name in names if name not in cases]:
            return f'split {part[:40]!r} has no case {unknown[0][:40]!r}'
    return None


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
        self._open: OrderedDict[tuple[str, str], np.ndarray | blosc2.NDArray] = OrderedDict()
        self._labelled: dict[str, np.ndarray] = {}

    def __getstate__(self):
        return vars(self) | dict(_open=OrderedDict())  # handles do not cross processes

    def _array(self, case: str, name: str) -> np.ndarray | blosc2.NDArray:
        key = (case, name)
        if key not in self._open:
            path = self.folder / 'cases' / case / f'{name}.b2nd'
            try:
                if path.exists():
                    self._open[key] = blosc2.open(str(path), mode='r', mmap_mode='r')
                else:
                    self._open[key] = np.load(path.with_suffix('.npy'), mmap_mode='r').view(np.ndarray)
            except (OSError, RuntimeError, ValueError) as error:
                raise UserError(f'{path}: cannot be read; prepare the dataset again') from error
            if len(self._open) > OPEN_ARRAYS:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def window(self, case: str, indices: list[int]) -> Planes:
        """Slices `indices` of a case's image as (C * S, H, W)."""
        return Planes(self._array(case, 'image'), indices)

    def label(self, case: str, indices: list[int]) -> Planes:
        """Label planes `indices` as (S, H, W), in the type that they are stored in."""
        return Planes(self._array(case, 'label'), indices)

    def labelled(self, case: str) -> np.ndarray:
        """Voxels of each slice that are not background, (D,); counted once."""
        if case not in self._labelled:
            label = self._array(case, 'label')
            planes = Planes(label, list(range(len(label)))).read()
            self._labelled[case] = np.array([np.count_nonzero(plane) for _, plane in planes])
        return self._labelled[case]
