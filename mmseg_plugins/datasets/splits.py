"""The paper's splits, reproduced: published lists, the Decathlon's one shuffle, and stated rules for the rest.

And parts of splits, for cross-validation and for choosing settings away from the cases that are reported.
"""

import random
import re
from collections.abc import Sequence

from ..errors import UserError, nearest

# Labelled cases of the ten Decathlon tasks, in order: one generator shuffles through all of them.
MSD_COUNTS = {'Task01_BrainTumour': 484, 'Task02_Heart': 20, 'Task03_Liver': 131,
              'Task04_Hippocampus': 260, 'Task05_Prostate': 32, 'Task06_Lung': 63,
              'Task07_Pancreas': 281, 'Task08_HepaticVessel': 303, 'Task09_Spleen': 41,
              'Task10_Colon': 126}
SEED = 1234
FOLD = re.compile(r'(?P<others>-?)(?P<number>\d+)/(?P<folds>\d+)')


def msd_split(task: str, cases: Sequence[str]) -> dict[str, list[str]]:
    """The paper's 80 / 15 / 5 %: one `random` generator shuffles the listings of all ten tasks in turn.

    The tasks before `task` are shuffled by their published counts, so that a single task on disk
    gets the same split as all ten; a task outside the Decathlon starts from a fresh generator.

    Args:
        task: the archive's folder name.
        cases: in the order of dataset.json.
    """
    generator = random.Random(SEED)
    if task in MSD_COUNTS:
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
    split = _cut(random.Random(SEED), sorted(patients), 70, 80)
    return {part: [case for name in names for case in patients[name]] for part, names in split.items()}


def split_cases(index: dict, split: str, asked: str = 'split') -> list[str]:
    """The cases of a split of a prepared dataset, or of a part of it.

    `train:0/4` is the first of four folds of the split `train`, and `train:-0/4` all of `train` but that fold.
    `all` is every split together, and a part has parts of its own: `all:-0/5:0/4` is a quarter of what is trained
    on beside fold 0 of 5. Folds are of whole patients, in alphabetical order, shuffled by `random.Random(1234)`.

    Args:
        index: of the prepared dataset.
        asked: what names the split, for messages, as `experiment.evaluate`.

    Raises:
        UserError: there is no such split, or it is too small for so many folds.
    """
    where = f'{index["dataset"]}: {asked}={split!r}'
    name, *parts = split.split(':')
    if name != 'all' and name not in index['split']:
        raise UserError(f'{where}{nearest(name, (*index["split"], "all"))}')
    cases = ([case for names in index['split'].values() for case in names] if name == 'all' else
             list(index['split'][name]))
    for part in parts:
        found = FOLD.fullmatch(part)
        if not found or int(found['number']) >= int(found['folds']):
            raise UserError(f'{where}: a part is written :0/5, the first of five folds, or :-0/5, the others')
        fold = _folds(index, cases, int(found['folds']), where)[int(found['number'])]
        cases = [case for case in cases if (case in fold) != bool(found['others'])]
    return cases


def _folds(index: dict, cases: Sequence[str], number: int, where: str) -> list[set[str]]:
    """`number` sets of the cases, each patient's in one."""
    groups = index.get('groups') or {}
    patients = sorted({groups.get(case, case) for case in cases})
    if not 2 <= number <= len(patients):
        raise UserError(f'{where}: {number} folds of {len(patients)} patients; choose 2 to {len(patients)} folds')
    random.Random(SEED).shuffle(patients)
    folds = [set(patients[fold::number]) for fold in range(number)]
    return [{case for case in cases if groups.get(case, case) in fold} for fold in folds]


def _cut(generator: random.Random, names: Sequence[str], first: int, second: int) -> dict[str, list[str]]:
    order = list(names)
    generator.shuffle(order)
    first, second = len(order) * first // 100, len(order) * second // 100
    return dict(train=order[:first], val=order[first:second], test=order[second:])
