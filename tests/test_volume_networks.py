"""Networks that take volumes: the stream of crops, prediction of whole cases, and MONAI's networks as published."""

import inspect
import itertools
import json
import re
import sys
import textwrap
from pathlib import Path

import children
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from conftest import REPO, call_tool, wait_for, write_msd
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from mmseg_plugins.building import build_model
from mmseg_plugins.datasets import CropDataset, WindowSampler
from mmseg_plugins.datasets.crops import resample, resampled_shape
from mmseg_plugins.datasets.planes import Planes
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config, load_model_config
from mmseg_plugins.flops import count_config
from mmseg_plugins.models import VolumeSegmentor
from mmseg_plugins.models.baselines import OrderedMerging
from mmseg_plugins.models.volume_segmentor import native_label

CONFIG = REPO / 'configs/unet3d_phantom.py'
MINI = ('unet2d', 'unet3d', 'unetr', 'swinunetr', 'mednext')
LOADED = [dict(type='LoadVolume'), dict(type='PackWindow')]


def crops(prepared, crop=(4, 8, 8), foreground=0.5, more=(), **settings) -> CropDataset:
    return CropDataset(str(prepared), 'train', crop, pipeline=[
        dict(type='LoadCrop', foreground=foreground), *more, dict(type='PackWindow')], **settings)


def tiny(prepared, **experiment) -> dict:
    """Options of a U-Net that trains in a moment."""
    values = dict(data_root=str(prepared), crop=(4, 16, 16), steps=6, batch=4, evaluate='test') | experiment
    return {f'experiment.{key}': value for key, value in values.items()} | {
        'model.network.channels': (4, 8), 'model.network.strides': (2,)}


