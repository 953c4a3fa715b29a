from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from scipy import ndimage

from mmseg_plugins.datasets import window_indices
from mmseg_plugins.evaluation import CaseMetric, OverlapAverage
from mmseg_plugins.evaluation.metrics import choose_metrics, format_tolerance, hd95, nsd
from mmseg_plugins.evaluation.scores import ScoredCase, collect_scores, compare, confusion_matrix


def slow_dice(label, prediction, organ):
    a, b = label == organ, prediction == organ
    return 200.0 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else np.nan


def feed(metric, cases, **meta):
    metric.dataset_meta = dict(classes=('background', 'a', 'b', 'c')) | meta
    for name, (label, prediction) in cases.items():
        for z in range(len(label)):
            sample = SegDataSample(metainfo=dict(case=name, slice=z, depth=len(label), spacing=(3.0, 1.0, 2.0)))
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
    metric = CaseMetric()
    metrics = feed(metric, cases)
    labels, predictions = (np.concatenate([c[i].ravel() for c in cases.values()]) for i in (0, 1))
    for organ in range(4):
        assert metric.scores.figures['dsc_pooled'][organ] == pytest.approx(slow_dice(labels, predictions, organ))
        per_case = [slow_dice(*c, organ) for c in cases.values()]
        np.testing.assert_allclose(metric.scores.figures['dsc'][:, organ], per_case)
        assert metric.scores.by_label('dsc')[organ] == pytest.approx(np.nanmean(per_case))
    assert np.isnan(metric.scores.figures['dsc'][0, 3]) and metric.scores.figures['dsc'][1, 3] == 0
    assert metrics['DSC pooled'] == pytest.approx(metric.scores.figures['dsc_pooled'][1:].mean())


def test_counts_are_exact_beyond_float32():
    big = np.array([[2**24 + 1, 0], [0, 2**24 + 1]])
    one = np.array([[0, 0], [0, 1]])
    pooled = collect_scores({'a': ScoredCase(big, {}), 'b': ScoredCase(one, {})}, choose_metrics(['dsc_pooled']))
    assert pooled.figures['dsc_pooled'].tolist() == [100.0, 100.0]


@pytest.mark.parametrize('classes', [2, 14, 16, 17, 20, 256])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
def test_confusion_counts_every_pair(classes, dtype):
    generator = torch.Generator().manual_seed(0)
    label, prediction = torch.randint(classes, (2, 61, 67), generator=generator)
    label[0, 0] = prediction[0, 0] = classes - 1
    wanted = np.zeros((classes, classes), np.int64)
    np.add.at(wanted, (label.numpy(), prediction.numpy()), 1)
    got = confusion_matrix(label.to(torch.uint8), prediction.to(dtype), classes)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, wanted)


def test_confusion_is_exact_where_float32_is_not():
    label = torch.zeros(2**24 + 3, dtype=torch.uint8)
    label[-1] = 1
    assert confusion_matrix(label, label, 14)[:2, :2].tolist() == [[2**24 + 2, 0], [0, 1]]


@pytest.mark.parametrize('spoilt, value, dtype', [
    (0, 14, torch.uint8), (0, 255, torch.uint8), (1, 14, torch.int64), (1, 256, torch.int64),
    (1, -1, torch.int64)])
def test_ids_out_of_range_are_not_counted_as_others(spoilt, value, dtype):
    pair = [torch.zeros(5, 5, dtype=dtype), torch.zeros(5, 5, dtype=dtype)]
    pair[spoilt][2, 2] = value
    with pytest.raises(ValueError, match=f'{("label", "prediction")[spoilt]} {value} outside 0..13'):
        confusion_matrix(*pair, 14)


@pytest.mark.parametrize('depth, slices, stride', [
    (7, 5, 1), (7, 5, 2), (7, 5, 0), (4, 5, 3), (1, 3, 1), (6, 4, 1), (9, 2, 3), (8, 1, 1)])
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


def slow_surfaces(label, prediction, spacing):
    """HD95 and NSD from the distances between all pairs of surface voxels (monai's definition of a surface)."""
    points = []
    for mask in (label, prediction):
        padded = np.pad(mask, 1)
        inner = ndimage.binary_erosion(padded, ndimage.generate_binary_structure(3, 1))
        points.append(np.argwhere(padded & ~inner) * spacing)
    distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    return max(np.percentile(distances.min(axis), 95) for axis in (0, 1))


def test_surface_metrics_in_millimetres():
    rng = np.random.default_rng(0)
    label = np.zeros((6, 12, 14), np.uint8)
    label[1:5, 2:9, 3:11] = 1
    label[0, 0, 0] = 2
    prediction = np.roll(label, 2, 2)
    prediction[prediction == 2] = 0
    prediction[2, rng.integers(0, 12, 5), 1] = 1
    spacing = (4.0, 1.0, 1.5)
    pair = compare(label, prediction, 4, spacing)
    distance, surface_dice = hd95(pair), nsd(pair)
    assert distance[1] == pytest.approx(slow_surfaces(label == 1, prediction == 1, spacing))
    assert np.isnan(distance[2]) and surface_dice[2] == 0  # missed
    assert np.isnan(distance[3]) and np.isnan(surface_dice[3])  # nowhere
    pair = compare(label, label, 4, spacing)
    same, all_of_it = hd95(pair), nsd(pair)
    assert same[1] == 0 and all_of_it[1] == all_of_it[2] == 100
    assert hd95(compare(label, np.roll(label, 1, 0) * (label != 2), 4, spacing))[1] == 4.0  # one slice
    moved = np.roll(label, 2, 2)  # by 3 mm: two faces leave, four slide along themselves
    pair = compare(label, moved, 4, spacing)
    assert pair.tolerance == 4.0 and nsd(pair)[1] > 99
    assert 40 < nsd(replace(pair, tolerance=1.0))[1] < 90 and nsd(replace(pair, tolerance=3.1))[1] > 99


@pytest.mark.parametrize('tolerance, of_the_case', [(None, 3.0), (0.5, 3.0), (4.0, 4.0)])
def test_the_tolerance_is_the_datasets_and_at_least_the_longest_side_of_a_voxel(cases, tolerance, of_the_case):
    metric = CaseMetric()
    found = feed(metric, cases, **({} if tolerance is None else dict(nsd_tolerance=tolerance)))
    pairs = [compare(*cases[name], 4, (3.0, 1.0, 2.0)) for name in sorted(cases)]
    wanted = [nsd(replace(pair, tolerance=of_the_case)) for pair in pairs]
    np.testing.assert_array_equal(metric.scores.figures['nsd'], wanted)
    assert f'NSD {of_the_case:g} mm' in found and metric.scores.tolerance == (of_the_case,) * 2
    one_slice = np.zeros((4, 5, 6), np.uint8)
    one_slice[1, 1:4, 1:5] = 1
    assert nsd(compare(one_slice, np.roll(one_slice, 1, 0), 2, (12.0, 5.5, 5.5)))[1] == 100
    assert format_tolerance((2.0, 2.0)) == '2 mm' and format_tolerance((2.5, 5.0)) == '2.5 to 5 mm'


def test_a_chosen_cases_prediction_is_kept(cases):
    metric = CaseMetric(keep=('c1', [2, 0]))
    feed(metric, cases)
    np.testing.assert_array_equal(metric.kept, cases['c1'][1][[2, 0]])
    distance = metric.scores.figures['hd95']
    assert distance.shape == metric.scores.figures['nsd'].shape == (3, 4) and np.isnan(distance[0, 3])
