"""Networks that take volumes: the stream of crops, prediction of whole cases, MONAI's networks as published."""

import inspect
import itertools
import json
import os
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
from conftest import REPO, call_tool, write_msd
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_plugins.building import build_model
from mmseg_plugins.datasets import CropDataset, WindowSampler, read_index
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


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


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
    torch.manual_seed(0)
    network = network if isinstance(network, dict) else dict(type=network)
    return MODELS.build(dict(
        type='VolumeSegmentor', crop=crop, loss_decode=dict(type='DiceFocalLoss'), data_preprocessor=dict(
            type='WindowPreProcessor'), network=network | dict(in_channels=1, out_channels=classes), **settings))


def sample_of(depth: int, *plane: int, label=None) -> SegDataSample:
    sample = SegDataSample(metainfo=dict(depth=depth, ori_shape=plane))
    if label is not None:
        sample.gt_sem_seg = PixelData(data=label)
    return sample


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
        drawn = [dataset[index, seed] for seed in range(40) for index in range(len(dataset))]
        return np.mean([int(each['data_samples'].gt_sem_seg.data) > 0 for each in drawn])

    dataset = crops(prepared)
    share = np.mean([dataset.store.labelled(case).sum() / np.prod([6, 21, 18]) for case in dataset.cases])
    assert labelled(1.0) == 1.0 and labelled(0.0) == pytest.approx(share, abs=0.06)
    assert labelled(0.5) == pytest.approx(0.5 + 0.5 * share, abs=0.08)
    large = crops(prepared, (4, 8, 8), 1.0)
    assert all(large[0, seed]['data_samples'].gt_sem_seg.data.any() for seed in range(20))


