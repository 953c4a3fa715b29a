"""The paper's splits, reproduced: published lists, the Decathlon's one shuffle, and stated rules for the rest."""

import random
from collections.abc import Sequence

# Labelled cases of the ten Decathlon tasks, in order: one generator shuffles through all of them.
MSD_COUNTS = {'Task01_BrainTumour': 484, 'Task02_Heart': 20, 'Task03_Liver': 131,
              'Task04_Hippocampus': 260, 'Task05_Prostate': 32, 'Task06_Lung': 63,
              'Task07_Pancreas': 281, 'Task08_HepaticVessel': 303, 'Task09_Spleen': 41,
              'Task10_Colon': 126}
SEED = 1234


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


def _cut(generator: random.Random, names: Sequence[str], first: int, second: int) -> dict[str, list[str]]:
    order = list(names)
    generator.shuffle(order)
    first, second = len(order) * first // 100, len(order) * second // 100
    return dict(train=order[:first], val=order[first:second], test=order[second:])
