"""Anybody's label maps against a prepared dataset: scored by the same code as this project's own predictions."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from ..datasets.images import list_files
from ..datasets.nifti import find_difference, read_affine, read_array
from ..datasets.splits import split_cases
from ..datasets.store import Store, check_case, read_index
from ..datasets.volumes import to_slices
from ..errors import UserError, some
from ..files import file_sha256
from .metrics import choose_metrics
from .scores import Scores, collect_scores, compare, score_case


@dataclass(frozen=True)
class ScoredFolder:
    """What a folder of label maps came to.

    Args:
        scores: of every case of the split.
        split: its name.
        missing: cases without a label map.
        notes: what was accepted though it is not as the case has it, one line each.
        digest: hash of the files that were scored.
    """
    scores: Scores
    split: str
    missing: list[str]
    notes: list[str]
    digest: str


def score_folder(folder: Path, prepared: Path, split: str | None = None, metrics: Sequence[str] | None = None,
                 progress: Callable[[int, int, str], None] = lambda *_: None) -> ScoredFolder:
    """Score `<case>.nii.gz` (or `.nii`) of every case of a split at its native resolution.

    A missing case counts as one of whose voxels none has a label, not even background: the Dice of every label
    that is there is 0, a distance has no figure. Nothing is resampled.

    Args:
        folder: holds the label maps.
        prepared: the prepared dataset's folder.
        split: None: the one that the dataset is evaluated on.
        metrics: names; None: all that are registered and that the dataset can have.
        progress: called with (done, total, case).

    Raises:
        UserError: no such split, no label map of it, or one that is not of its case: names the file.
    """
    index, store = read_index(prepared), Store(prepared)
    chosen = choose_metrics(metrics, index['nominal_spacing'])
    split = split or index['evaluate']
    cases = split_cases(index, split, '--split')
    files, notes = _find_files(folder, cases, split)
    labels = len(index['labels'])
    missing = [case for case in cases if case not in files]
    # what a voxel of a missing case is predicted as: an id of its own, whose figures are cut off again
    nothing = labels
    scored = {}
    for number, case in enumerate(cases):
        progress(number, len(cases), case)
        entry, meta = index['cases'][case], check_case(prepared, index, case)
        label = np.asarray(store.label(case, list(range(entry['shape'][0]))))
        if case in files:
            prediction, found = read_prediction(files[case], case, meta, labels)
            notes += [f'{files[case]}: {note}' for note in found]
        else:
            prediction = np.full(label.shape, nothing, np.int16)
        pair = compare(label, prediction, labels + bool(missing), entry['spacing'],
                       index['nsd_tolerance'])
        scored[case] = score_case(pair, chosen)
    progress(len(scored), len(scored), '')
    scores = collect_scores(scored, chosen)
    scores = replace(scores, figures={name: figures[..., :labels] for name, figures in scores.figures.items()})
    content = [(case, file_sha256(path)) for case, path in sorted(files.items())]
    return ScoredFolder(scores, split, missing, notes, hashlib.sha256(repr(content).encode()).hexdigest()[:12])


def _find_files(folder: Path, cases: Sequence[str], split: str) -> tuple[dict[str, Path], list[str]]:
    """The label map of each case that has one, and a note of the files that are no case's."""
    files = list_files(folder, 'label maps')
    others = sorted(files.keys() - set(cases))
    found = {case: path for case, path in files.items() if case in cases}
    if not found:
        unlike = f', not {others[0]}' if others else ''
        raise UserError(f'{folder}: no label map of the {len(cases)} cases of split {split!r}; name each by its '
                        f'case, as {cases[0] if cases else "case"}.nii.gz{unlike}')
    return found, [f'{folder}: left out, no case of split {split!r} is called so: {some(others)}'] * bool(others)


def read_prediction(path: Path, case: str, meta: dict, labels: int) -> tuple[np.ndarray, list[str]]:
    """A label map as a case is stored, (D, H, W) uint8, and how its geometry differs from the case's.

    A map whose axes are the case's in another order or direction is turned. Any other difference is noted, and
    voxels are compared as they lie in the file: many tools write label maps without their image's affine.

    Args:
        meta: the case's, as it is stored.

    Raises:
        UserError: it has not the case's shape, or not its labels.
    """
    array, header = read_array(path)
    affine, wanted, notes = read_affine(header), np.array(meta['affine']), []
    depth, _, *plane = meta['shape']
    shape = tuple([depth, *plane][side] for side in np.argsort(meta['axes']))
    if difference := find_difference(affine, wanted):
        turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.io_orientation(wanted))
        turned = affine @ nib.orientations.inv_ornt_aff(turn, array.shape)
        if array.ndim == 3 and not find_difference(turned, wanted):
            notes.append(f'its axes run {"".join(nib.aff2axcodes(affine))}, the image\'s '
                         f'{"".join(nib.aff2axcodes(wanted))}; turned')
            array = nib.apply_orientation(array, turn)
        else:
            notes.append(f'its geometry is not the image\'s, {difference}; compared voxel by voxel as it is')
    if array.shape != shape:
        raise UserError(f'{path}: shape {array.shape}, case {case!r} has {shape}; give the label map at the '
                        'image\'s own resolution, nothing is resampled here'
                        + ''.join(f' ({note})' for note in notes))
    if array.dtype.kind == 'f':
        raise UserError(f'{path}: label values are not integers; export it as a label map')
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= labels:
        raise UserError(f'{path}: label {low if low < 0 else high} outside 0..{labels - 1}; number labels as the '
                        'dataset does')
    return np.ascontiguousarray(to_slices(array, meta['axes'], meta['flips']), np.uint8), notes
