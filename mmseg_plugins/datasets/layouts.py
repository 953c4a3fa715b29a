"""Where a published archive keeps its cases, and the paper's splits of them."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .catalogue import DatasetInfo

# Labelled cases of the ten Decathlon tasks, in order: one generator shuffles through all of them.
MSD_COUNTS = {'Task01_BrainTumour': 484, 'Task02_Heart': 20, 'Task03_Liver': 131,
              'Task04_Hippocampus': 260, 'Task05_Prostate': 32, 'Task06_Lung': 63,
              'Task07_Pancreas': 281, 'Task08_HepaticVessel': 303, 'Task09_Spleen': 41,
              'Task10_Colon': 126}


@dataclass(frozen=True)
class RawDataset:
    """An archive's cases: `files` name -> (image, label); `split` name -> case names."""
    files: dict[str, tuple[Path, Path]]
    split: dict[str, list[str]]
    labels: Sequence[str]
    channels: int


def find_cases(info: DatasetInfo, raw: Path) -> RawDataset:
    """List an archive's cases.

    Args:
        info: the catalogue's entry.
        raw: the archive's own folder (holds RawData/ or dataset.json).

    Raises:
        UserError: the folder lacks what the layout needs.
    """
    return {'bcv': _find_bcv, 'msd': _find_msd}[info.layout](info, raw)


def _find_bcv(info: DatasetInfo, raw: Path) -> RawDataset:
    training = raw / 'RawData' / 'Training'
    if not (training / 'img').is_dir():
        raise UserError(f'{training / "img"}: folder not found; get {info.source}, unpack it into {raw}')
    if not info.split or not info.labels:
        raise UserError(f'{info.folder}: a dataset in BCV\'s layout needs `split` and `labels` in the catalogue')
    split = {name: [f'{number:04d}' for number in numbers] for name, numbers in info.split.items()}
    files = {case: (training / 'img' / f'img{case}.nii.gz', training / 'label' / f'label{case}.nii.gz')
             for cases in split.values() for case in cases}
    return RawDataset(files, split, info.labels, 1)


def _find_msd(info: DatasetInfo, raw: Path) -> RawDataset:
    path = raw / 'dataset.json'
    try:
        declared = json.loads(path.read_text())
        entries = [(entry['image'], entry['label']) for entry in declared['training']]
        labels = [declared['labels'][str(i)] for i in range(len(declared['labels']))]
        channels = len(declared['modality'])
    except FileNotFoundError:
        raise UserError(f'{path}: file not found; get {info.source}, unpack it so that this file is '
                        'there') from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}: not a Decathlon dataset.json ({error!r}); fetch it again') from error
    files = {}
    for pair in entries:
        for relative in pair:
            if not (raw / relative).resolve().is_relative_to(raw.resolve()):
                raise UserError(f'{path}: names {relative!r}, outside its own folder; fetch it again')
        files[Path(pair[0]).name.removesuffix('.gz').removesuffix('.nii')] = (
            raw / pair[0], raw / pair[1])
    return RawDataset(files, msd_split(info.folder, list(files)), labels, channels)


def msd_split(task: str, cases: Sequence[str], seed: int = 1234) -> dict[str, list[str]]:
    """The paper's 80 / 15 / 5 % split: one `random` generator shuffles all ten tasks in turn.

    The tasks before `task` are shuffled by their published counts, so that a single task on disk
    gets the same split as all ten; a task outside the Decathlon starts from a fresh generator.
    """
    generator = random.Random(seed)
    if task in MSD_COUNTS:
        for earlier, count in MSD_COUNTS.items():
            if earlier == task:
                break
            generator.shuffle(list(range(count)))
    order = list(cases)
    generator.shuffle(order)
    first, second = len(order) * 80 // 100, len(order) * 95 // 100
    return dict(train=order[:first], val=order[first:second], test=order[second:])
