"""Raw archive -> prepared store: every case verified, bad ones named, good ones kept."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .catalogue import dataset_info
from .layouts import find_cases
from .store import INDEXED, read_meta, write_case, write_index
from .volumes import read_volume


@dataclass(frozen=True)
class Prepared:
    """What a preparation left: the folder, how many cases are in it, one line per bad case."""
    folder: Path
    cases: int
    faults: list[str]


def prepare_dataset(name: str, raw: Path, folder: Path,
                    progress: Callable[[int, int, str], None] = lambda *_: None) -> Prepared:
    """Verify and store every case of a dataset; stored cases whose files did not change are kept.

    Args:
        name: a name of the catalogue.
        raw: the archive's folder.
        folder: the prepared dataset's folder.
        progress: called with (done, total, case).

    Raises:
        UserError: the archive is not there, or no case of it is good.
    """
    info = dataset_info(name)
    dataset = find_cases(info, raw)
    cases, faults = {}, []
    for done, (case, paths) in enumerate(dataset.files.items()):
        progress(done, len(dataset.files), case)
        try:
            made_from = {path.name: _fingerprint(path) for path in paths}
            meta = read_meta(folder, case)
            if meta is None or meta['made_from'] != made_from:
                volume = read_volume(*paths, channels=dataset.channels, classes=len(dataset.labels))
                meta = write_case(folder, case, volume, made_from)
        except UserError as error:
            faults.append(str(error))
            continue
        cases[case] = {key: meta[key] for key in INDEXED}
    progress(len(dataset.files), len(dataset.files), '')
    if not cases:
        raise UserError(f'{raw}: no usable case of {len(dataset.files)}; first fault: {faults[0]}')
    split = {part: [case for case in names if case in cases]
             for part, names in dataset.split.items()}
    split_hash = hashlib.sha256(json.dumps(split, sort_keys=True).encode()).hexdigest()[:12]
    write_index(folder, dict(
        dataset=name, labels=list(dataset.labels), headline=list(info.headline)
        or list(range(1, len(dataset.labels))), channels=dataset.channels, intensity=info.intensity,
        evaluate=info.evaluate, split=split, split_hash=split_hash, cases=cases))
    return Prepared(folder, len(cases), faults)


def _fingerprint(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        raise UserError(f'{path}: file not found; fetch the case again') from None
    return [stat.st_size, stat.st_mtime_ns]
