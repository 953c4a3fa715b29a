"""TransUNet and SwinUNet against what their authors' code gives, and what is easily got wrong about them."""

import re

import numpy as np
import pytest
import timm
import torch
from conftest import REPO
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from published import google_hybrid, seeded
from scipy.ndimage import zoom
from timm.layers import StdConv2d
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import check_start, load_config, load_model_config
from mmseg_plugins.models import InflatedViT, WindowPreProcessor
from mmseg_plugins.models.baselines import SwinUNet, SwinUNetHead, TransUNet, TransUNetHead
from mmseg_plugins.models.baselines.swinunet import PatchExpand
from mmseg_plugins.positions import resize_absolute_table, resize_beit_table

SMALL = dict(layers=(1, 2, 1), width=32, embed_dim=48, depth=2, num_heads=4)
SMALL_HEAD = dict(in_channels=(32, 128, 256, 48), channels=8, hidden=512, widths=(32, 24, 16), num_classes=3,
                  norm_cfg=dict(type='BN'), align_corners=False)
SMALL_SWIN = dict(embed_dim=12, num_heads=(1, 2, 3, 4))


def on_meta(config, **experiment):
    cfg, _ = load_model_config(REPO / 'configs' / f'{config}.py',
                               {f'experiment.{key}': value for key, value in experiment.items()})
    init_default_scope('mmseg')
    with torch.device('meta'):
        return MODELS.build(cfg.model)


# The same

def count_flops(encoder, head, size) -> int:
    """Of convolutions and matrix products for one image, 2 x multiply-accumulates."""
    for module in encoder.modules():
        if hasattr(module, 'fused_attn'):  # whose products the counter does not see
            module.fused_attn = False
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head.eval()(encoder.eval()(torch.zeros(1, encoder.channels, size, size, device='meta')))
    return counter.get_total_flops()


# Counted from the authors' code with 9 classes, FLOPs by torch's FlopCounterMode: VisionTransformer(R50-ViT-B_16)
# of github.com/Beckschen/TransUNet at 02ef001, SwinTransformerSys with windows 7 and 12 of
# github.com/HuCaoFighting/Swin-Unet at f48f623.
@pytest.mark.parametrize('encoder, head, size, parameters, flops', [
    (TransUNet, TransUNetHead, 224, 105_277_081, 58_451_460_096),
    (TransUNet, TransUNetHead, 512, 105_912_985, None),
    (SwinUNet, SwinUNetHead, 224, 27_168_900, 12_219_561_984),
    (SwinUNet, SwinUNetHead, 384, 27_216_420, 38_347_997_184)])
def test_parameters_and_flops_are_those_of_the_authors_code(encoder, head, size, parameters, flops):
    with torch.device('meta'):
        network = encoder(channels=3, img_size=size), head(num_classes=9, norm_cfg=dict(type='BN'))
    assert sum(parameter.numel() for part in network for parameter in part.parameters()) == parameters
    assert flops is None or count_flops(*network, size) == flops


@pytest.fixture(scope='module')
def googles(tmp_path_factory):
    path = tmp_path_factory.mktemp('google') / 'R50+ViT-B_16.npz'
    np.savez(path, **google_hybrid(**SMALL, grid=3))
    return path


# Logits of three classes at these pixels, of the authors' network (Apache-2.0, commit 02ef001) in float64 at the
# sizes of SMALL and SMALL_HEAD. Its own `load_from` filled it from `google_hybrid`'s arrays; its decoder got
# `seeded` ones by the names that TransUNetHead has for the same weights, and it saw the seeded image.
PIXELS = ((0, 0), (0, 63), (63, 0), (63, 63), (31, 17), (40, 50))
LOGITS = [[0.0038936008, 0.208598006, 0.197898343, 0.133372312, 0.749885286, 1.01844707],
          [-0.130819821, -0.57044681, 0.059700958, 0.127362863, -0.0987309175, 0.0827039398],
          [-0.340931705, -0.243648098, -0.200655662, 0.192437737, -0.766980316, -0.874239467]]


@pytest.mark.parametrize('channels, inflation', [(1, 'centering'), (2, 'centering'), (3, 'none')])
def test_transunets_logits_are_the_authors_on_a_gray_image_of_any_number_of_channels(googles, channels, inflation):
    encoder = TransUNet(channels=channels, inflation=inflation, img_size=64, source=str(googles), sizes=SMALL)
    encoder, head = encoder.double().eval(), TransUNetHead(**SMALL_HEAD).double().eval()
    encoder.init_weights()
    with torch.no_grad():
        for name, value in head.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.as_tensor(seeded(name, *value.shape)))
        logits = head(encoder((8 * torch.as_tensor(seeded('image', 1, 1, 64, 64))).repeat(1, channels, 1, 1)))
    found = [[plane[pixel].item() for pixel in PIXELS] for plane in logits[0]]
    np.testing.assert_allclose(found, LOGITS, rtol=1e-7, atol=1e-9)


