"""Where a published archive keeps its cases: BCV's, ACDC's, the Decathlon's and nnU-Net's layouts."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import UserError
from ..untrusted import LONGEST_NAME, check_inside, check_name, read_json
from .catalogue import DatasetInfo
from .splits import msd_split, patient_split

MOST_LABELS = 256  # label maps are stored in bytes


@dataclass(frozen=True)
class RawCase:
    """A case's files: one image with all channels or one per channel, and the label map."""
    images: tuple[Path, ...]
    label: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return *self.images, self.label


@dataclass(frozen=True)
class RawDataset:
    """An archive's listing.

    Args:
        info: with `channels` and `labels` filled in.
        cases: by name.
        split: split name -> case names.
        groups: case -> patient, where a patient has several cases.
        unlisted: image files that are there and belong to no case.
    """
    info: DatasetInfo
    cases: dict[str, RawCase]
    split: dict[str, list[str]]
    groups: dict[str, str] = field(default_factory=dict)
    unlisted: Sequence[Path] = ()


def find_cases(info: DatasetInfo, raw: Path) -> RawDataset:
    """List an archive's cases.

    Args:
        info: the catalogue's entry.
        raw: the archive's own folder (holds RawData/, patient folders or dataset.json).

    Raises:
        UserError: the folder lacks what the layout needs.
    """
    finders = dict(bcv=_find_bcv, acdc=_find_acdc, msd=_find_msd, nnunet=_find_nnunet)
    if info.layout not in finders:
        raise UserError(f'{info.folder}: unknown layout {info.layout!r}; known: {", ".join(finders)}')
    dataset = finders[info.layout](info, raw)
    if not dataset.cases:
        raise UserError(f'{raw}: lists no labelled case; fetch it again')
    if not 2 <= len(dataset.info.labels) <= MOST_LABELS:
        raise UserError(f'{raw}: {len(dataset.info.labels)} labels with background; 2 to {MOST_LABELS} are '
                        'supported')
    for case in dataset.cases:
        check_name(case, str(raw))
    return dataset


def describe_folder(folder: Path, layout: str) -> tuple[str, DatasetInfo]:
    """A name and an entry for a dataset outside the catalogue, from its folder and dataset.json.

    `Task99_Spine` and `Dataset099_Spine` are named `spine`. It is CT where the first channel is called so.
    """
    folder = Path(os.path.abspath(folder))  # a link keeps its own name
    name = re.sub(r'^(Task|Dataset)\d+_', '', folder.name).lower()
    declared = _read_declaration(folder, f'the layout {layout!r} needs one')
    key = 'channel_names' if layout == 'nnunet' else 'modality'
    channels = _read_names(declared, key, folder / 'dataset.json')
    modality = 'CT' if channels[0].upper() == 'CT' else 'MRI'
    info = DatasetInfo(layout, folder.name, modality, source=_line(declared.get('reference') or folder.name),
                       licence=_line(declared.get('licence') or declared.get('license') or 'not stated'))
    return name, info


def _find_bcv(info: DatasetInfo, raw: Path) -> RawDataset:
    training = raw / 'RawData' / 'Training'
    if not (training / 'img').is_dir():
        raise UserError(f'{training / "img"}: folder not found; get {info.source}, unpack it into {raw}')
    if not info.split or not info.labels:
        raise UserError(f'{info.folder}: a dataset in BCV\'s layout needs `split` and `labels` in the catalogue')
    split = {name: [f'{number:04d}' for number in numbers] for name, numbers in info.split.items()}
    cases = {case: RawCase((training / 'img' / f'img{case}.nii.gz',), training / 'label' / f'label{case}.nii.gz')
             for names in split.values() for case in names}
    return RawDataset(replace(info, channels=info.channels or ('image',)), cases, split,
                      unlisted=_unlisted(training / 'img', cases))


