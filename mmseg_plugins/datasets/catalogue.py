"""The datasets: one declarative table. A dataset in a known layout is one entry."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError, nearest

CT_RANGE = (-175.0, 250.0)
BCV_LABELS = ('background', 'spleen', 'right kidney', 'left kidney', 'gallbladder', 'esophagus',
              'liver', 'stomach', 'aorta', 'inferior vena cava', 'portal and splenic veins',
              'pancreas', 'right adrenal gland', 'left adrenal gland')
BCV_EIGHT = (8, 4, 3, 2, 6, 11, 1, 7)  # the order of the paper's Table 3


@dataclass(frozen=True)
class DatasetInfo:
    """What preparation and the tables need to know of a dataset.

    Args:
        layout: `bcv` (RawData/Training/img|label) or `msd` (dataset.json).
        folder: the folder's name below the raw data root.
        intensity: (low, high) to clip to, in the image's units, or 'max': [0, maximum] of each
            volume's channel.
        labels: names by id, background first; None: read from dataset.json.
        headline: label ids whose mean is the table's DSC; empty: all but background.
        split: case numbers per split for `bcv`; `msd` follows the paper's shuffle.
        evaluate: the split that results are reported on.
        source: where to get it, and its licence.
    """
    layout: str
    folder: str
    intensity: tuple[float, float] | str
    source: str
    labels: Sequence[str] | None = None
    headline: Sequence[int] = ()
    split: dict[str, Sequence[int]] | None = None
    evaluate: str = 'test'


_MSD = 'Medical Segmentation Decathlon (medicaldecathlon.com), CC-BY-SA 4.0'

CATALOGUE: dict[str, DatasetInfo] = {
    'bcv': DatasetInfo(
        'bcv', 'BCV', CT_RANGE, labels=BCV_LABELS, headline=BCV_EIGHT, evaluate='val',
        source='Beyond the Cranial Vault, synapse.org syn3193805 (registration), RawData.zip',
        split=dict(train=(5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40),
                   val=(1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38))),
    'phantom': DatasetInfo(
        'bcv', 'phantom', CT_RANGE, labels=BCV_LABELS, headline=BCV_EIGHT, evaluate='val',
        source='made by tools/prepare_data.py phantom: nothing to fetch',
        split=dict(train=tuple(range(1, 25)), val=tuple(range(25, 35)))),
    'brain': DatasetInfo('msd', 'Task01_BrainTumour', 'max', _MSD),
    'heart': DatasetInfo('msd', 'Task02_Heart', 'max', _MSD),
    'liver': DatasetInfo('msd', 'Task03_Liver', CT_RANGE, _MSD),
    'hippocampus': DatasetInfo('msd', 'Task04_Hippocampus', 'max', _MSD),
    'prostate': DatasetInfo('msd', 'Task05_Prostate', 'max', _MSD),
    'lung': DatasetInfo('msd', 'Task06_Lung', CT_RANGE, _MSD),
    'pancreas': DatasetInfo('msd', 'Task07_Pancreas', CT_RANGE, _MSD),
    'vessel': DatasetInfo('msd', 'Task08_HepaticVessel', CT_RANGE, _MSD),
    'spleen': DatasetInfo('msd', 'Task09_Spleen', CT_RANGE, _MSD),
    'colon': DatasetInfo('msd', 'Task10_Colon', CT_RANGE, _MSD),
}


def dataset_info(name: str) -> DatasetInfo:
    """Look a dataset up; UserError with the nearest name otherwise."""
    if name not in CATALOGUE:
        raise UserError(f'unknown dataset {name!r}{nearest(name, CATALOGUE)}')
    return CATALOGUE[name]


def how_to_prepare(name: str) -> str:
    """What to fetch, where to put it, and the command: the end of a sentence."""
    command = f'python tools/prepare_data.py {name}'
    if name not in CATALOGUE:
        return f'run: {command} --raw <folder of the original files>'
    if name == 'phantom':
        return f'run: {command}'
    info = CATALOGUE[name]
    return f'get {info.source}, unpack it into data/{info.folder}, and run: {command}'
