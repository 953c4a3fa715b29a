"""The datasets: one declarative table, from which the paper's Table 1 and the configs follow.

A dataset in a known layout is one entry; a user's module adds its own with `CATALOGUE['mine'] = DatasetInfo(...)`
(tools/prepare_data.py --imports), and a layout of its own with one function (layouts.py). A dataset with a
`dataset.json` needs neither (`--layout msd`, `--layout nnunet`).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..commands import command
from ..errors import UserError, nearest
from ..untrusted import find_twins

BCV_LABELS = ('background', 'spleen', 'right kidney', 'left kidney', 'gallbladder', 'esophagus',
              'liver', 'stomach', 'aorta', 'inferior vena cava', 'portal and splenic veins',
              'pancreas', 'right adrenal gland', 'left adrenal gland')
BCV_EIGHT = (8, 4, 3, 2, 6, 11, 1, 7)  # the order of the paper's Table 3
NSD_TOLERANCE = 2.0  # mm by which surfaces may differ and still agree, where nothing is said of a dataset


@dataclass(frozen=True)
class DatasetInfo:
    """What verification, preparation, the configs and the tables need to know of a dataset.

    Args:
        layout: `bcv`, `acdc`, `msd`, `nnunet` or one that a user's module registers (layouts.py).
        folder: the archive's own folder, below the raw data root.
        modality: `CT` (Hounsfield units) or `MRI` (arbitrary units): decides the intensity rule.
        origin: where to get it.
        licence: its terms.
        channels: names of the image channels, in the file's order; None: read from dataset.json.
        labels: names by id, background first; None: read from dataset.json.
        input_size: pixels along each side of the network's input (paper, Table 1), where a config does not say.
        steps: optimizer steps of batch 16 (paper, Table 6), where a config does not say.
        headline: label ids whose mean is the table's DSC; empty: all but background.
        split: case numbers per split where they were published; None: the layout's rule (splits.py).
        evaluate: the split that results are reported on.
        paper_intensity: the paper's rule where it is not the modality's (intensity.py).
        nsd_tolerance: mm by which surfaces may differ and still agree, in the normalized surface Dice; of a case
            whose voxels have a longer side, that side (`surface_tolerance`).
        nominal_spacing: whether the files' voxel sizes are not those of the scans, so that no figure in mm or mm3
            may be reported; a layout may find it out (ACDC's does).
        citation: what its licence or its authors ask to be named beside slices of it.

    Raises:
        UserError: a user's own entry contradicts itself.
    """
    layout: str
    folder: str
    modality: str
    origin: str
    licence: str
    channels: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    input_size: int = 512
    steps: int = 25_000
    headline: Sequence[int] = ()
    split: dict[str, Sequence[int]] | None = None
    evaluate: str = 'test'
    paper_intensity: tuple[float, float] | str | None = None
    nsd_tolerance: float = NSD_TOLERANCE
    nominal_spacing: bool = False
    citation: str = ''

    def __post_init__(self) -> None:
        for fault in self._faults():
            raise UserError(f'dataset {self.folder}: {fault}; correct its DatasetInfo')

    def _faults(self) -> Iterator[str]:
        if self.modality not in ('CT', 'MRI'):
            yield f'modality {self.modality!r} is neither CT nor MRI'
        for key in ('channels', 'labels'):
            names = getattr(self, key) or ()
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                yield f'{key} must be a list of names, not {names!r}'
            if key == 'labels' and (twins := find_twins(names)):
                yield f'labels {twins[0]!r} and {twins[1]!r} are one name for two'
        numbers = [number for part in (self.split or {}).values() for number in part]
        for key, ids, least in (('headline', self.headline, 1), ('split', numbers, 0),
                                ('input_size', [self.input_size], 1), ('steps', [self.steps], 1)):
            if wrong := [i for i in ids if type(i) is not int or i < least]:
                yield f'{key} holds {wrong[0]!r}, which is no whole number from {least} on'
            if len(set(ids)) < len(ids):
                yield f'{key} holds {max(ids, key=list(ids).count)} twice'
        if self.labels and max(self.headline, default=0) >= len(self.labels):
            yield f'headline holds {max(self.headline)}, and there are {len(self.labels)} labels with background'
        rule = self.paper_intensity
        if not (rule in (None, 'percentiles', 'maximum') or not isinstance(rule, str) and rule[0] < rule[1]):
            yield f'paper_intensity {rule!r} is neither (low, high) nor percentiles or maximum'
        if not is_tolerance(self.nsd_tolerance):
            yield f'nsd_tolerance {self.nsd_tolerance!r} is no number of mm above 0'
        if self.split and self.layout != 'bcv':
            yield f'split is for BCV\'s layout, {self.layout!r} has a rule of its own'


def surface_tolerance(tolerance: float, spacing: Sequence[float]) -> float:
    """A dataset's tolerance in mm on a case's voxels: at least their longest side.

    A surface that is off by one voxel along that axis is off by that side: at a smaller tolerance, surfaces
    across it would agree only where they coincide. It is the case's own side, not one of all cases, because the
    figure of a case depends on that case alone.
    """
    return float(max(tolerance, *spacing))


def is_tolerance(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < float('inf')


def _msd(folder: str, modality: str, labels: str, channels: str = '', **changes) -> DatasetInfo:
    return DatasetInfo('msd', folder, modality, 'Medical Segmentation Decathlon, medicaldecathlon.com',
                       'CC-BY-SA 4.0', channels=(channels or modality).split(', '),
                       labels=('background', *labels.split(', ')), **changes)


CATALOGUE: dict[str, DatasetInfo] = {
    'bcv': DatasetInfo(
        'bcv', 'BCV', 'CT', 'Beyond the Cranial Vault, synapse.org syn3193805 (registration), RawData.zip',
        'CC-BY 4.0 after registration', ('CT',), BCV_LABELS, headline=BCV_EIGHT, evaluate='val',
        split=dict(train=(5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40),
                   val=(1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38))),
    'acdc': DatasetInfo(
        'acdc', 'ACDC', 'MRI', 'Automated Cardiac Diagnosis Challenge, creatis.insa-lyon.fr/Challenge/acdc',
        'CC-BY-NC-SA 4.0', ('cine MRI',),
        ('background', 'right ventricle', 'myocardium', 'left ventricle'),
        paper_intensity=(-175.0, 250.0),  # the paper has it as CT
        citation='ACDC: Bernard et al. 2018, doi:10.1109/TMI.2018.2837502, CC-BY-NC-SA 4.0'),
    'brain': _msd('Task01_BrainTumour', 'MRI', 'edema, non-enhancing tumor, enhancing tumour',
                  'FLAIR, T1w, t1gd, T2w', input_size=240, steps=250_000),
    'heart': _msd('Task02_Heart', 'MRI', 'left atrium', input_size=320),
    'liver': _msd('Task03_Liver', 'CT', 'liver, cancer'),
    'hippocampus': _msd('Task04_Hippocampus', 'MRI', 'Anterior, Posterior', input_size=240, nsd_tolerance=1.0),
    'prostate': _msd('Task05_Prostate', 'MRI', 'PZ, TZ', 'T2, ADC', input_size=320),
    'lung': _msd('Task06_Lung', 'CT', 'cancer'),
    'pancreas': _msd('Task07_Pancreas', 'CT', 'pancreas, cancer', steps=250_000),
    'vessel': _msd('Task08_HepaticVessel', 'CT', 'Vessel, Tumour', steps=250_000),
    'spleen': _msd('Task09_Spleen', 'CT', 'spleen'),
    'colon': _msd('Task10_Colon', 'CT', 'colon cancer primaries'),
}
CATALOGUE['chaos'] = DatasetInfo(
    'msd', 'CHAOS_T2SPIR', 'MRI', 'CHAOS, doi:10.5281/zenodo.3362844, its T2-SPIR in the Decathlon\'s layout',
    'CC-BY-NC-SA 4.0', ('T2-SPIR',), ('background', 'liver', 'right kidney', 'left kidney', 'spleen'),
    input_size=224,
    citation='CHAOS: Kavur, Selver, Dicle, Baris, Gezer 2019, doi:10.5281/zenodo.3362844, CC-BY-NC-SA 4.0')
CATALOGUE['phantom'] = replace(
    CATALOGUE['bcv'], folder='phantom', origin='made by tools/prepare_data.py phantom: nothing to fetch',
    licence='the project\'s', input_size=64,
    evaluate='test', split=dict(train=tuple(range(1, 25)), val=tuple(range(25, 35)), test=tuple(range(35, 47))))
BUILT_IN = tuple(CATALOGUE)


def dataset_info(name: str) -> DatasetInfo:
    """Look a dataset up; UserError with the nearest name otherwise."""
    if name not in CATALOGUE:
        raise UserError(f'unknown dataset {name!r}{nearest(name, CATALOGUE)}; one with a dataset.json of its own '
                        'needs no entry: tools/prepare_data.py FOLDER --layout msd|nnunet')
    return CATALOGUE[name]


def how_to_prepare(folder: Path) -> str:
    """What to fetch, where to put it, and the command that prepares it into a folder: the end of a sentence."""
    name, tool, out = folder.name, 'tools/prepare_data.py', ('--out', folder)
    if name == 'layout':
        return f'run: {command(tool, name, *out)}'
    if name == 'photographs':
        return (f'run: {command(tool, name, "--raw", "ARCHIVE", *out)} (with an ARCHIVE of class folders of '
                'images, a folder or a .tar)')
    if name not in CATALOGUE:
        return (f'run: {command(tool, "FOLDER", "--layout", "msd", "--name", name, *out)} (with the FOLDER of its '
                'dataset.json; or --layout nnunet)')
    info = CATALOGUE[name]
    raw = Path('data') / info.folder
    run = command(tool, name, '--raw', raw, *out)
    if name == 'phantom':
        return f'run: {run}'
    if name not in BUILT_IN:
        run += ' --imports MODULE (the module that adds it)'
    return f'its archive ({info.origin}) belongs unpacked into {os.path.abspath(raw)}; then run: {run}'