def _find_acdc(info: DatasetInfo, raw: Path) -> RawDataset:
    """`patient001/patient001_frame01.nii.gz` and `..._gt.nii.gz`; the 4D cine beside them has no labels."""
    folders = sorted(path for path in raw.glob('**/patient*') if re.fullmatch(r'patient\d+', path.name)
                     and path.is_dir() and '__MACOSX' not in path.parts)
    training = [path for path in folders if 'testing' not in path.relative_to(raw).parts]
    if not training:
        raise UserError(f'{raw}: no patient folders; get {info.source}, unpack it so that patient001/ is below '
                        f'{raw}')
    cases, patients = {}, {}
    for folder in training:
        if folder.name in patients:
            raise UserError(f'{folder}: there is another folder of this patient; name the one archive with --raw')
        files = [path.name for path in folder.glob(f'{folder.name}_frame*.nii*')]
        frames = {name.split('.')[0].removesuffix('_gt') for name in files}
        end = 'nii' if files and not any(name.endswith('.gz') for name in files) else 'nii.gz'
        for frame in sorted(frames) or [f'{folder.name}_frame01']:
            cases[frame] = RawCase((folder / f'{frame}.{end}',), folder / f'{frame}_gt.{end}')
            patients.setdefault(folder.name, []).append(frame)
    groups = {case: patient for patient, names in patients.items() for case in names}
    return RawDataset(info, cases, patient_split(patients), groups)


def _find_msd(info: DatasetInfo, raw: Path) -> RawDataset:
    path = raw / 'dataset.json'
    declared = _read_declaration(raw, f'get {info.source}, unpack it so that this file is there')
    try:  # MONAI writes a list of images where there is one per channel
        entries = [([entry['image']] if isinstance(entry['image'], str) else list(entry['image']), entry['label'])
                   for entry in declared['training']]
        if not all(isinstance(name, str) for images, label in entries for name in [*images, label]):
            raise TypeError('a file name is not text')
    except (KeyError, TypeError) as error:
        raise UserError(f'{path}: no list `training` of image and label ({_line(repr(error))}); fetch it again, '
                        'or try --layout nnunet') from error
    cases = {}
    for images, label in entries:
        if not images:
            raise UserError(f'{path}: an entry of `training` names no image; fetch it again')
        files = [check_inside(raw, relative, path) for relative in (*images, label)]
        name = Path(images[0]).name.removesuffix('.gz').removesuffix('.nii')
        if name in cases:
            raise UserError(f'{path}: two cases are called {_line(name)!r}; give every image a file name of '
                            'its own')
        cases[name] = RawCase(tuple(files[:-1]), files[-1])
    info = _declare(info, _read_names(declared, 'modality', path), _read_names(declared, 'labels', path), path)
    return RawDataset(info, cases, msd_split(info.folder, list(cases)),
                      unlisted=_unlisted(raw / 'imagesTr', cases))


def _find_nnunet(info: DatasetInfo, raw: Path) -> RawDataset:
    """nnU-Net v2: `imagesTr/CASE_0000.nii.gz`, one file per channel, and `labelsTr/CASE.nii.gz`.

    The split is fold 0 of `splits_final.json` where the folder has one (train, val), else the Decathlon's rule.
    """
    path = raw / 'dataset.json'
    declared = _read_declaration(raw, 'nnU-Net\'s raw datasets have one; name the folder that holds it')
    channels = _read_names(declared, 'channel_names', path)
    try:
        end = str(declared['file_ending'])
        by_id = {int(value): _line(name) for name, value in declared['labels'].items()}
        labels = [by_id[i] for i in range(len(declared['labels']))]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f'{path}: not an nnU-Net v2 dataset.json with labels 0, 1, 2, ... ({_line(error)}); '
                        'regions and gaps are not supported: write one id per label') from error
    if 'ignore' in labels:
        raise UserError(f'{path}: an `ignore` label is not supported, every voxel counts here; relabel, or take '
                        'such cases out')
    if end not in ('.nii.gz', '.nii'):
        raise UserError(f'{path}: file_ending {_line(end)!r} is not read here; convert the files to .nii.gz')
    names = sorted({p.name.removesuffix(end) for p in (raw / 'labelsTr').glob(f'[!.]*{end}')}
                   | {re.sub(r'_\d{4}$', '', p.name.removesuffix(end))
                      for p in (raw / 'imagesTr').glob(f'[!.]*{end}')})
    cases = {}
    for name in names:
        check_name(name, str(raw))
        *images, label = [check_inside(raw, file, path) for file in (
            *(f'imagesTr/{name}_{i:04d}{end}' for i in range(len(channels))), f'labelsTr/{name}{end}')]
        cases[name] = RawCase(tuple(images), label)
    if not cases:
        raise UserError(f'{raw / "imagesTr"}: no *{end} files; name the folder of an nnU-Net raw dataset')
    split = _read_folds(raw / 'splits_final.json', cases) or msd_split(info.folder, names)
    evaluate = info.evaluate if info.evaluate in split else 'val'
    info = replace(_declare(info, channels, labels, path), evaluate=evaluate)
    return RawDataset(info, cases, split)