def test_what_a_crop_has_beyond_a_volume_is_dark_background(prepared):
    dataset = crops(prepared, (10, 32, 32))
    crop, volume = dataset[0, 1], CropDataset(str(prepared), 'train', (1, 1, 1), pipeline=LOADED)[0]
    image, label = crop['inputs'], crop['data_samples'].gt_sem_seg.data
    wanted = torch.full_like(image, float(dataset.get_data_info(0)['intensity_range'][0][0]))
    middle = tuple(slice(-((have - want) // 2), -((have - want) // 2) + have)
                   for have, want in zip(volume['inputs'].shape, image.shape, strict=True))
    wanted[middle] = volume['inputs']
    assert torch.equal(image, wanted) and label[middle].equal(volume['data_samples'].gt_sem_seg.data)
    assert label.count_nonzero() == label[middle].count_nonzero() > 0


def test_resampling_keeps_ramps_and_labels():
    z, y, x = np.meshgrid(np.arange(8.0), np.arange(12.0), np.arange(10.0), indexing='ij')
    ramp = z.astype(np.float32)[:, None]
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
    [found] = model(volumes, [sample_of(8, 16, 16)], mode='predict')
    assert torch.equal(found.pred_sem_seg.data, model(volumes).argmax(1)[0].to(torch.uint8))
    # a network without a field of view gives the same whatever it is cut into, and whatever lies beyond the ends
    for crop, overlap in (((3, 5, 7), 0.5), ((3, 5, 7), 0.0), ((20, 20, 20), 0.5)):
        found = segmentor(crop, overlap=overlap, crops=3)(volumes, [sample_of(8, 16, 16)], mode='predict')
        assert torch.equal(found[0].pred_sem_seg.data, (volumes[0] > 0).to(torch.uint8))


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


@MODELS.register_module()
class Pyramid(nn.Module):
    """Logits at full, half and quarter size, whatever it is given."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.maps = [torch.randn(2, out_channels, 4 // step, 8 // step, 8 // step) for step in (1, 2, 4)]

    def forward(self, volumes):
        return self.maps


def test_deep_supervision_weighs_maps_by_halves_against_the_nearest_voxels():
    model, loss = segmentor((4, 8, 8), 'Pyramid'), MODELS.build(dict(type='DiceFocalLoss'))
    label = torch.randint(0, 3, (2, 4, 8, 8))
    samples = [sample_of(4, 8, 8, label=each) for each in label]
    found = model(torch.zeros(2, 4, 8, 8), samples, mode='loss')['loss_dice_focal']
    full, half, quarter = (loss(logits, label[:, step // 2::step, step // 2::step, step // 2::step])
                           for step, logits in zip((1, 2, 4), model.network.maps, strict=True))
    assert found.item() == pytest.approx((full + half / 2 + quarter / 4).item() / 1.75, rel=1e-6)


# The authors' numbers in millions, cut off rather than rounded: Swin UNETR's README (SwinUNETR/BTCV of
# Project-MONAI/research-contributions, commit 21ed8e5), MedNeXt's README (MIC-DKFZ/MedNeXt, commit 0b78ed8).
@pytest.mark.parametrize('network, millions', [
    (dict(type='SwinUNETR'), 62.1), (dict(type='SwinUNETR', feature_size=24), 15.7),
    (dict(type='SwinUNETR', feature_size=12), 4.0), (dict(type='MedNeXt', variant='S'), 5.6),
    (dict(type='MedNeXt', variant='B'), 10.5), (dict(type='MedNeXt', variant='M'), 17.6),
    (dict(type='MedNeXt', variant='L'), 61.8), (dict(type='MedNeXt', variant='S', kernel_size=5), 5.9)])
def test_parameters_are_as_many_as_published(network, millions):
    model = on_meta(network, (128, 128, 128))
    assert abs(sum(parameter.numel() for parameter in model.parameters()) / 1e6 - millions) < 0.1


def on_meta(network: dict, crop) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(network | dict(in_channels=1, out_channels=14, crop=crop))


def test_unetr_is_the_authors():
    """Counted from the authors' networks/unetr.py (UNETR/BTCV of Project-MONAI/research-contributions, commit
    21ed8e5) on MONAI 0.7.0: 92,790,958 parameters, of which 6,912 are used in no forward pass (a class token of
    768, and 1 x 1 convolutions of residual blocks that change no width, 2 x 1024 and 4096)."""
    network = on_meta(dict(type='UNETR'), (96, 96, 96))
    assert sum(parameter.numel() for parameter in network.parameters()) == 92_790_958 - 768 - 2 * 1024 - 4096
    embed = network.vit.patch_embedding.patch_embeddings
    assert isinstance(embed[1], nn.Linear) and embed[1].weight.shape == (768, 16 ** 3)  # `perceptron`
    assert network.encoder1.layer.conv1.conv.out_channels == 16  # feature size
    # hidden states 3, 6 and 9 from 0, in the authors' code on MONAI 0.7.0 too; the paper counts blocks 3, 6 and 9
    seen, taps = {}, {'encoder2': 4, 'encoder3': 7, 'encoder4': 10, 'decoder5': 12}
    network = on_meta(dict(type='UNETR', hidden_size=24, mlp_dim=24, num_heads=2, feature_size=2), (32, 32, 32))
    for number, block in enumerate(network.vit.blocks, 1):
        block.register_forward_hook(lambda _, __, out, number=number: torch.full_like(out, float(number)))
    network.vit.norm = nn.Identity()
    network.to_empty(device='cpu')
    for part in taps:
        network.get_submodule(part).register_forward_pre_hook(
            lambda _, inputs, part=part: seen.update({part: set(inputs[0].flatten().tolist())}))
    with torch.no_grad():
        network(torch.zeros(1, 1, 32, 32, 32))
    assert seen == {part: {float(number)} for part, number in taps.items()}


def test_mednext_has_residual_connections_and_kernels_of_3():
    network = on_meta(dict(type='MedNeXt'), (16, 16, 32))
    blocks = [part for part in network.modules() if hasattr(part, 'do_res')]
    residual = [getattr(block, 'resample_do_res', block.do_res) for block in blocks]
    assert residual == [True] * 26 and network.do_ds  # 9 x 2 blocks, 4 that halve and 4 that double
    kernels = {part.kernel_size for part in network.modules() if isinstance(part, nn.Conv3d) and part.groups > 1}
    assert kernels == {(3, 3, 3)}
    with pytest.raises(UserError, match="model.network.variant='XL' must be S, B, M or L"):
        on_meta(dict(type='MedNeXt', variant='XL'), (16, 16, 32))


@pytest.mark.parametrize('network, crop, needed', [
    ('UNETR', (96, 96, 90), '16 x 16 x 16'), ('SwinUNETR', (16, 64, 64), '32 x 32 x 32'),
    ('MedNeXt', (8, 64, 64), '16 x 16 x 16'), ('UNet3D', (48, 192, 190), '16 x 16 x 16'),
    ('UNet2D', (1, 512, 500), '1 x 64 x 64')])
def test_a_crop_that_a_network_cannot_divide_is_one_line(network, crop, needed):
    fault = f'experiment.crop={crop}: {network} needs multiples of {needed}'
    with pytest.raises(UserError, match=re.escape(fault)):
        on_meta(dict(type=network), crop)
    least = tuple(map(int, needed.split(' x ')))
    with pytest.raises(UserError, match=f'{network} makes one voxel of it'):
        on_meta(dict(type=network), least)


def test_swin_unetrs_patch_merging_is_told_apart_and_is_monais_of_its_time():
    from monai.networks.nets.swin_unetr import PatchMerging

    torch.manual_seed(0)
    x, installed = torch.randn(2, 4, 5, 6, 3), PatchMerging(3)
    merging = {order: OrderedMerging(3, order) for order in ('until 1.4', 'since 1.5')}
    for layer in merging.values():
        layer.load_state_dict(installed.state_dict() | dict(order=layer.order))
    new, old = (merging[order](x) for order in ('since 1.5', 'until 1.4'))
    assert torch.equal(installed(x), new) and not torch.allclose(new, old)
    # MONAI 1.4.0's forward pass, monai/networks/nets/swin_unetr.py
    padded = nn.functional.pad(x, (0, 0, 0, 0, 0, 1, 0, 0))
    parts = [padded[:, i::2, j::2, k::2] for i, j, k in (
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))]
    layer = merging['until 1.4']
    assert torch.equal(layer.reduction(layer.norm(torch.cat(parts, -1))), old)
    with pytest.raises(UserError, match='trained with another patch merging'):
        merging['since 1.5'].load_state_dict(merging['until 1.4'].state_dict())
    with pytest.raises(RuntimeError, match='order'):  # MONAI's own checkpoint does not tell which it has
        merging['since 1.5'].load_state_dict(installed.state_dict())


def test_a_source_of_swin_unetr_fills_its_encoder(tmp_path):
    settings = dict(type='SwinUNETR', in_channels=1, out_channels=3, crop=(32, 32, 64), feature_size=12,
                    depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
    made = MODELS.build(settings).model.swinViT
    state = {f'module.{key}'.replace('.linear', '.fc'): value for key, value in made.state_dict().items()
             if 'order' not in key}
    heads = {f'module.{name}.weight': torch.zeros(2, 2) for name in (
        'norm', 'rotation_head', 'contrastive_head', 'conv.0')}
    file = tmp_path / 'model_swinvit.pt'
    torch.save(dict(state_dict=state | heads), file)
    network = MODELS.build(settings | dict(source=str(file)))
    network.init_weights()
    report = network.load_report
    loaded = network.model.swinViT.state_dict()
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in loaded.items())
    assert not report.missing and set(report.dropped) == {key.removeprefix('module.') for key in heads} | {
        key for key in report.dropped if key.endswith('relative_position_index')}
    with pytest.raises(UserError, match="set it to 'until 1.4'"):
        MODELS.build(settings | dict(source=str(file), merging='since 1.5'))
    two = MODELS.build(settings | dict(source=str(file), in_channels=2))
    two.init_weights()
    kernel = two.model.swinViT.patch_embed.proj.weight
    torch.testing.assert_close(kernel.sum(1), made.patch_embed.proj.weight[:, 0])
    torch.save(dict(state_dict=state | {'module.other': torch.zeros(2)}), file)
    with pytest.raises(UserError, match="key 'other' is unknown"):
        MODELS.build(settings | dict(source=str(file))).init_weights()


def test_sources_check_accounts_for_every_key_of_swin_unetrs(tmp_path, capsys):
    made = MODELS.build(dict(type='SwinUNETR', in_channels=1, out_channels=2, crop=(64, 64, 64))).model.swinViT
    state = {f'module.{key}'.replace('.linear', '.fc'): value for key, value in made.state_dict().items()
             if 'order' not in key}
    torch.save(dict(state_dict=state), tmp_path / 'model_swinvit.pt')
    assert call_tool('sources', '--weights-root', tmp_path, '--check') == 0
    printed = capsys.readouterr().out
    assert 'swinvit: sha256' in printed and ' loaded' in printed and 'error' not in printed


@pytest.mark.parametrize('name', MINI)
def test_gradients_reach_every_parameter(name):
    cfg, _ = load_model_config(REPO / f'configs/{name}_phantom.py')
    model = build_model(cfg).train()
    crop = cfg.experiment.crop
    label = torch.randint(0, 14, tuple(crop))
    volumes = torch.randn(2, *crop)
    losses = model(volumes, [sample_of(*crop, label=label), sample_of(*crop, label=label.flip(0))], mode='loss')
    sum(losses.values()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None
               or not parameter.grad.isfinite().all()]
    assert not without and count_config(cfg)['network'].parameters == sum(map(torch.numel, model.parameters()))


@pytest.mark.parametrize('name', ['unet3d', *(pytest.param(name, marks=pytest.mark.skipif(
    'EVERY_BASELINE' not in os.environ, reason='takes minutes; EVERY_BASELINE=1 runs it')) for name in (
        'unet2d', 'unetr', 'swinunetr', 'mednext', 'cotr', 'transunet', 'swinunet'))])
def test_a_killed_run_gives_the_uninterrupted_runs_weights_and_two_processes_its_losses(name, prepared, tmp_path):
    config, options = REPO / f'configs/{name}_phantom.py', tiny(prepared, checkpoint_interval=2)
    if name != 'unet3d':  # as its miniature is
        options = {key: value for key, value in options.items() if key.startswith('experiment')
                   and key != 'experiment.crop'}
        options['experiment.lr'] = 1e-4  # with a higher one, rounding grows from step to step
    if name == 'cotr':
        options['model.network.dropout'] = 0.0  # each process drops other values

    def train(name: str, processes: int = 1, **settings) -> Path:
        work = tmp_path / name
        begun = (children.start_ranks(processes, children.train, work, options, 'pytorch', config=config)
                 if processes > 1 else [children.start(children.train, work, options, config=config, **settings)])
        for process in begun:
            process.join(300)
        return work

    def weights(work: Path) -> dict:
        return torch.load(work / 'iter_6.pth', weights_only=True)['state_dict']

    def losses(work: Path) -> list[float]:
        [log] = work.glob('*/vis_data/scalars.json')
        return [row['loss'] for row in map(json.loads, log.read_text().splitlines()) if 'loss' in row]

    alone = weights(train('alone'))
    work = train('killed', hooks=[children.Choke(4, 100)])  # a write that is cut off kills it
    assert not (work / 'iter_6.pth').exists() and (work / 'iter_2.pth').exists()
    resumed = weights(train('killed'))
    assert all(torch.equal(alone[key], resumed[key]) for key in alone)
    assert losses(train('shared', 2)) == pytest.approx(losses(tmp_path / 'alone'), rel=2e-5)


@pytest.mark.parametrize('options, fault', [
    ({'experiment.slices': 5}, 'experiment.slices is of windows, and experiment.crop says'),
    ({'experiment.encoder': 'deit_tiny_patch16_224'}, 'experiment.encoder is of windows'),
    ({'experiment.crop': (4, 0, 4)}, 'experiment.crop=(4, 0, 4) must be slices, height and width of a crop'),
    ({'experiment.spacing': 2.0}, 'experiment.spacing=2.0 must be mm of a voxel along slices, height and width'),
    ({'experiment.source': 'a.pth'}, "experiment.source='a.pth': UNet3D starts from random weights"),
    ({'model.network.type': 'UNet4D'}, "nothing is called 'UNet4D'; did you mean"),
    ({'model.network.out_channels': 3}, 'experiment.data_root decides it'),
    ({'model.network': dict(_delete_=True, channels=(8, 16))}, 'model.network has no type; name its class'),
    *(({f'{name}_dataloader.batch_size': 2}, f'{name}_dataloader.batch_size=2: volumes have sizes of their own')
      for name in ('val', 'test')),
    ({'model.overlap': 1.0}, 'overlap=1.0 must be a number from 0 to 0.99')])
def test_a_setting_that_means_nothing_is_one_line(prepared, options, fault):
    with pytest.raises((UserError, ValueError), match=re.escape(fault)):
        build_model(load_config(CONFIG, tiny(prepared) | options))


def test_a_key_of_crops_is_none_of_windows(prepared):
    with pytest.raises(UserError, match='experiment.spacing is of crops, and the network takes windows'):
        load_config(children.CONFIG, {'experiment.data_root': str(prepared), 'experiment.source': None,
                                      'experiment.spacing': (1.0, 1.0, 1.0)})
    load_config(CONFIG, {  # of another kind of config, and left out
        'experiment.data_root': str(prepared), 'experiment.activation_checkpointing': None})
    with pytest.raises(UserError, match='model.network takes experiment.crop; a config has both, or neither'):
        load_config(children.CONFIG, {f'experiment.{key}': value for key, value in dict(
            data_root=str(prepared), source=None, crop=(4, 4, 4), slices=None, stride=None, target=None,
            inflation=None, img_size=None).items()})


def test_tools_test_and_predict_give_the_same_labels(prepared, msd_raw, tmp_path, capsys):
    options = tiny(prepared, spacing=(3.0, 1.5, 2.5))
    model = build_model(load_config(CONFIG, options))
    checkpoint, figures, out = tmp_path / 'iter_0.pth', tmp_path / 'metrics.json', tmp_path / 'label.nii.gz'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    chosen = ['--cfg-options', *(f'{key}={value}'.replace(' ', '') for key, value in options.items())]
    call_tool('test', CONFIG, checkpoint, '--work-dir', tmp_path / 'test', '--out', figures, *chosen)
    [case] = read_index(prepared)['split']['test'][:1]
    call_tool('predict', CONFIG, checkpoint, msd_raw / 'imagesTr' / f'{case}.nii.gz', out, *chosen)
    label, truth = (np.asarray(nib.load(path).dataobj) for path in (out, msd_raw / 'labelsTr' / f'{case}.nii.gz'))
    assert label.shape == truth.shape and len(read_index(prepared)['split']['test']) == 1
    dice = [200 * ((label == i) & (truth == i)).sum() / ((label == i).sum() + (truth == i).sum()) for i in (1, 2)]
    assert json.loads(figures.read_text())['mean']['dsc'] == pytest.approx(np.mean(dice), abs=1e-3)
    call_tool('flops', CONFIG, *chosen)
    assert 'one crop of 1 x 4 x 16 x 16' in capsys.readouterr().out


def test_a_strangers_network_is_a_row_of_a_grid_by_one_module_and_one_block(tmp_path):
    example = textwrap.dedent(inspect.getdoc(VolumeSegmentor).split('`custom_imports`:\n')[1].split('model =')[0])
    (tmp_path / 'my_networks.py').write_text(
        f'from mmseg.registry import MODELS\nfrom torch import nn\n\n{example}')
    (tmp_path / 'shallow.py').write_text(
        f"_base_ = {str(CONFIG)!r}\nmodel = dict(network=dict(_delete_=True, type='Shallow'))\n"
        "experiment = dict(crop=(4, 8, 8))\n")
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7)
    grid = dict(dataset='hippocampus', imports=['my_networks'], seeds=[1], options={'experiment.batch': 2},
                configs=dict(beit='configs/mini_beit_centering_hippocampus.py',
                             shallow=str(tmp_path / 'shallow.py')),
                source='none', tables=dict(rows=dict(caption='Rows', rows=dict(
                    ours=dict(slices=3), theirs=dict(encoder='shallow'),
                    slower=dict(encoder='shallow', lr=1e-4)))))
    arguments = [sys.executable, str(REPO / 'benchmarks/run_grid.py'), '--grid', 'mine.yaml', '--max-iters', '2',
                 '--out', 'out', '--executor', 'debug']
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(grid))
    result = children.run(arguments, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / 'out/records').glob('*.json'))]
    names = [re.sub('-[0-9a-f]{8}$', '', record['run']) for record in records]
    assert names == [f'hippocampus-{name}-seed1' for name in (
        'beit-none-random-s3-t1-center', 'shallow-none-lr0.0001', 'shallow-none')]
    theirs = records[2]
    assert theirs['cell']['slices'] is theirs['cell']['target'] is None
    assert theirs['data']['input_size'] == [4, 8, 8]
    assert theirs['cost']['parameters'] == 28 * 3 and 'encoder_flops' not in theirs['cost']
    assert theirs['cost']['flops'] == 2 * 27 * 3 * 4 * 8 * 8 and theirs['packages']['monai']
    assert theirs['settings']['input'] == 'crops of 4 x 8 x 8 voxels'
    text = (tmp_path / 'out/report.html').read_text()
    assert 'theirs' in text and 'crop' in text
    dry = children.run([*arguments, '--dry-run'], tmp_path)
    assert dry.returncode == 0 and '3 cells, 3 runs' in dry.stdout, dry.stdout + dry.stderr
    grid['tables']['rows']['rows']['theirs']['slices'] = 3
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(grid))
    result = children.run(arguments, tmp_path)
    assert result.returncode == 2 and 'shallow takes crops of volumes, so it has no slices' in result.stderr
