"""Facts of a case that are computed once, when it is read, and of a dataset: what tables, checks and ranges
are made from."""

import hashlib

import numpy as np

from .intensity import channel_statistics
from .splits import by_patient, split_cases
from .volumes import Volume


def describe_volume(volume: Volume, classes: int) -> dict:
    """A volume's geometry, intensities, labels and content, ready for JSON.

    Args:
        volume: with its label.
        classes: K with background.

    Returns:
        `shape` (D, C, H, W), `dtype`, `stored` (dtypes in the files), `spacing` in mm along (D, H, W), `affine`,
        `axes`, `flips`, `orientation`, the five per-channel statistics of intensity.py, `voxels`, `slices` and
        `variation` per label (see `label_statistics`), `image_sha256`, and `sha256` of image and label.
    """
    image = np.ascontiguousarray(volume.image)
    content = hashlib.sha256(image)
    image_hash = content.hexdigest()
    content.update(np.ascontiguousarray(volume.label))
    return dict(
        shape=list(image.shape), dtype=str(image.dtype), stored=list(volume.stored), spacing=volume.spacing,
        affine=volume.affine.tolist(), axes=volume.axes, flips=volume.flips, orientation=volume.orientation,
        **channel_statistics(image), **label_statistics(volume.label, classes), notes=list(volume.notes),
        image_sha256=image_hash, sha256=content.hexdigest())


def label_statistics(label: np.ndarray, classes: int) -> dict[str, list]:
    """What the paper's Table 3 counts of each label.

    Args:
        label: (D, H, W).
        classes: K.

    Returns:
        Lists of K: `voxels`; `slices` that hold the label; `variation` as (sum, number) of the Dice in percent
        between the label in a slice and in the next, over pairs of slices of which at least one holds it.
    """
    depth = len(label)
    planes = label.reshape(depth, -1)
    counts = np.stack([np.bincount(plane, minlength=classes) for plane in planes])
    both = np.stack([np.bincount(here[here == after], minlength=classes)
                     for here, after in zip(planes[:-1], planes[1:], strict=True)]
                    ) if depth > 1 else np.zeros((0, classes), np.int64)
    sizes = counts[:-1] + counts[1:]
    dice = np.where(sizes > 0, 200.0 * both / np.maximum(sizes, 1), 0.0)
    return dict(voxels=counts.sum(0).tolist(), slices=(counts > 0).sum(0).tolist(),
                variation=[[round(float(total), 4), int(number)]
                           for total, number in zip(dice.sum(0), (sizes > 0).sum(0), strict=True)])


def summarize_dataset(index: dict, folds: int | None = None, evaluated: str | None = None) -> dict:
    """What the paper's Tables 1 and 3 tell of a dataset.

    Args:
        index: of the prepared dataset.
        folds: that it is divided into, so that all its cases are evaluated; None: as it is split.
        evaluated: the split that is evaluated; None: the one that the dataset is reported on.

    Returns:
        `dataset`, `modality`, `labels`, `headline`, `evaluate` and `split_hash` as the index has them; `size`, the
        mean (columns, rows, slices) of all cases; `cases` by split; where some patients have several cases, how
        many patients there are by split (`groups`), and whose each case is (`patients`); `folds`,
        `nominal_spacing` and `citation` where there are any. Over the evaluated cases, lists of K: `voxels`,
        `slices`, and `variation`, the mean Dice in percent between a label in a slice and in the next (None: in
        none of them); `mean_variation` is the headline's.
    """
    cases, split, classes = index['cases'], index['split'], len(index['labels'])
    depth, _, rows, columns = np.mean([entry['shape'] for entry in cases.values()], axis=0)
    counted = [cases[case] for case in split_cases(index, 'all' if folds else evaluated or index['evaluate'],
                                                   'experiment.evaluate')]
    voxels, slices = (np.reshape([entry[key] for entry in counted], (-1, classes)).sum(0).astype(int).tolist()
                      for key in ('voxels', 'slices'))
    pairs = np.reshape([entry['variation'] for entry in counted], (-1, classes, 2)).sum(0)
    variation = [round(float(total / number), 4) if number else None for total, number in pairs]
    reported = [variation[i] for i in index['headline'] if variation[i] is not None]
    copied = ('dataset', 'modality', 'labels', 'headline', 'evaluate', 'split_hash')
    summary = {key: index.get(key) for key in copied}
    summary |= {key: index[key] for key in ('nominal_spacing', 'citation') if index.get(key)}
    summary |= dict(size=[round(float(mean), 2) for mean in (columns, rows, depth)],
                    cases={part: len(names) for part, names in split.items()})
    if folds:
        summary['folds'] = folds
    if groups := index.get('groups'):
        summary['groups'] = {part: len(by_patient(cases, groups)) for part, cases in split.items()}
        summary['patients'] = {case: groups.get(case, case) for case in cases}
    return summary | dict(voxels=voxels, slices=slices, variation=variation,
                          mean_variation=round(sum(reported) / len(reported), 4) if reported else None)