def _read_folds(path: Path, cases: dict) -> dict[str, list[str]] | None:
    if not path.is_file():
        return None
    try:
        fold = read_json(path, 'mend it or take it away')[0]
        split = {part: [str(case) for case in fold[part]] for part in ('train', 'val')}
    except (OSError, KeyError, IndexError, TypeError) as error:
        raise UserError(f'{path}: not nnU-Net\'s list of folds ({_line(error)}); mend it or take it away'
                        ) from error
    for case in sum(split.values(), []):
        if case not in cases:
            raise UserError(f'{path}: names case {_line(case)!r}, which has no files; mend it or take it away')
    for part, names in split.items():
        if len(set(names)) < len(names):
            raise UserError(f'{path}: names a case twice in {part} of fold 0; mend it or take it away')
    if both := sorted(set(split['train']) & set(split['val'])):
        raise UserError(f'{path}: {", ".join(both)} in train and val of fold 0; mend it or take it away')
    return split


def _read_declaration(raw: Path, remedy: str) -> dict:
    path = raw / 'dataset.json'
    try:
        declared = read_json(path, 'fetch it again')
    except FileNotFoundError:
        raise UserError(f'{path}: file not found; {remedy}') from None
    if not isinstance(declared, dict):
        raise UserError(f'{path}: holds no dataset description; fetch it again')
    return declared


def _read_names(declared: dict, key: str, path: Path) -> list[str]:
    """Names by id: `{"0": name, "1": name}` or a list."""
    names = declared.get(key)
    if isinstance(names, dict) and set(names) == set(map(str, range(len(names)))):
        names = [names[str(i)] for i in range(len(names))]
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return [_line(name) for name in names]
    raise UserError(f'{path}: {key!r} must name ids 0, 1, 2, ... without gaps, as {{"0": "name", "1": "name"}}; '
                    f'it is {_line(names)!r}')


def _line(value: object) -> str:
    """As text that may stand in a line."""
    text = ' '.join(str(value).split())[:LONGEST_NAME]
    return text if text.isprintable() else repr(text)


def _declare(info: DatasetInfo, channels: list[str], labels: list[str], path: Path) -> DatasetInfo:
    """The entry with what the file declares; the catalogue's own names win, their number must agree."""
    for what, known, found in (('channels', info.channels, channels), ('labels', info.labels, labels)):
        if known and len(known) != len(found):
            raise UserError(f'{path}: declares {len(found)} {what}, {info.folder} has {len(known)}; is this '
                            'another dataset?')
    return replace(info, channels=info.channels or channels, labels=info.labels or labels)


def _unlisted(folder: Path, cases: dict[str, RawCase]) -> list[Path]:
    listed = {path.name for case in cases.values() for path in case.images}
    return sorted(path for path in folder.glob('[!.]*.nii*') if path.name not in listed)
