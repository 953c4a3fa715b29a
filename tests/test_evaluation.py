import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_plugins.datasets import window_indices
from mmseg_plugins.evaluation import CaseDice, OverlapAverage, dice_scores


def slow_dice(label, prediction, organ):
    a, b = label == organ, prediction == organ
    return 200.0 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else np.nan


def feed(metric, cases):
    metric.dataset_meta = dict(classes=('background', 'a', 'b', 'c'))
    for name, (label, prediction) in cases.items():
        for z in range(len(label)):
            sample = SegDataSample(metainfo=dict(case=name, slice=z))
            sample.gt_sem_seg = PixelData(data=torch.from_numpy(label[z][None]))
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction[z][None]))
            metric.process({}, [sample.to_dict()])
    return metric.evaluate(0)


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    made = {f'c{i}': tuple(rng.integers(0, 4, (2, 3, 6 + i, 7)).astype(np.uint8)) for i in range(3)}
    for name in ('c0', 'c1'):
        label = made[name][0]
        label[label == 3] = 0  # organ 3: absent from c0 and c1 ...
    made['c0'][1][made['c0'][1] == 3] = 0  # ... and in c0 from the prediction too
    return made


def test_both_kinds_of_dice_against_a_slow_reference(cases):
    metric = CaseDice()
    metrics = feed(metric, cases)
    labels, predictions = (np.concatenate([c[i].ravel() for c in cases.values()]) for i in (0, 1))
    for organ in range(4):
        assert metric.scores.pooled[organ] == pytest.approx(slow_dice(labels, predictions, organ))
        per_case = [slow_dice(*c, organ) for c in cases.values()]
        np.testing.assert_allclose(metric.scores.per_case[:, organ], per_case)
        assert metric.scores.case[organ] == pytest.approx(np.nanmean(per_case))
    assert np.isnan(metric.scores.per_case[0, 3]) and metric.scores.per_case[1, 3] == 0
    assert metrics['DSC pooled'] == pytest.approx(metric.scores.pooled[1:].mean())


def test_counts_are_exact_beyond_float32():
    big = np.array([[2**24 + 1, 0], [0, 2**24 + 1]])
    one = np.array([[0, 0], [0, 1]])
    scores = dice_scores({'a': big, 'b': one})
    assert scores.pooled[1] == 100.0 and scores.per_case[0, 0] == 100.0


@pytest.mark.parametrize('depth, slices, stride', [
    (7, 5, 1), (7, 5, 2), (4, 5, 3), (1, 3, 1), (6, 4, 1), (9, 2, 3), (8, 1, 1)])
def test_overlapping_predictions_are_averaged_over_the_volume(depth, slices, stride):
    generator = torch.Generator().manual_seed(0)
    windows = torch.rand(depth, slices, 3, 2, 2, generator=generator)
    wanted = torch.zeros(depth, 3, 2, 2)
    for z in range(depth):
        for k, index in enumerate(window_indices(z, depth, slices, stride)):
            wanted[index] += windows[z, k]
    overlap, got, held = OverlapAverage(depth, slices, stride), {}, 0
    for z in range(depth):
        got |= dict(overlap.add(z, window_indices(z, depth, slices, stride), windows[z]))
        held = max(held, len(overlap._sums))
    assert sorted(got) == list(range(depth)) and not overlap._sums
    for index in range(depth):
        torch.testing.assert_close(got[index], wanted[index])
    assert held <= 2 * (slices // 2) * stride + 1  # memory follows the window, not the volume


def test_windows_out_of_order_are_refused():
    with pytest.raises(ValueError, match='in order'):
        list(OverlapAverage(4, 3, 1).add(1, [0, 1, 2], torch.zeros(3, 2, 1, 1)))
