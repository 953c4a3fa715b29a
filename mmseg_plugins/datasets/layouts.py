"""Where a published archive keeps its cases: BCV's, ACDC's, the Decathlon's and nnU-Net's layouts.

Add one with one function, in a module that `--imports` or a grid's `imports` names, and in the same module an
entry of the catalogue (catalogue.py) for each dataset that is laid out so:

    @register_layout('pairs')
    def find_pairs(info, raw):                  # raw: the archive's folder, a Path
        cases = {path.name.split('.')[0]: RawCase((path,), raw / 'masks' / path.name)
                 for path in sorted(raw.glob('scans/*.nii.gz'))}
        names = list(cases)
        return RawDataset(info, cases, dict(train=names[:-9], test=names[-9:]))

    CATALOGUE['knee'] = DatasetInfo('pairs', 'Knee', 'MRI', origin='our hospital', licence='none',
                                    channels=['T1'], labels=['background', 'bone'])
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest, some
from ..registering import register_once
from ..untrusted import LONGEST_NAME, OTHERS, check_inside, check_name, find_fault, find_twins, read_json
from .catalogue import DatasetInfo
from .splits import MSD_COUNTS, msd_split, pair_sides, patient_split

BACKGROUND = ('background', 'bg', 'clear label', 'unlabelled', 'unlabeled', 'none', 'other', 'rest')
MOST_LABELS = 256  # label maps are stored in bytes
ENDINGS = ('.nii.gz', '.nii')
VOLUME = re.compile(r'\.(nii|mha|mhd|nrrd|hdr|img|dcm)\b', re.IGNORECASE)  # files that somebody meant as a case


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
        groups: case -> patient, where a patient has several cases; without any, cases whose names differ only in
            a side are one patient's (`pair_sides`).
        warnings: where the folder and its listing do not agree, one line each.
        folds: the archive's own, with `train` and `val` of each.
        chosen: whether somebody has chosen the split, or it is made here by rule.
    """
    info: DatasetInfo
    cases: dict[str, RawCase]
    split: dict[str, list[str]]
    groups: dict[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    folds: Sequence[dict[str, list[str]]] = ()
    chosen: bool = True


Layout = Callable[[DatasetInfo, Path], RawDataset]
LAYOUTS: dict[str, Layout] = {}


def register_layout(name: str) -> Callable[[Layout], Layout]:
    """Register a function `(info, raw) -> RawDataset` that lists the cases below the folder `raw`.

    It may fill in `channels` and `labels` where the catalogue's entry has none: `replace(info, labels=...)`.
    """
    return register_once(LAYOUTS, name, 'layout')


def find_cases(info: DatasetInfo, raw: Path) -> RawDataset:
    """List an archive's cases.

    Args:
        info: the catalogue's entry.
        raw: the archive's own folder (holds RawData/, patient folders or dataset.json).

    Raises:
        UserError: the folder lacks what the layout needs.
    """
    if info.layout not in LAYOUTS:
        raise UserError(f'{info.folder}: unknown layout {info.layout!r}{nearest(info.layout, LAYOUTS)}')
    dataset = LAYOUTS[info.layout](info, raw)
    if not dataset.cases:
        raise UserError(f'{raw}: lists no labelled case; fetch it again')
    for key in ('channels', 'labels'):
        if not getattr(dataset.info, key):
            raise UserError(f'{info.folder}: nothing names its {key}; add {key}=[...] to its DatasetInfo')
    if not 2 <= len(dataset.info.labels) <= MOST_LABELS:
        raise UserError(f'{raw}: {len(dataset.info.labels)} labels with background; 2 to {MOST_LABELS} are '
                        'supported')
    if dataset.info.evaluate not in dataset.split:
        raise UserError(f'{info.folder}: evaluate={info.evaluate!r} is no split'
                        f'{nearest(info.evaluate, dataset.split)}')
    counts = Counter(case for names in dataset.split.values() for case in names)
    if twice := [case for case, count in counts.items() if count > 1]:
        raise UserError(f'{raw}: {some(twice)} stands in the splits more than once; leave it in one of them')
    split = [names for part in (dataset.split, *(dataset.folds or ())) for names in part.values()]
    if unknown := sorted({case for names in split for case in names} - set(dataset.cases)):
        raise UserError(f'{raw}: the split names {some(unknown)}, of which there are no files; fetch what is '
                        'missing, or take it out of the split')
    for case in dataset.cases:
        check_name(case, str(raw))
    if twins := find_twins(dataset.cases):
        raise UserError(f'{raw}: cases {" and ".join(map(repr, twins))} differ in capitals or spaces alone; '
                        'rename one of them')
    return replace(dataset, groups=dataset.groups or pair_sides(dataset.cases))


def describe_folder(folder: Path, layout: str) -> tuple[str, DatasetInfo]:
    """A name and an entry for a dataset outside the catalogue, from its folder and dataset.json.

    `Task99_Spine` and `Dataset099_Spine` are named `spine`. It is CT where every channel is called so.
    """
    folder = Path(os.path.abspath(folder))  # a link keeps its own name
    name = re.sub(r'^(Task|Dataset)\d+_', '', folder.name).lower()
    declared = _read_declaration(folder, f'the layout {layout!r} needs one')
    key = 'channel_names' if layout == 'nnunet' else 'modality'
    channels = _read_names(declared, key, folder / 'dataset.json')
    modality = 'CT' if all(name.upper() == 'CT' for name in channels) else 'MRI'
    info = DatasetInfo(layout, folder.name, modality, origin=_line(declared.get('reference') or folder.name),
                       licence=_line(declared.get('licence') or declared.get('license') or 'not stated'))
    return name, info


@register_layout('bcv')
def _find_bcv(info: DatasetInfo, raw: Path) -> RawDataset:
    places = [raw / 'RawData' / 'Training', raw / 'Training', raw]  # whichever of the three --raw names
    training = next((place for place in places if (place / 'img').is_dir()), None)
    if training is None:
        raise UserError(f'{places[0] / "img"}: folder not found; get {info.origin}, unpack it into {raw}')
    if not info.split or not info.labels:
        raise UserError(f'{info.folder}: a dataset in BCV\'s layout needs `split` and `labels` in the catalogue')
    split = {name: [f'{number:04d}' for number in numbers] for name, numbers in info.split.items()}
    cases = {case: RawCase((training / 'img' / f'img{case}.nii.gz',), training / 'label' / f'label{case}.nii.gz')
             for names in split.values() for case in names}
    return RawDataset(replace(info, channels=info.channels or ('image',)), cases, split,
                      warnings=_unlisted(cases, raw))


@register_layout('acdc')
def _find_acdc(info: DatasetInfo, raw: Path) -> RawDataset:
    """`patient001/patient001_frame01.nii.gz` and `..._gt.nii.gz`; the 4D cine beside them has no labels.

    Its authors put an Info.cfg into each patient's folder. Where one lacks it, the files have been through other
    hands: redistributions keep voxels, and write voxel sizes that they think usual. These then count as nominal.
    """
    folders = sorted(path for path in raw.glob('**/patient*') if re.fullmatch(r'patient\d+', path.name)
                     and path.is_dir() and '__MACOSX' not in path.parts)
    training = [path for path in folders if 'testing' not in path.relative_to(raw).parts]
    if not training:
        raise UserError(f'{raw}: no patient folders; get {info.origin}, unpack it so that patient001/ is below '
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
    warnings = []
    without = [folder.name for folder in training if not (folder / 'Info.cfg').is_file()]
    if without and not info.nominal_spacing:
        warnings.append(f'{some(without)}: no Info.cfg, so not as ACDC\'s authors publish it; voxel sizes are '
                        'taken as nominal and nothing is told in mm; if they are true, put that Info.cfg there')
    return RawDataset(replace(info, nominal_spacing=info.nominal_spacing or bool(without)), cases,
                      patient_split(patients), groups, warnings)


@register_layout('msd')
def _find_msd(info: DatasetInfo, raw: Path) -> RawDataset:
    path = raw / 'dataset.json'
    declared = _read_declaration(raw, f'get {info.origin}, unpack it so that this file is there')
    # MONAI writes a list of images where there is one per channel
    entry = OTHERS | dict(image=(str, [str]), label=str)
    if fault := find_fault(declared, OTHERS | dict(training=[entry])):
        raise UserError(f'{path}: no list `training` of image and label ({_line(fault)}); fetch it again, or try '
                        '--layout nnunet')
    channels, labels = _read_names(declared, 'modality', path), _read_names(declared, 'labels', path)
    cases = {}
    for entry in declared['training']:
        images = [entry['image']] if isinstance(entry['image'], str) else entry['image']
        if not images:
            raise UserError(f'{path}: an entry of `training` names no image; fetch it again')
        *files, label = (check_inside(raw, relative, path) for relative in (*images, entry['label']))
        name = re.sub(r'\.nii(\.gz)?$', '', files[0].name)
        if name in cases:
            raise UserError(f'{path}: two cases are called {_line(name)!r}, {cases[name].images[0]} and '
                            f'{files[0]}; list each case once, under a file name of its own')
        cases[name] = RawCase(tuple(files), label)
    _check_doubled(cases, path)
    return RawDataset(_declare(info, channels, labels, path), cases, msd_split(info.folder, list(cases)),
                      warnings=_disagreements(info, declared, channels, cases, raw),
                      chosen=info.folder in MSD_COUNTS)


@register_layout('nnunet')
def _find_nnunet(info: DatasetInfo, raw: Path) -> RawDataset:
    """nnU-Net v2: `imagesTr/CASE_0000.nii.gz`, one file per channel, and `labelsTr/CASE.nii.gz`; or wherever
    `dataset` in dataset.json lists them, as long as that is below the folder.

    The split is fold 0 of `splits_final.json` where the folder has one (train, val), and all its folds are kept;
    else it is made by the Decathlon's rule.
    """
    path = raw / 'dataset.json'
    declared = _read_declaration(raw, 'nnU-Net\'s raw datasets have one; name the folder that holds it')
    channels, labels = _read_names(declared, 'channel_names', path), _read_nnunet_labels(declared, path)
    end = declared.get('file_ending')
    if end not in ENDINGS:
        raise UserError(f'{path}: file_ending {_line(end)!r} is not read here, {" and ".join(ENDINGS)} are; '
                        'convert the files, or correct it')
    listed = (_read_listing(declared['dataset'], end, path) if 'dataset' in declared else
              _list_folders(raw, channels, end, path))
    cases = {}
    for name, (images, label) in listed.items():
        check_name(name, str(raw))
        if len(images) != len(channels):
            raise UserError(f'{path}: lists {len(images)} images of case {name!r}, but channel_names has '
                            f'{len(channels)} ({some(channels)}); correct one of them')
        *files, label = (check_inside(raw, file, path) for file in (*images, label))
        cases[name] = RawCase(tuple(files), label)
    if not cases:
        raise UserError(f'{raw / "imagesTr"}: no *{end} files, as file_ending in {path} says; correct it, or name '
                        'the folder of an nnU-Net raw dataset')
    _check_doubled(cases, path)
    folds = _read_folds(raw / 'splits_final.json', cases)
    split = folds[0] if folds else msd_split(info.folder, list(cases))
    evaluate = info.evaluate if info.evaluate in split else 'val'
    return RawDataset(replace(_declare(info, channels, labels, path), evaluate=evaluate), cases, split,
                      warnings=_disagreements(info, declared, channels, cases, raw), folds=folds,
                      chosen=bool(folds) or info.folder in MSD_COUNTS)


def _read_nnunet_labels(declared: dict, path: Path) -> list[str]:
    """Names by id, of `{"background": 0, name: 1}`."""
    labels = declared.get('labels')
    if not isinstance(labels, dict):
        raise UserError(f'{path}: labels must be as {{"background": 0, "name": 1}}, not {_line(labels)!r}; '
                        'correct them, or try --layout msd')
    by_id = {}
    for name, value in labels.items():
        name = _line(name)
        if isinstance(value, list):
            raise UserError(f'{path}: label {name!r} is a region, {_line(value)}, and regions are not supported; '
                            'write one id per label')
        if isinstance(value, str) and re.fullmatch('[0-9]{1,3}', value):
            value = int(value)
        if type(value) is not int:
            raise UserError(f'{path}: label {name!r} has the id {_line(value)!r}; write 0, 1, 2, ...')
        if value in by_id:
            raise UserError(f'{path}: labels {by_id[value]!r} and {name!r} have one id, {value}; write one id per '
                            'label')
        by_id[value] = name
    if any(name.casefold() == 'ignore' for name in by_id.values()):
        raise UserError(f'{path}: an `ignore` label is not supported, every voxel counts here; relabel, or take '
                        'such cases out')
    if set(by_id) != set(range(len(by_id))):
        raise UserError(f'{path}: labels have the ids {some(map(_line, sorted(by_id)))}, with gaps; number them '
                        '0, 1, 2, ... here and in the label maps')
    return _check_labels([by_id[i] for i in range(len(by_id))], path)


def _read_listing(dataset: Any, end: str, path: Path) -> dict[str, tuple[list[str], str]]:
    """The images and label of each case that `dataset` in dataset.json lists, relative to its folder."""
    if fault := find_fault(dataset, {str: OTHERS | dict(images=[str], label=str)}, 'dataset'):
        raise UserError(f'{path}: `dataset` must be as {{"CASE": {{"images": ["FILE"], "label": "FILE"}}}} '
                        f'({_line(fault)}); correct it, or take it away to have imagesTr and labelsTr listed')
    for case in dataset.values():
        for file in (*case['images'], case['label']):
            if not file.endswith(end):
                raise UserError(f'{path}: `dataset` lists {_line(file)!r}, but file_ending is {end!r}; correct '
                                'one of them')
    return {name: (case['images'], case['label']) for name, case in dataset.items()}


def _list_folders(raw: Path, channels: list[str], end: str, path: Path) -> dict[str, tuple[list[str], str]]:
    """The files that each case should have, of all cases of which imagesTr or labelsTr has one."""
    images, labels = (sorted(file.name for file in (raw / part).glob(f'[!.]*{end}'))
                      for part in ('imagesTr', 'labelsTr'))
    numbered = [found for name in images if (found := re.fullmatch(rf'(.+)_([0-9]{{4}}){re.escape(end)}', name))]
    if surplus := [found[0] for found in numbered if int(found[2]) >= len(channels)]:
        raise UserError(f'{path}: channel_names has {len(channels)} ({some(channels)}), but imagesTr has '
                        f'{some(map(_line, surplus))}; declare each channel there, or take such files away')
    names = sorted({found[1] for found in numbered} | {name.removesuffix(end) for name in labels})
    return {name: ([f'imagesTr/{name}_{i:04d}{end}' for i in range(len(channels))], f'labelsTr/{name}{end}')
            for name in names}


def _read_folds(path: Path, cases: dict) -> list[dict[str, list[str]]]:
    """Of every fold `train` and `val`; none where there is no such file."""
    if not os.path.lexists(path):
        return []
    if not path.is_file():
        raise UserError(f'{path}: is no file, or a link that leads nowhere; mend it or take it away')
    folds = read_json(path, 'mend it or take it away')
    fault = find_fault(folds, [OTHERS | dict(train=[str], val=[str])], 'fold')
    if fault or not folds:
        raise UserError(f'{path}: not nnU-Net\'s list of folds ({_line(fault or "it is empty")}); mend it or take '
                        'it away')
    folds = [{part: fold[part] for part in ('train', 'val')} for fold in folds]
    for number, fold in enumerate(folds):
        for part, names in fold.items():
            if unknown := [case for case in names if case not in cases]:
                raise UserError(f'{path}: names case {_line(unknown[0])!r}, which has no files; mend it or take '
                                'it away')
            if len(set(names)) < len(names):
                raise UserError(f'{path}: names a case twice in {part} of fold {number}; mend it or take it away')
        if both := sorted(set(fold['train']) & set(fold['val'])):
            raise UserError(f'{path}: {some(both)} in train and val of fold {number}; mend it or take it away')
    return folds


def _read_declaration(raw: Path, remedy: str) -> dict:
    path = raw / 'dataset.json'
    try:
        declared = read_json(path, 'fetch it again, or mend it')
    except FileNotFoundError:
        raise UserError(f'{path}: file not found; {remedy}') from None
    if not isinstance(declared, dict):
        raise UserError(f'{path}: holds no dataset description, but a {type(declared).__name__}; fetch it again')
    return declared


def _read_names(declared: dict, key: str, path: Path) -> list[str]:
    """Names by id: `{"0": name, "1": name}` or a list. Labels differ; channels of nnU-Net may be called alike."""
    names = declared.get(key)
    if isinstance(names, dict) and set(names) == set(map(str, range(len(names)))):
        names = [names[str(i)] for i in range(len(names))]
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        names = [_line(name) for name in names]
        return _check_labels(names, path) if key == 'labels' else names
    other = {'channel_names': 'modality', 'modality': 'channel_names'}.get(key)
    if names is None and other in declared:
        layout = dict(modality='msd', channel_names='nnunet')[other]
        raise UserError(f'{path}: has {other!r} instead of {key!r}; try --layout {layout}')
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


def _check_labels(names: list[str], path: Path) -> list[str]:
    """The first is the background, which no score counts; all have names, and different ones."""
    if twins := find_twins(names):
        raise UserError(f'{path}: labels has {" and ".join(map(repr, twins))}, one name for two; call them apart')
    if '' in names:
        raise UserError(f'{path}: the label {names.index("")} has no name; give it one')
    if names[0].casefold() not in BACKGROUND:
        raise UserError(f'{path}: label 0 is called {names[0]!r}, but 0 is the background, which no score counts; '
                        'call it background, or number the labels anew, here and in the label maps')
    return names


def _check_doubled(cases: dict[str, RawCase], path: Path) -> None:
    owner = {}
    for case, files in cases.items():
        for file in files.files:
            real = file.resolve()  # links may lead to one file
            if real in owner:
                raise UserError(f'{path}: lists {file} twice, for case {owner[real]!r} and for {case!r}; a file '
                                'is one channel, or the label, of one case')
            owner[real] = case


def _disagreements(info: DatasetInfo, declared: dict, channels: list[str], cases: dict[str, RawCase], raw: Path
                   ) -> list[str]:
    """What dataset.json says and is not so, though cases can be read."""
    path, lines = raw / 'dataset.json', []
    if 'numTraining' in declared and str(declared['numTraining']) != str(len(cases)):
        lines.append(f'{path}: numTraining is {_line(declared["numTraining"])}, but there are {len(cases)} cases; '
                     'see which are missing, or correct it')
    if twins := find_twins(channels):
        lines.append(f'{path}: channels {" and ".join(map(repr, twins))} are called alike; see whether one stands '
                     'twice')
    called = dict(CT='CT', MR='MRI', MRI='MRI')
    if any(called.get(name.upper(), info.modality) != info.modality for name in channels):
        lines.append(f'{path}: channels {some(channels)} are scaled as {info.modality}, all of them; see whether '
                     'they are')
    return lines + _unlisted(cases, raw)


def _unlisted(cases: dict[str, RawCase], raw: Path) -> list[str]:
    """A line about volumes that belong to no case, beside those that do or anywhere in imagesTr and labelsTr."""
    listed = {path for case in cases.values() for path in case.files}
    there = {path for folder in {path.parent for path in listed} for path in folder.glob('[!.]*')}
    there |= {path for part in ('imagesTr', 'labelsTr') for path in (raw / part).rglob('[!.]*')}
    names = sorted(_line(path.relative_to(raw)) for path in there - listed
                   if VOLUME.search(path.name) and path.is_file())
    return [f'{some(names)}: on disk, but not listed; left out'] if names else []
