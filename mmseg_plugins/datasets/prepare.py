"""Raw archive -> prepared store: every case verified, bad ones named, good ones kept."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import fingerprint, write_json
from ..parallel import map_items
from .catalogue import DatasetInfo, dataset_info
from .intensity import intensity_rules
from .layouts import RawCase, find_cases
from .store import is_mapped, preparing, read_meta, write_case, write_index
from .verification import Verification, compare_cases, read_case

FEW = 5  # evaluated cases, below which a split that nobody has chosen is warned of
READER = 2  # raised when files are read otherwise than before: stored cases are then read again


@dataclass(frozen=True)
class Prepared:
    """What a preparation left: how many cases are in the folder and how many not, a line per fault and warning."""
    folder: Path
    cases: int
    left_out: int
    faults: list[str]
    warnings: list[str]


def prepare_dataset(name: str, raw: Path, folder: Path,
                    progress: Callable[[int, int, str], None] = lambda *_: None,
                    info: DatasetInfo | None = None, workers: int | None = None, mapped: bool | None = None
                    ) -> Prepared:
    """Verify and store every case of a dataset; stored cases whose files did not change are kept.

    Args:
        name: of the dataset.
        raw: the archive's folder.
        folder: the prepared dataset's folder.
        progress: called with (done, total, case).
        info: describes a dataset that the catalogue does not have.
        workers: processes that read.
        mapped: store cases uncompressed; None: as they are, new ones compressed.

    Raises:
        UserError: the archive is not there, no case of it is good, or the folder holds another dataset.
    """
    dataset = find_cases(info or dataset_info(name), raw)
    info = dataset.info

    def prepare(case: tuple[str, RawCase]) -> dict | str:
        name, files = case
        try:
            made_from = {path.relative_to(raw).as_posix(): fingerprint(path) for path in files.files}
            made_from['reader'] = READER
            meta = read_meta(folder, name)
            if (meta is None or [*meta['made_from'].items()] != [*made_from.items()]  # channels are in its order
                    or len(meta['voxels']) != len(info.labels) or meta['dtype'] == 'int32'  # of earlier versions
                    or meta['shape'][1] != len(info.channels)
                    or mapped not in (None, is_mapped(folder, name))):
                volume, facts = read_case(files, dataset)
                form = is_mapped(folder, name) if mapped is None else mapped
                meta = write_case(folder, name, volume, facts | dict(made_from=made_from), form)
        except UserError as error:
            return str(error)
        return meta

    with preparing(folder, name, info.folder):
        done = map_items(prepare, {case: (case, dataset.cases[case]) for case in dataset.cases}, workers, progress)
        found = Verification({case: meta for case, meta in done.items() if not isinstance(meta, str)},
                             {case: fault for case, fault in done.items() if isinstance(fault, str)})
        if not found.facts:
            raise UserError(f'{raw}: no usable case of {len(done)}; first fault: {found.lines[0]}')
        compare_cases(dataset, found)

        def without_bad(split: dict[str, list[str]]) -> dict[str, list[str]]:
            return {part: [case for case in names if case in found.facts and case not in found.leaked]
                    for part, names in split.items()}

        split = without_bad(dataset.split)
        evaluated = len(split[info.evaluate])
        if not dataset.chosen and evaluated < FEW:
            found.warnings.append(f'{name}: by the usual rule, {evaluated} of its {len(found.facts)} cases are '
                                  f'evaluated ({info.evaluate}), which tells little; cross-validate: '
                                  'benchmarks/run_grid.py --folds 5')
        split_hash = hashlib.sha256(json.dumps(split, sort_keys=True).encode()).hexdigest()[:12]
        write_json(folder / 'split.json', dict(split, hash=split_hash))
        write_index(folder, dict(
            dataset=name, folder=info.folder, modality=info.modality, labels=list(info.labels),
            headline=list(info.headline) or list(range(1, len(info.labels))), channels=len(info.channels),
            channel_names=list(info.channels), intensity=intensity_rules(info),
            input_size=info.input_size, steps=info.steps, nsd_tolerance=info.nsd_tolerance,
            nominal_spacing=info.nominal_spacing, citation=info.citation,
            evaluate=info.evaluate, split=split, split_hash=split_hash,
            groups={case: group for case, group in dataset.groups.items() if case in found.facts},
            **({'folds': [without_bad(fold) for fold in dataset.folds]} if dataset.folds else {}),
            cases=found.facts))
    return Prepared(folder, len(found.facts), len(found.faults), found.lines, found.warnings)