@MODELS.register_module()
class Brightness(nn.Module):
    """Finds what is brighter than the middle of the range, voxel by voxel."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.classes = out_channels
        self.slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, volumes):
        first = volumes[:, :1] * self.slope
        return torch.cat([-first, first, *[torch.full_like(first, -9.0)] * (self.classes - 2)], 1)


def segmentor(crop, network='Brightness', classes=3, **settings) -> VolumeSegmentor:
    init_default_scope('mmseg')
    torch.manual_seed(0)
    network = network if isinstance(network, dict) else dict(type=network)
    return MODELS.build(dict(
        type='VolumeSegmentor', crop=crop, loss_decode=dict(type='DiceFocalLoss'), data_preprocessor=dict(
            type='WindowPreProcessor'), network=network | dict(in_channels=1, out_channels=classes), **settings))


def test_the_stream_of_crops_is_the_same_for_any_number_of_processes_and_after_a_resumption(prepared):
    flips = [dict(type='RandomTranslate', pixels=2), dict(type='RandomWindowFlip', prob=0.5),
             dict(type='RandomIntensityShift')]
    dataset = crops(prepared, more=flips)

    def stream(number: int, rank: int = 0, processes: int = 1, first: int = 0) -> list:
        sampler = WindowSampler(dataset, seed=5)
        sampler.rank, sampler.processes, sampler.first = rank, processes, first
        drawn = [dataset[index] for index in itertools.islice(sampler, number)]
        return [(each['inputs'].numpy().tobytes(), each['data_samples'].gt_sem_seg.data.numpy().tobytes(),
                 each['data_samples'].case, each['data_samples'].intensity_shift) for each in drawn]

    whole = stream(12)
    assert len(set(whole)) == 12 and stream(6, 0, 2) == whole[::2] and stream(6, 1, 2) == whole[1::2]
    assert stream(4, first=8) == whole[8:]
    cases = len(dataset)
    assert {case for _, _, case, _ in stream(cases)} == set(dataset.cases)


def test_a_share_of_the_crops_is_centred_at_a_labelled_voxel(prepared):
    def labelled(foreground: float) -> float:
        dataset = crops(prepared, (1, 1, 1), foreground)
        drawn = [dataset[index, seed] for seed in range(60) for index in range(len(dataset))]
        return np.mean([int(each['data_samples'].gt_sem_seg.data) > 0 for each in drawn])

    dataset = crops(prepared)
    share = np.mean([dataset.store.labelled(case).sum() / np.prod([6, 21, 18]) for case in dataset.cases])
    assert labelled(1.0) == 1.0 and labelled(0.0) == pytest.approx(share, abs=0.06)
    assert labelled(0.5) == pytest.approx(0.5 + 0.5 * share, abs=0.08)
    large = crops(prepared, (4, 8, 8), 1.0)
    assert all(large[0, seed]['data_samples'].gt_sem_seg.data.any() for seed in range(20))


def test_what_a_crop_has_beyond_a_volume_is_dark_background(prepared):
    dataset = crops(prepared, (10, 32, 32))
    sample = dataset[0, 1]
    volume = CropDataset(str(prepared), 'train', (1, 1, 1), pipeline=LOADED)[0]
    image, label = sample['inputs'], sample['data_samples'].gt_sem_seg.data
    depth, height, width = volume['inputs'].shape
    inside = np.s_[2:2 + depth, (32 - height) // 2 + (32 - height) % 2:, :]
    z, y, x = ((32 if axis else 10) - side for axis, side in enumerate(volume['inputs'].shape))
    inside = tuple(slice(gap - gap // 2 if False else -((-gap) // 2), None) for gap in (z, y, x))
    inside = tuple(slice(part.start, part.start + side) for part, side in zip(
        inside, volume['inputs'].shape, strict=True))
    assert torch.equal(image[inside], volume['inputs'])
    assert torch.equal(label[inside], volume['data_samples'].gt_sem_seg.data)
    outside = torch.ones_like(label, dtype=torch.bool)
    outside[inside] = False
    low = np.float32(dataset.get_data_info(0)['intensity_range'][0][0])
    assert (image[outside] == float(low)).all() and not label[outside].any()


def test_resampling_keeps_ramps_and_labels():
    z, y, x = np.meshgrid(np.arange(8.0), np.arange(12.0), np.arange(10.0), indexing='ij')
    ramp = np.stack([z, 2 * z], 1) if False else z.astype(np.float32)[:, None]
    planes = Planes(ramp, list(range(8)))
    np.testing.assert_array_equal(resample(planes, (8, 12, 10)), ramp[:, 0])
    finer = resample(planes, (16, 12, 10))
    np.testing.assert_allclose(finer[:, 3, 3], ((np.arange(16) + 0.5) / 2 - 0.5).clip(0, 7), atol=1e-6)
    two = np.concatenate([ramp, 10 * ramp], 1)  # (D, C, H, W); the result is channel-major
    np.testing.assert_allclose(resample(Planes(two, list(range(8))), (4, 6, 5))[4:, 0, 0],
                               10 * np.array([0.5, 2.5, 4.5, 6.5]), atol=1e-5)
    label = (z > 3).astype(np.uint8) * 7
    assert set(np.unique(resample(Planes(label, list(range(8))), (5, 7, 7), nearest=True))) == {0, 7}
    assert resampled_shape((130, 512, 512), (3.0, 0.76, 0.76), (2.0, 1.5, 1.5)) == (195, 259, 259)
    assert resampled_shape((1, 2, 3), (1.0, 1.0, 1.0), None) == (1, 2, 3)


def test_one_crop_over_the_volume_gives_what_a_forward_pass_does_and_overlapping_ones_agree():
    model = segmentor((8, 16, 16), dict(type='UNet3D', crop=(8, 16, 16), channels=(4, 8), strides=(2,))).eval()
    volumes = torch.randn(1, 8, 16, 16)
    sample = MODELS.get('WindowPreProcessor')  # noqa: F841
    samples = [sample_of((8, 16, 16))]
    [found] = model(volumes, samples, mode='predict')
    assert torch.equal(found.pred_sem_seg.data, model(volumes).argmax(1)[0].to(torch.uint8))
    # a network without a field of view gives the same whatever it is cut into, and whatever lies beyond the ends
    for crop, overlap in (((3, 5, 7), 0.5), ((3, 5, 7), 0.0), ((20, 20, 20), 0.5)):
        found = segmentor(crop, overlap=overlap, crops=3)(volumes, [sample_of((8, 16, 16))], mode='predict')
        assert torch.equal(found[0].pred_sem_seg.data, (volumes[0] > 0).to(torch.uint8))


def sample_of(shape):
    from mmseg.structures import SegDataSample
    return SegDataSample(metainfo=dict(depth=shape[0], ori_shape=tuple(shape[1:])))


def test_logits_are_resized_before_they_are_compared():
    logits = torch.randn(3, 5, 6, 7)
    wanted = torch.nn.functional.interpolate(logits[None], (9, 12, 11), mode='trilinear')[0].argmax(0)
    assert (native_label(logits, (9, 12, 11)) == wanted).float().mean() > 0.999  # but for rounding
    assert torch.equal(native_label(logits, (5, 6, 7)), logits.argmax(0).to(torch.uint8))


@pytest.mark.parametrize('spacing', [None, (2.0, 1.5, 1.5), (6.0, 3.0, 2.0)])
def test_a_case_is_scored_at_its_own_resolution(prepared, spacing):
    dataset = CropDataset(str(prepared), 'train', (4, 8, 8), spacing, pipeline=LOADED)
    model = segmentor((4, 8, 8)).eval()
    sample = dataset[0]
    shape = (6, 21, 18)
    assert tuple(sample['inputs'].shape) == resampled_shape(shape, (3.0, 2.0, 2.0), spacing)
    [found] = model.test_step({key: [value] for key, value in sample.items()})
    label, prediction = found.gt_sem_seg.data, found.pred_sem_seg.data
    assert label.shape == prediction.shape == shape
    stored = np.asarray(dataset.store.label(dataset.cases[0], list(range(6))))
    np.testing.assert_array_equal(label, stored)
    assert prediction.any() and prediction.max() == 1


def test_deep_supervision_weighs_maps_by_halves_against_the_nearest_voxels():
    class Several(nn.Module):
        def __init__(self, in_channels, out_channels):
            super().__init__()
            self.maps = [torch.randn(2, out_channels, *shape) for shape in ((4, 8, 8), (2, 4, 4), (1, 2, 2))]

        def forward(self, volumes):
            return self.maps

    MODELS.register_module(module=Several, force=True)
    model, loss = segmentor((4, 8, 8), 'Several'), MODELS.build(dict(type='DiceFocalLoss'))
    label = torch.randint(0, 3, (2, 4, 8, 8))
    from mmengine.structures import PixelData
    samples = [sample_of((4, 8, 8)) for _ in label]
    for sample, data in zip(samples, label, strict=True):
        sample.gt_sem_seg = PixelData(data=data)
    found = model(torch.zeros(2, 4, 8, 8), samples, mode='loss')['loss_dice_focal']
    each = [loss(logits, label[:, ::step, ::step, ::step] if step == 1 else label[
        :, step // 2::step, step // 2::step, step // 2::step]) for step, logits in zip((1, 2, 4), model.network.maps,
                                                                                       strict=True)]
    assert found.item() == pytest.approx((each[0] + each[1] / 2 + each[2] / 4).item() / 1.75, rel=1e-6)


# published sizes: UNETR's in the text of its paper's Table 5, MedNeXt's in its Table 1, Swin UNETR's in the
# authors' README (with 14 classes)
@pytest.mark.parametrize('network, crop, millions', [
    (dict(type='UNETR'), (96, 96, 96), 92.6), (dict(type='SwinUNETR'), (96, 96, 96), 62.1),
    (dict(type='SwinUNETR', feature_size=24), (96, 96, 96), 15.7),
    (dict(type='SwinUNETR', feature_size=12), (96, 96, 96), 4.0),
    (dict(type='MedNeXt', variant='S'), (128,) * 3, 5.6), (dict(type='MedNeXt', variant='B'), (128,) * 3, 10.5),
    (dict(type='MedNeXt', variant='M'), (128,) * 3, 17.6), (dict(type='MedNeXt', variant='L'), (128,) * 3, 61.8)])
def test_parameters_are_as_many_as_published(network, crop, millions):
    with torch.device('meta'):
        model = MODELS.build(network | dict(in_channels=1, out_channels=14, crop=crop))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
