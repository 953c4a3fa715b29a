"""Is a dataset what it says? Each case by itself, then all of them side by side.

A fault makes a case unusable or a result untrue; a warning is for the user to look at.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..errors import UserError, some
from ..parallel import map_items
from .intensity import doubt_modality
from .layouts import RawCase, RawDataset
from .statistics import describe_volume
from .volumes import Volume, read_volume


@dataclass
class Verification:
    """What was found: `facts` of each good case, `faults` by bad case, `across` cases, `warnings`.

    `leaked` cases are in a split whose image another split has too: a split keeps those that no later one has.
    """
    facts: dict[str, dict]
    faults: dict[str, str]
    across: list[str] = field(default_factory=list)
    leaked: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    thumbnails: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """Every fault, one line each."""
        return [*self.faults.values(), *self.across]


def read_case(case: RawCase, dataset: RawDataset) -> tuple[Volume, dict]:
    """Read and check one case; returns its volume and facts.

    Raises:
        UserError: the first fault.
    """
    labels, channels = dataset.info.labels, dataset.info.channels
    volume = read_volume(case.images, case.label, channels=len(channels), classes=len(labels))
    return volume, describe_volume(volume, len(labels))


def verify_dataset(dataset: RawDataset, workers: int | None = None,
                   progress: Callable[[int, int, str], None] = lambda *_: None) -> Verification:
    """Check every case of an archive, in parallel, and the cases against each other."""
    def check(case: RawCase):
        try:
            volume, facts = read_case(case, dataset)
        except UserError as error:
            return str(error)
        return facts, thumbnail(volume)

    checked = map_items(check, dataset.cases, workers, progress)
    good = {case: result for case, result in checked.items() if not isinstance(result, str)}
    found = Verification({case: facts for case, (facts, _) in good.items()},
                         {case: fault for case, fault in checked.items() if isinstance(fault, str)},
                         thumbnails={case: picture for case, (_, picture) in good.items()})
    compare_cases(dataset, found)
    return found


def compare_cases(dataset: RawDataset, found: Verification) -> None:
    """Add what only shows between cases: leaks between splits, outliers, empty and unknown ones."""
    facts, info = found.facts, dataset.info
    part_of = {case: part for part, names in dataset.split.items() for case in names}
    by_content = defaultdict(list)
    for case, entry in facts.items():
        by_content[entry['image_sha256']].append(case)
    for cases in by_content.values():
        parts = sorted({part_of.get(case, 'no split') for case in cases})
        if len(parts) > 1:
            last = [part for part in dataset.split if part in parts][-1:]
            found.leaked |= {case for case in cases if [part_of.get(case)] != last}
            found.across.append(f'{some(cases)}: the same image in {" and ".join(parts)}; leave it in one of '
                                f'them (prepared, it is in {last[0]} alone)')
        elif len(cases) > 1:
            found.warnings.append(f'{some(cases)}: the same image, all in {parts[0]}')
    if empty := [case for case, entry in facts.items() if not sum(entry['voxels'][1:])]:
        found.warnings.append(f'{some(empty)}: label empty (background alone)')
    absent = [name for i, name in enumerate(info.labels)
              if not any(entry['voxels'][i] for entry in facts.values())]
    if facts and absent:
        found.warnings.append(f'no case holds the label {", ".join(absent)}')
    if unassigned := [case for case in facts if case not in part_of]:
        found.warnings.append(f'{some(unassigned)}: in no split')
    found.warnings += dataset.warnings
    found.warnings += [f'split {part} has no case; nothing can be trained or evaluated on it'
                       for part, names in dataset.split.items()
                       if not any(case in facts and case not in found.leaked for case in names)]
    found.warnings += doubt_modality(facts, info.modality, info.channels)
    for channel, name in enumerate(info.channels):
        found.warnings += _outliers(facts, channel, name, info.modality)
    orientations = Counter(entry['orientation'] for entry in facts.values())
    if len(orientations) > 1:
        found.warnings.append('orientations differ ('
                              + ', '.join(f'{name} {count}' for name, count in orientations.most_common())
                              + '); slices are turned upright, their axis stays the file\'s third')
    by_note = defaultdict(list)
    for case, entry in facts.items():
        for note in entry['notes']:
            by_note[note].append(case)
    found.warnings += [f'{some(cases)}: {note}' for note, cases in by_note.items()]


def _outliers(facts: dict[str, dict], channel: int, name: str, modality: str) -> list[str]:
    """Cases whose low, median or high intensity lies beyond Tukey's outer fences (3 quartile distances).

    MRI has no unit, so there it is the logarithm of the high one; a constant image is one in any modality.
    """
    cases = list(facts)
    values = np.array([[facts[case][key][channel] for key in ('low', 'median', 'high')] for case in cases]
                      ).reshape(-1, 3)
    lines = []
    if flat := [case for case in cases if facts[case]['minimum'][channel] == facts[case]['maximum'][channel]]:
        lines.append(f'{some(flat)}: channel {name} is constant')
    if modality != 'CT':
        values = np.log10(np.maximum(values[:, 2:], 1e-6))
    if len(cases) < 8:  # quartiles of fewer say nothing
        return lines
    first, third = np.percentile(values, [25, 75], axis=0)
    reach = 3 * np.maximum(third - first, 50.0 if modality == 'CT' else 0.1)
    outside = ((values < first - reach) | (values > third + reach)).any(1)
    if outside.any():
        strange = [case for case, out in zip(cases, outside, strict=True) if out]
        highs = [facts[case]['high'][channel] for case in cases]
        lines.append(f'{some(strange)}: intensities of channel {name} far from the other cases\' (99.5th '
                     f'percentiles run from {min(highs):g} to {max(highs):g}, median {np.median(highs):g})')
    return lines


def thumbnail(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """The slice in the middle of the labelled ones: first channel as uint8 (H, W), and its label."""
    labelled = np.flatnonzero(volume.label.any((1, 2)))
    middle = labelled[len(labelled) // 2] if len(labelled) else len(volume.label) // 2
    plane = volume.image[middle, 0].astype(np.float32)
    low, high = np.percentile(plane, [1, 99])
    shown = np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255
    return shown.astype(np.uint8), volume.label[middle]


def summary_rows(dataset: RawDataset, found: Verification) -> list[tuple[str, str]]:
    """What a user wants to see at a glance, as (what, value)."""
    facts = list(found.facts.values())
    counts = ', '.join(f'{part} {sum(case in found.facts for case in names)} of {len(names)}'
                       for part, names in dataset.split.items())
    rows = [('cases', f'{len(facts)} good, {len(found.faults)} bad'), ('splits', counts)]
    if not facts:
        return rows
    shapes = np.array([[entry['shape'][axis] for axis in (3, 2, 0)] for entry in facts])
    spacings = np.array([[entry['spacing'][axis] for axis in (2, 1, 0)] for entry in facts])

    def span(values, digits):
        low, high = values.min(0), values.max(0)
        return ' x '.join('..'.join(dict.fromkeys(f'{end:.{digits}f}' for end in ends))
                          for ends in zip(low, high, strict=True))

    def tally(values):
        return ', '.join(f'{value} ({count})' for value, count in Counter(values).most_common())

    rows += [('columns x rows x slices', span(shapes, 0)),
             (f'spacing (mm{", nominal" * dataset.info.nominal_spacing})', span(spacings, 2)),
             ('orientation', tally(entry['orientation'] for entry in facts)),
             ('image dtype, stored', tally(entry['stored'][0] for entry in facts)),
             ('label dtype, stored', tally(entry['stored'][1] for entry in facts))]
    for channel, name in enumerate(dataset.info.channels):
        values = {key: [entry[key][channel] for entry in facts] for key in ('minimum', 'median', 'maximum')}
        rows.append((f'intensities, {name}', f'{min(values["minimum"]):g} to {max(values["maximum"]):g}, medians '
                     f'{min(values["median"]):g} to {max(values["median"]):g}'))
    for i, name in enumerate(dataset.info.labels[1:], 1):
        holding = sum(entry['voxels'][i] > 0 for entry in facts)
        mean = np.mean([entry['voxels'][i] for entry in facts])
        rows.append((f'label {i}, {name}', f'in {holding} of {len(facts)} cases, {mean:,.0f} voxels on average'))
    return rows

