"""Images to segment: a folder of NIfTI files, or the cases of a prepared dataset."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import UserError, some
from ..files import fingerprint
from .layouts import ENDINGS
from .splits import split_cases
from .store import Store, check_case, read_index
from .volumes import Volume, read_volume

CHANNEL = re.compile(r'(?P<case>.+)_(?P<channel>\d{4})')  # nnU-Net's name of a channel's file


@dataclass(frozen=True)
class Image:
    """An image to segment.

    Args:
        name: of the case.
        read: gives the volume, with its label map where one is known.
        files: that it is read from.
        labelled: whether its label map is known.
    """
    name: str
    read: Callable[[], Volume]
    files: tuple[Path, ...] = ()
    labelled: bool = True

    @property
    def fingerprint(self) -> list[list[int]]:
        """Sizes and times of its files, by which one that was written anew is told."""
        return [fingerprint(path) for path in self.files]


def find_images(folder: Path, channels: int, labels: int, truth: Path | None = None
                ) -> tuple[list[Image], list[str]]:
    """The images of a folder by name of the case, files below its folders left out, and what is doubtful of them.

    A file is a case, with its channels along a fourth axis; or a channel of one, where its name says so as
    nnU-Net's do: `case_0000.nii.gz`, `case_0001.nii.gz`, ... for all channels of a case.

    Args:
        channels: of an image.
        labels: K with background.
        truth: folder of label maps, `<case>.nii.gz`; a case need not have one.

    Raises:
        UserError: no such folder, no image, a case named twice, one that lacks a channel, or no label map that is
            a case's.
    """
    files = list_files(folder, 'images')
    if not files:
        raise UserError(f'{folder}: no file named {" or ".join(ENDINGS)}; name the folder that holds the images')
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, path in files.items():
        if match := CHANNEL.fullmatch(stem):
            numbered[match['case']][int(match['channel'])] = path
    cases: dict[str, tuple[Path, ...]] = {}
    for stem, path in files.items():
        match = CHANNEL.fullmatch(stem)
        by_channel = numbered[match['case']] if match else {}
        if set(by_channel) == set(range(channels)):
            name, found = match['case'], tuple(by_channel[channel] for channel in range(channels))
        elif channels > 1 and 0 in by_channel:
            missing = next((channel for channel in range(channels) if channel not in by_channel), None)
            fault = (f'has {len(by_channel)} channels, the model takes {channels}' if missing is None else
                     f'lacks its channel {match["case"]}_{missing:04d}')
            raise UserError(f'{path}: case {match["case"]!r} {fault}; bring a file for each channel')
        else:
            name, found = stem, (path,)
        if cases.setdefault(name, found) != found:
            raise UserError(f'{path}: case {name!r} has {cases[name][0].name} too; leave one of them')
    notes = []
    if channels == 1 and (several := [case for case, files in numbered.items() if len(files) > 1]):
        notes.append(f'{folder}: files of {some(several)} are numbered, and the model takes one channel: each is '
                     'taken for a case of its own')
    known = list_files(truth, 'label maps') if truth else {}
    if others := sorted(known.keys() - cases.keys()):
        if not known.keys() & cases.keys():
            raise UserError(f'{truth}: no label map of the images; name each by its case, as '
                            f'{next(iter(sorted(cases)))}.nii.gz, not {others[0]}')
        notes.append(f'{truth}: left out, no image is called so: {some(others)}')
    return [Image(name, partial(read_volume, found, known.get(name), channels, labels), found, name in known)
            for name, found in sorted(cases.items())], notes


def list_files(folder: Path, what: str) -> dict[str, Path]:
    """The NIfTI files of a folder by name without ending.

    Raises:
        UserError: there is no such folder, or two files of one name.
    """
    if not folder.is_dir():
        raise UserError(f'{folder}: folder not found; name the one that holds the {what}')
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending and not path.name.startswith('.'):
            name = path.name.removesuffix(ending)
            if name in files:
                raise UserError(f'{path}: case {name!r} has {files[name].name} too; leave one of them')
            files[name] = path
    return files


def stored_images(prepared: Path, split: str | None = None) -> list[Image]:
    """The cases of a prepared dataset's split, or of the one that it is evaluated on, with their label maps.

    Raises:
        UserError: not prepared, no such split, or a case is not wholly there.
    """
    index = read_index(prepared)
    store = Store(prepared)
    return [Image(case, partial(read_stored, store, index, case),
                  tuple((prepared / 'cases' / case).glob('image.*')))
            for case in split_cases(index, split or index['evaluate'], '--split')]


def read_stored(store: Store, index: dict, case: str) -> Volume:
    """A case of a prepared dataset, with its label map.

    Raises:
        UserError: it is not wholly there.
    """
    meta = check_case(store.folder, index, case)
    depth, channels, *plane = meta['shape']
    slices = list(range(depth))
    image = np.asarray(store.window(case, slices)).reshape(channels, depth, *plane).swapaxes(0, 1)
    return Volume(np.ascontiguousarray(image), np.asarray(store.label(case, slices)), np.array(meta['affine']),
                  tuple(meta['axes']), tuple(meta['flips']))
