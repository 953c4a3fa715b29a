"""The paper's splits, reproduced: published lists, the Decathlon's one shuffle, and stated rules for the rest.

And parts of splits, for cross-validation and for choosing settings away from the cases that are reported.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from ..errors import UserError, nearest, some

# Labelled cases of the ten Decathlon tasks, in order: one generator shuffles through all of them.
MSD_COUNTS = {'Task01_BrainTumour': 484, 'Task02_Heart': 20, 'Task03_Liver': 131,
              'Task04_Hippocampus': 260, 'Task05_Prostate': 32, 'Task06_Lung': 63,
              'Task07_Pancreas': 281, 'Task08_HepaticVessel': 303, 'Task09_Spleen': 41,
              'Task10_Colon': 126}
SEED = 1234
FOLD = re.compile(r'(?P<others>-?)(?P<number>\d+)/(?P<folds>\d+)')
SHARE = re.compile(r'(100|[1-9]\d?)%')
SIDES = ('left', 'right'), ('l', 'r'), ('lh', 'rh')  # as names of cases have them, between - _ . or spaces
SIDE = re.compile(rf'(?<![^\W_])({"|".join(sum(SIDES, ()))})(?![^\W_])', re.IGNORECASE)

Fold = tuple[int, int]  # its number, from 0, and how many there are


def msd_split(task: str, cases: Sequence[str]) -> dict[str, list[str]]:
    """The paper's 80 / 15 / 5 %: one `random` generator shuffles the listings of all ten tasks in turn.

    The tasks before `task` are shuffled by their published counts, so that a single task on disk
    gets the same split as all ten; a task outside the Decathlon starts from a fresh generator, and both sides of
    a patient stay together.

    Args:
        task: the archive's folder name.
        cases: in the order of dataset.json.
    """
    generator = random.Random(SEED)
    if task not in MSD_COUNTS:
        return _cut_patients(generator, by_patient(cases, pair_sides(cases)), 80, 95)
    for earlier, count in MSD_COUNTS.items():
        if earlier == task:
            break
        generator.shuffle(list(range(count)))
    return _cut(generator, cases, 80, 95)


def patient_split(patients: dict[str, list[str]]) -> dict[str, list[str]]:
    """70 / 10 / 20 % of the patients, all cases of a patient on one side (ACDC: its list was never released).

    Patients in alphabetical order, shuffled by `random.Random(1234)`.

    Args:
        patients: patient -> its cases.
    """
    return _cut_patients(random.Random(SEED), {name: patients[name] for name in sorted(patients)}, 70, 80)


def by_patient(cases: Iterable[str], groups: dict[str, str]) -> dict[str, list[str]]:
    """Patient -> its cases, in their order; a case of no group is a patient of its own."""
    patients: dict[str, list[str]] = {}
    for case in cases:
        patients.setdefault(groups.get(case, case), []).append(case)
    return patients


def pair_sides(cases: Iterable[str]) -> dict[str, str]:
    """Case -> patient, of cases whose names differ only in a side: `knee_007_left` and `knee_007_right`.

    A side is a whole part of a name: left and right, L and R, lh and rh, in capitals or not.
    """
    kinds = {side: f'{pair[0]}-{pair[1]}' for pair in SIDES for side in pair}
    patients: dict[str, list[str]] = {}
    for case in cases:
        patient = SIDE.sub(lambda found: kinds[found[0].lower()], case)
        if patient != case:
            patients.setdefault(patient, []).append(case)
    return {case: patient for patient, names in patients.items() if len(names) > 1 for case in names}


def name_fold(fold: Fold, others: bool = False) -> str:
    """The split that is a fold of all cases, or all but that."""
    number, folds = fold
    return f'all:{"-" * others}{number}/{folds}'


def name_share(split: str, percent: int) -> str:
    """The split that has this share of another's patients."""
    return split if percent == 100 else f'{split}:{percent}%'


def describe_fold(fold: Fold) -> str:
    """In words, as `fold 0 of 5`."""
    return f'fold {fold[0]} of {fold[1]}'


def read_fold(split: str) -> Fold | None:
    """Of which fold of all cases this is the split's name; None: of none."""
    found = FOLD.fullmatch(split.removeprefix('all:')) if split.startswith('all:') else None
    return None if not found or found['others'] else (int(found['number']), int(found['folds']))


def list_folds(index: dict, folds: int) -> list[dict[str, list[str]]]:
    """All folds of a prepared dataset, as nnU-Net's `splits_final.json` has them: `train` and `val` of each."""
    return [{part: split_cases(index, name_fold((number, folds), others), 'folds')
             for part, others in (('train', True), ('val', False))} for number in range(folds)]


