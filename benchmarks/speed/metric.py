"""Counting a Dice side by side: python benchmarks/speed/metric.py [--image FILE --label FILE] [--size N]

One volume's label against a prediction that errs at the organs' edges and in single voxels; 14 classes.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed import common  # noqa: E402
from mmseg_plugins.errors import run_main  # noqa: E402
from mmseg_plugins.evaluation.scores import confusion_matrix  # noqa: E402

CLASSES = 14


def paper_loop(label: torch.Tensor, prediction: torch.Tensor) -> np.ndarray:
    """Masks of each class of each slice, summed in float32; returns (3, K): both, label, prediction."""
    sums = torch.zeros(3, CLASSES)
    for plane, guess in zip(label, prediction, strict=True):
        for organ in range(CLASSES):
            a, b = plane == organ, guess == organ
            sums[:, organ] += torch.stack([(a & b).sum().float(), a.sum().float(), b.sum().float()])
    return sums.double().numpy()


def mmseg_metric(label: torch.Tensor, prediction: torch.Tensor) -> np.ndarray:
    from mmseg.evaluation import IoUMetric

    found = [IoUMetric.intersect_and_union(guess, plane, CLASSES, 255)
             for plane, guess in zip(label, prediction, strict=True)]
    both, _, guessed, true = (sum(areas) for areas in zip(*found, strict=True))
    return torch.stack([both, true, guessed]).double().numpy()


def monai_metric(label: torch.Tensor, prediction: torch.Tensor) -> np.ndarray:
    """(K,) Dice alone: MONAI gives no counts."""
    from monai.metrics import DiceMetric
    from monai.networks import one_hot

    metric = DiceMetric(reduction='none')
    metric(*(one_hot(ids[None, None], CLASSES) for ids in (prediction, label)))
    return metric.aggregate()[0].double().numpy()


def ours(label: torch.Tensor, prediction: torch.Tensor) -> np.ndarray:
    counts = sum(confusion_matrix(plane, guess, CLASSES) for plane, guess in zip(label, prediction, strict=True))
    return np.stack([np.diagonal(counts), counts.sum(1), counts.sum(0)])


def dice(counts: np.ndarray) -> np.ndarray:
    return 200.0 * counts[0] / np.maximum(counts[1] + counts[2], 1)


def main() -> int:
    args = common.parse_case_args('Time the counting of a Dice.', repeats=5)
    with tempfile.TemporaryDirectory() as folder:
        volume = common.make_case(args, Path(folder))[2]
    label = torch.from_numpy(volume.label)
    rng = np.random.default_rng(0)
    prediction = np.roll(volume.label, (1, 2), (1, 2))
    wrong = rng.random(prediction.shape, np.float32) < 0.01
    prediction[wrong] = rng.integers(0, CLASSES, wrong.sum())
    prediction = torch.from_numpy(prediction)

    ways = {'the paper\'s loop: a mask per class, float32 sums': paper_loop,
            'mmseg, IoUMetric.intersect_and_union': mmseg_metric,
            'MONAI, DiceMetric on one-hot volumes': monai_metric,
            'ours: a byte per voxel, counted': ours}
    seconds = common.take_turns({name: partial(common.time_second, partial(way, label, prediction))
                                 for name, way in ways.items()}, args.repeats).median()
    true, rows = ours(label, prediction), []
    for name, way in ways.items():
        got = way(label, prediction)
        counted = got.ndim == 2
        error = np.nanmax(np.abs((dice(got) if counted else 100 * got) - dice(true)))
        rows.append([name, f'{seconds[name]:.3f}', f'{seconds.iloc[0] / seconds[name]:.1f}',
                     str(int(np.abs(got - true).sum())) if counted else 'gives no counts', f'{error:.1e}'])
    depth, height, width = label.shape
    columns = ['way', 'CPU-s', 'x the paper\'s', 'voxels miscounted', 'largest error of a Dice, points']
    title = f'Counting a Dice: {width} x {height} x {depth} voxels, {CLASSES} classes'
    common.write_page(__file__, args, f'# {title}\n\n{common.table(columns, rows)}\n'
                      'A float32 sum cannot hold every integer beyond 2^24 = 16,777,216.\n',
                      ['torch', 'numpy', 'mmsegmentation', 'monai'])
    return 0


if __name__ == '__main__':
    run_main(main)