def test_swinunets_encoder_is_timms_swin():
    torch.manual_seed(0)
    encoder = SwinUNet(channels=3, img_size=64, sizes=dict(window_size=2, **SMALL_SWIN)).eval()
    timms = SwinTransformer(img_size=64, window_size=2, depths=(2, 2, 2, 2), num_classes=0, **SMALL_SWIN).eval()
    timms.load_state_dict({name: value for name, value in encoder.model.state_dict().items()
                           if not name.startswith('decoder.')})
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.model.encode(image)[0], timms.forward_features(image))


# Stages

@pytest.mark.parametrize('height, width', [(64, 64), (96, 32)])
def test_shapes_of_every_stage(height, width):
    maps = TransUNet(img_size=(height, width), sizes=SMALL)(torch.randn(2, 1, height, width))
    strides = {2: 32, 4: 128, 8: 256, 16: 48}
    assert [tuple(each.shape) for each in maps] == [(2, channels, height // stride, width // stride)
                                                    for stride, channels in strides.items()]
    head = TransUNetHead(**SMALL_HEAD)
    seen = [head.conv_tokens(maps[-1]).shape]
    for step in head.steps:
        step.register_forward_hook(lambda _, inputs, out: seen.append(out.shape))
    assert head(maps).shape == (2, 3, height, width)
    assert [tuple(shape[1:]) for shape in seen] == [
        (channels, height // stride, width // stride)
        for stride, channels in ((16, 512), (8, 32), (4, 24), (2, 16), (1, 8))]

    encoder = SwinUNet(img_size=(height, width), sizes=SMALL_SWIN)
    seen = []
    for stage in (*encoder.model.layers, *encoder.model.decoder):
        for block in stage.blocks:
            block.register_forward_hook(lambda _, inputs, out: seen.append(tuple(out.shape[1:])))
    [features] = encoder(torch.randn(2, 1, height, width))
    levels = [(height // stride, width // stride, 12 * stride // 4) for stride in (4, 8, 16, 32)]
    assert seen == [level for level in (*levels, *levels[2::-1]) for _ in range(2)]  # two blocks in each stage
    assert SwinUNetHead(12, 12, num_classes=3)([features]).shape == (2, 3, height, width)


@pytest.mark.parametrize('config', ['transunet_phantom', 'swinunet_phantom'])
def test_gradients_reach_every_parameter(config):
    cfg, _ = load_model_config(REPO / 'configs' / f'{config}.py')
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    logits = model.decode_head(model.backbone(torch.randn(2, 1, 64, 64)))
    assert logits.shape == (2, cfg.model.decode_head.num_classes, 64, 64)
    torch.nn.functional.cross_entropy(logits, torch.randint(logits.shape[1], (2, 64, 64))).backward()
    assert [name for name, parameter in model.named_parameters()
            if parameter.grad is None or not parameter.grad.any()] == []


# TransUNet's traps

@pytest.fixture(scope='module')
def transunet():
    return on_meta('transunet_bcv')


def test_its_resnet_is_standardized_post_activated_and_normed_as_published(transunet):
    resnet = transunet.backbone.model.patch_embed.backbone
    assert [len(stage.blocks) for stage in resnet.stages] == [3, 4, 9]
    convolutions = [module for module in resnet.modules() if isinstance(module, nn.Conv2d)]
    assert all(isinstance(each, StdConv2d) and each.eps == 1e-5 and each.bias is None for each in convolutions)
    assert all(each.padding == ((each.kernel_size[0] - 1) // 2,) * 2 for each in convolutions)
    shortcuts = [stage.blocks[0].downsample.norm for stage in resnet.stages]
    assert [(norm.num_groups, norm.num_channels, norm.eps) for norm in shortcuts] == [
        (width, width, 1e-5) for width in (256, 512, 1024)]
    norms = [module for module in resnet.modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_groups, norm.eps) for norm in norms if norm not in shortcuts} == {(32, 1e-6)}
    unit = TransUNet(img_size=32, sizes=SMALL).model.patch_embed.backbone.stages[1].blocks[1]
    assert unit(torch.randn(1, 256, 4, 4)).min() == 0  # after the sum, too


def test_its_skips_are_of_the_root_before_the_pool_and_padded_with_zeros():
    torch.manual_seed(0)
    encoder = TransUNet(img_size=64, sizes=SMALL).eval()
    stem, image = encoder.model.patch_embed.backbone.stem, torch.randn(1, 1, 64, 64)
    root, quarter, eighth, _ = encoder(image)
    torch.testing.assert_close(root, stem.norm(stem.conv(image)))
    assert stem.pool(root).shape[2:] == (15, 15)
    assert not quarter[:, :, -1].any() and not quarter[:, :, :, -1].any() and quarter[:, :, :-1, :-1].any()
    assert eighth[:, :, -1].any() and eighth[:, :, :, -1].any()


def test_its_decoder_has_skips_512_256_64_0_and_enlarges_corners_on_corners(transunet):
    published = transunet.decode_head
    assert [step[0].in_channels for step in published.steps] == [512 + 512, 256 + 256, 128 + 64, 64 + 0]
    assert published.conv_seg.kernel_size == (3, 3) and published.conv_seg.bias is not None
    head, seen = TransUNetHead(**SMALL_HEAD), []
    head.steps[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head.steps[-2].register_forward_hook(lambda _, inputs, out: seen.append(out))
    head([torch.randn(2, channels, side, side) for channels, side in zip((32, 128, 256, 48), (32, 16, 8, 4),
                                                                         strict=True)])
    before, after = seen
    torch.testing.assert_close(before[:, :, ::31, ::31], after[:, :, ::63, ::63])


def test_its_dropout_is_of_tokens_and_mlps(transunet):
    vit = transunet.backbone.model
    assert {(block.mlp.drop1.p, block.mlp.drop2.p, block.attn.proj_drop.p, block.attn.attn_drop.p)
            for block in vit.blocks} == {(0.1, 0.1, 0.0, 0.0)} and vit.pos_drop.p == 0.1
    assert not hasattr(vit, 'cls_token') and vit.pos_embed.shape == (1, 32 * 32, 768)


@pytest.mark.parametrize('grid', [(4, 4), (2, 6), (3, 3)])
def test_positions_are_resized_as_scipy_zooms_them(grid):
    table = torch.randn(1, 10, 5, dtype=torch.float64)
    wanted = zoom(table[0, 1:].reshape(3, 3, 5).numpy(), (grid[0] / 3, grid[1] / 3, 1), order=1)
    for given in (table, table[:, 1:]):
        found = resize_absolute_table(given, grid)[0].numpy()
        np.testing.assert_allclose(found, wanted.reshape(-1, 5), atol=1e-12)


def test_positions_of_the_same_oblong_grid_are_taken_and_of_another_refused():
    table = torch.randn(1, 2 * 6, 5)
    assert torch.equal(resize_absolute_table(table, (2, 6)), table)
    with pytest.raises(ValueError, match='12 positions are not of a square grid'):
        resize_absolute_table(table, (4, 4))
    offsets = torch.randn(3 * 11 + 3, 4)
    assert torch.equal(resize_beit_table(offsets, (2, 6)), offsets)
    with pytest.raises(ValueError, match='36 rows are not a square grid'):
        resize_beit_table(offsets, (4, 4))


# SwinUNet's traps

def test_its_classifier_has_no_bias_and_its_decoder_the_encoders_drop_path():
    model = on_meta('swinunet_bcv')
    assert model.decode_head.conv_seg.bias is None and model.decode_head.conv_seg.kernel_size == (1, 1)
    encoder = model.backbone
    assert encoder.sizes['window_size'] == (12, 12) and len(encoder.model.decoder) == 3
    for own, mirrored in zip(encoder.model.layers, encoder.model.decoder, strict=False):
        assert len(own.blocks) == len(mirrored.blocks) == 2
        for block, other in zip(own.blocks, mirrored.blocks, strict=True):
            assert getattr(block.drop_path1, 'drop_prob', 0) == getattr(other.drop_path1, 'drop_prob', 0)
            assert (block.shift_size, block.window_size) == (other.shift_size, other.window_size)
    assert encoder.model.layers[3].blocks[1].drop_path1.drop_prob == pytest.approx(0.2)
    assert encoder.model.layers[3].blocks[1].shift_size == (0, 0)  # one window is the whole map
    assert encoder.model.layers[2].blocks[1].shift_size == (6, 6)


def test_a_token_becomes_a_square_of_tokens():
    expand = PatchExpand(4, 2, 2)
    expand.norm = nn.Identity()
    expand.expand.weight.data = torch.arange(32.0).reshape(8, 4)
    tokens = torch.randn(1, 2, 3, 4)
    out, wide = expand(tokens), expand.expand(tokens)
    for down in (0, 1):
        for right in (0, 1):
            first = 2 * (2 * down + right)
            torch.testing.assert_close(out[:, down::2, right::2], wide[..., first:first + 2])


# Sizes and sources

@pytest.mark.parametrize('build, message', [
    (lambda: TransUNet(img_size=100), 'TransUNet: input size 100 is no multiple of 16; set .* to 96 or 112$'),
    (lambda: TransUNet(slices=5), 'TransUNet takes windows of 1 slice, not 5; set experiment.slices to 1$'),
    (lambda: TransUNet(sizes=dict(dept=3)), "sizes: TransUNet takes no 'dept'; did you mean 'depth'"),
    (lambda: SwinUNet(img_size=(224, 100)), 'SwinUNet: input size 100 is no multiple of 32; set .* to 96 or 128$'),
    (lambda: SwinUNet(img_size=384, sizes=dict(window_size=7)),
     'input size 384 is no multiple of 32 x window 7; set .* to 224 or 448, or leave sizes.window_size out$'),
    (lambda: SwinUNet(sizes=dict(windows=7)), "sizes: SwinUNet takes no 'windows'; did you mean 'window_size'")])
def test_what_does_not_fit_is_one_line(build, message):
    with pytest.raises(UserError, match=message) as caught, torch.device('meta'):
        build()
    assert '\n' not in str(caught.value)


def test_googles_archive_loads_wholly(googles):
    arrays = dict(np.load(googles))
    encoder = TransUNet(img_size=64, source=str(googles), sizes=SMALL)
    encoder.init_weights()
    report = encoder.load_report
    assert report.inflated == ['patch_embed.backbone.stem.conv.weight'] and report.resized == ['pos_embed']
    assert set(report.dropped) == {'cls_token', *(f'{part}.{kind}' for part in ('head', 'pre_logits.fc')
                                                  for kind in ('weight', 'bias'))}
    merged = 2 * 2 * SMALL['depth']  # query, key and value are one
    assert len(report.loaded) + 2 + len(report.dropped) == len(arrays) - merged and not report.missing
    wanted = arrays['block2/unit2/conv3/kernel'].transpose(3, 2, 0, 1).astype(np.float32)
    state = encoder.model.state_dict()
    assert (state['patch_embed.backbone.stages.1.blocks.1.conv3.weight'].numpy() == wanted).all()
    assert set(report.loaded) | {'pos_embed', *report.inflated} == set(state)


def test_timms_copy_of_googles_archive_has_the_names_of_transunets_model(transunet):
    with torch.device('meta'):
        timms = timm.create_model('vit_base_r50_s16_224', num_classes=0)
    assert {*transunet.backbone.model.state_dict(), 'cls_token'} == set(timms.state_dict())


def test_random_inflation_leaves_the_first_kernel_fresh(googles):
    encoder = TransUNet(img_size=64, source=str(googles), inflation='random', sizes=SMALL)
    encoder.init_weights()
    assert encoder.load_report.missing == ['patch_embed.backbone.stem.conv.weight']
    assert set(encoder.load_report.missing) < set(encoder.load_report.dropped) and (encoder.gain == 1).all()


def test_ones_own_checkpoint_keeps_its_gain(googles, tmp_path):
    encoder = TransUNet(img_size=64, source=str(googles), sizes=SMALL)
    encoder.init_weights()
    assert (encoder.gain != 1).any()
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in encoder.state_dict().items()},
                'meta': dict(carried=dict(data=dict(channels=1)))}, tmp_path / 'own.pth')
    again = TransUNet(img_size=64, source=str(tmp_path / 'own.pth'), sizes=SMALL)
    again.init_weights()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in encoder.state_dict().items())


def test_googles_plain_vit_starts_an_inflated_one(googles, tmp_path):
    arrays = {name: value for name, value in np.load(googles).items()
              if not name.startswith(('block', 'conv_root', 'gn_root'))}
    arrays['embedding/kernel'] = seeded('embedding/kernel', 8, 8, 3, 48)
    np.savez(tmp_path / 'ViT.npz', **arrays)
    vit = InflatedViT('vit_base_patch16_224', source=str(tmp_path / 'ViT.npz'), img_size=24,
                      out_indices=(0, 0, 1, 1), sizes=dict(patch_size=8, embed_dim=48, depth=2, num_heads=4))
    vit.init_weights()
    assert not vit.load_report.missing and not vit.load_report.resized
    with pytest.raises(UserError, match="no key 'patch_embed.backbone.stem.conv.weight', so no encoder"):
        TransUNet(img_size=64, source=str(tmp_path / 'ViT.npz'), sizes=SMALL).init_weights()


def swin_as_published(depths=(2, 2, 4, 2)):
    """A Swin's state dict with window 2 in its authors' naming, buffers and head included."""
    torch.manual_seed(0)
    timms = SwinTransformer(img_size=64, window_size=2, depths=depths, num_classes=9, **SMALL_SWIN)
    state = {re.sub(r'layers\.(\d)\.downsample', lambda m: f'layers.{int(m[1]) - 1}.downsample', key).replace(
        'head.fc', 'head'): value for key, value in timms.state_dict().items()}
    return state | {'layers.0.blocks.0.attn.relative_position_index': torch.zeros(4, 4, dtype=torch.long),
                    'layers.0.blocks.1.attn_mask': torch.zeros(64, 4, 4)}


@pytest.mark.parametrize('window', [2, 4])
def test_an_encoder_stage_starts_its_mirror_and_every_key_is_accounted_for(tmp_path, window):
    published = swin_as_published()
    torch.save(dict(model=published), tmp_path / 'swin.pth')
    encoder = SwinUNet(img_size=128, source=str(tmp_path / 'swin.pth'),
                       sizes=dict(window_size=window, **SMALL_SWIN))
    encoder.init_weights()
    report, state = encoder.load_report, encoder.model.state_dict()
    assert sorted([*report.loaded, *report.resized, *report.inflated]) == sorted(state) and not report.missing
    tables = [key for key in state if key.endswith('relative_position_bias_table')]
    assert sorted(report.resized) == sorted(tables) * (window == 4) and len(tables) == 14
    beyond = {key for key in published if re.match(r'layers\.2\.blocks\.[23]\.', key)}
    assert set(report.dropped) == beyond | {'head.fc.weight', 'head.fc.bias', 'layers.0.blocks.1.attn_mask',
                                            'layers.0.blocks.0.attn.relative_position_index'}
    assert {report.dropped[key] for key in beyond} == {'block beyond those of its stage, (2, 2, 2, 2)'}
    for key, value in state.items():
        if key.startswith('decoder.'):
            assert torch.equal(value, state[key.replace('decoder.', 'layers.', 1)]), key
    assert torch.equal(state['layers.2.blocks.1.mlp.fc1.weight'], published['layers.2.blocks.1.mlp.fc1.weight'])
    assert torch.equal(state['layers.3.downsample.norm.bias'], published['layers.2.downsample.norm.bias'])


@pytest.mark.parametrize('method, file', [('transunet', 'R50+ViT-B_16.npz'),
                                          ('swinunet', 'swin_tiny_patch4_window7_224.pth')])
def test_a_file_that_is_not_there_is_named(prepared, method, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for recipe in ('bcv', 'matched_bcv'):
        cfg = load_config(REPO / 'configs' / f'{method}_{recipe}.py', {'experiment.data_root': str(prepared)})
        with pytest.raises(UserError, match=f'^weights/{re.escape(file)}: source checkpoint not found'):
            check_start(cfg, 1)
        cfg.experiment.source = None
        assert 'source none (random weights)' in check_start(cfg, 1)


def test_a_window_through_swinunet_is_its_centre_slice_by_centering(tmp_path):
    torch.save(dict(model=swin_as_published()), tmp_path / 'swin.pth')
    settings = dict(img_size=64, source=str(tmp_path / 'swin.pth'), sizes=dict(window_size=2, **SMALL_SWIN))
    flat, deep = SwinUNet(channels=3, inflation='none', **settings), SwinUNet(slices=3, **settings)
    for encoder in (flat.double().eval(), deep.double().eval()):
        encoder.init_weights()
    fresh = {name: value for name, value in flat.state_dict().items() if not name.startswith('model.')}
    deep.load_state_dict(fresh, strict=False)
    window = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        [found], [wanted] = deep(window), flat(window[:, 1:2].expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


# Recipes

def test_intensities_are_clipped_and_scaled_as_a_recipe_says():
    class Sample:
        intensity_range = [(-175.0, 250.0)]

        def get(self, _, default):
            return default

    windows = torch.tensor([-1000, -125, 75, 275, 3000], dtype=torch.int16).reshape(1, 1, 5)
    data = dict(inputs=[windows], data_samples=[Sample()])
    usual, own = WindowPreProcessor(), WindowPreProcessor(clip=(-125, 275), scaled=(0, 1))
    assert own(dict(data))['inputs'].flatten().tolist() == [0, 0, 0.5, 1, 1]
    assert usual(dict(data))['inputs'].flatten().tolist()[::4] == [-1, 1]
    with pytest.raises(UserError, match=r'clip=\(275, -125\) must be two numbers, the lower first'):
        WindowPreProcessor(clip=(275, -125))