def split_cases(index: dict, split: str, asked: str = 'split') -> list[str]:
    """The cases of a split of a prepared dataset, or of a part of it.

    `train:0/4` is the first of four folds of the split `train`, and `train:-0/4` all of `train` but that fold.
    `all` is every split together, and a part has parts of its own: `all:-0/5:0/4` is a quarter of what is trained
    on beside fold 0 of 5. `train:25%` has a quarter of the patients of `train`, at least one, all of which
    `train:50%` has too. Folds and shares are of whole patients, in alphabetical order, shuffled by
    `random.Random(1234)`.

    A dataset that came with folds of its own (nnU-Net's `splits_final.json`) has these where `all` is divided into
    as many, so that figures compare with nnU-Net's. Into another number it is divided as any other dataset is:
    whoever asks for three folds where there are five cannot mean those, and the number in the split's name tells
    them apart.

    Args:
        index: of the prepared dataset.
        asked: what names the split, for messages, as `experiment.evaluate`.

    Raises:
        UserError: there is no such split, or it is too small for so many folds, or folds of its own have a case
            twice, or an image on both sides.
    """
    where = f'{index["dataset"]}: {asked}={split!r}'
    name, *parts = split.split(':')
    if name != 'all' and name not in index['split']:
        raise UserError(f'{where}{nearest(name, (*index["split"], "all"))}')
    cases = ([case for names in index['split'].values() for case in names] if name == 'all' else
             list(index['split'][name]))
    for depth, part in enumerate(parts):
        if SHARE.fullmatch(part):
            patients = _shuffle_patients(index, cases)
            wanted = {case for its in patients[:max(len(patients) * int(part[:-1]) // 100, 1)] for case in its}
            cases = [case for case in cases if case in wanted]
            continue
        found = FOLD.fullmatch(part)
        number, folds = (int(found['number']), int(found['folds'])) if found else (0, 0)
        if number >= folds:
            raise UserError(f'{where}: a part is written :0/5, the first of five folds, :-0/5, the others, or '
                            ':25%, a share')
        own = index.get('folds') or ()
        if name == 'all' and depth == 0 and len(own) == folds:
            cases = _own_folds(index, cases, where)[number]['train' if found['others'] else 'val']
        else:
            fold = _folds(index, cases, folds, where)[number]
            cases = [case for case in cases if (case in fold) != bool(found['others'])]
    return cases


def _own_folds(index: dict, cases: Sequence[str], where: str) -> list[dict[str, list[str]]]:
    folds = index['folds']
    counts = Counter(case for fold in folds for case in fold['val'])
    if twice := [case for case, count in counts.items() if count > 1]:
        raise UserError(f'{where}: its own {len(folds)} folds (splits_final.json) evaluate {some(twice)} more '
                        'than once, and each case counts once; mend them, or choose another number of folds')
    if never := [case for case in cases if case not in counts]:
        raise UserError(f'{where}: its own {len(folds)} folds (splits_final.json) never evaluate {some(never)}; '
                        'mend them, or choose another number of folds')
    for fold in folds:
        images = {_image_of(index, case): case for case in fold['train']}
        if twins := [case for case in fold['val'] if _image_of(index, case) in images]:
            twin = images[_image_of(index, twins[0])]
            raise UserError(f'{where}: its own {len(folds)} folds (splits_final.json) evaluate {twins[0]}, and '
                            f'train on the same image, {twin}; mend them, or choose another number of folds')
    return folds


def _image_of(index: dict, case: str) -> str:
    """What tells a case's image from others, where the index says it."""
    return index.get('cases', {}).get(case, {}).get('image_sha256', case)


def _folds(index: dict, cases: Sequence[str], number: int, where: str) -> list[set[str]]:
    """`number` sets of the cases, each patient's in one."""
    patients = _shuffle_patients(index, cases)
    if not 2 <= number <= len(patients):
        raise UserError(f'{where}: {number} folds of {len(patients)} patients; choose 2 to {len(patients)} folds')
    return [{case for its in patients[fold::number] for case in its} for fold in range(number)]


def _shuffle_patients(index: dict, cases: Sequence[str]) -> list[list[str]]:
    """Each patient's cases; patients of whom one image is the same are one."""
    patients, owners = by_patient(cases, index.get('groups') or {}), {}
    for patient, its in list(patients.items()):
        images = [_image_of(index, case) for case in its]
        owner, *others = dict.fromkeys([*(owners[image] for image in images if image in owners), patient])
        if others:
            patients[owner] += [case for other in others for case in patients.pop(other)]
            owners = {image: owner if name in others else name for image, name in owners.items()}
        owners |= dict.fromkeys(images, owner)
    names = sorted(patients)
    random.Random(SEED).shuffle(names)
    return [patients[name] for name in names]


def _cut_patients(generator: random.Random, patients: dict[str, list[str]], first: int, second: int
                  ) -> dict[str, list[str]]:
    split = _cut(generator, list(patients), first, second)
    return {part: [case for name in names for case in patients[name]] for part, names in split.items()}


def _cut(generator: random.Random, names: Sequence[str], first: int, second: int) -> dict[str, list[str]]:
    order = list(names)
    generator.shuffle(order)
    first, second = len(order) * first // 100, len(order) * second // 100
    return dict(train=order[:first], val=order[first:second], test=order[second:])
