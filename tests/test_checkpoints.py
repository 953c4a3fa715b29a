import argparse
import gzip
import io
import zipfile

import numpy as np
import pytest
import timm
import torch
from published import FORMATS, NARROW, dinov3
from safetensors.torch import save

from mmseg_plugins import checkpoints
from mmseg_plugins.compat import describe_timm_model
from mmseg_plugins.errors import UserError
from mmseg_plugins.models import InflatedSwin, InflatedViT, VideoSwin

MINI = dict(img_size=32, out_indices=(0, 1, 1, 1), slices=3,
            sizes=dict(patch_size=8, embed_dim=24, depth=2, num_heads=3))


@pytest.fixture
def state():
    torch.manual_seed(0)
    return InflatedViT(**{**MINI, 'slices': 1, 'channels': 3}).model.state_dict()


def load(path, **kwargs):
    encoder = InflatedViT(**{**MINI, 'source': str(path), **kwargs})
    before = {k: v.clone() for k, v in encoder.model.state_dict().items()}
    try:
        encoder.init_weights()
    except UserError:
        assert all(torch.equal(v, before[k]) for k, v in encoder.model.state_dict().items())
        raise
    return encoder.load_report


def test_every_key_is_accounted_for(tmp_path, state):
    extra = {'head.weight': torch.zeros(2, 2), 'mask_token': torch.zeros(1, 1, 24),
             'blocks.0.attn.relative_position_index': torch.zeros(4, 4)}
    torch.save({'model': {**state, **extra}}, tmp_path / 'a.pth')
    report = load(tmp_path / 'a.pth')
    assert set(report.dropped) == set(extra) and report.inflated == ['patch_embed.proj.weight']
    assert set(report.loaded) | set(report.inflated) == set(state) and not report.missing


def test_position_tables_are_resized_and_reported(tmp_path, state):
    torch.save({'model': state}, tmp_path / 'a.pth')
    report = load(tmp_path / 'a.pth', img_size=64)
    assert len(report.resized) == 2 and all('relative_position_bias' in k for k in report.resized)


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize('prefix', [
    '', 'module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'model.', 'net.', 'image_encoder.',
    'model._orig_mod.backbone.', 'backbone.model.', 'encoder.', 'teacher.module.backbone.'])
@pytest.mark.parametrize('container', ['', 'state_dict', 'model', 'teacher', 'model_state_dict', 'module'])
def test_wrappers_of_any_name_and_order(tmp_path, state, prefix, container):
    content = prefixed(prefix, state)
    torch.save({container: content, 'epoch': 3} if container else content, tmp_path / 'a.pth')
    report = load(tmp_path / 'a.pth')
    assert not report.missing and not report.dropped
    assert report.root == (f'{container}.' if container else '') + prefix


@pytest.mark.parametrize('taken, left', [
    ('teacher.', 'student.'), ('model_ema.', 'model.'), ('state_dict_ema.', 'state_dict.'),
    ('encoder.module.', 'target_encoder.module.'), ('module.base_encoder.', 'module.momentum_encoder.'),
    ('state_dict.backbone.model.', 'state_dict.student.')])
def test_of_several_encoders_the_published_one_is_taken(tmp_path, state, taken, left):
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save(prefixed(left, other) | prefixed(taken, state), tmp_path / 'a.pth')
    encoder = InflatedViT(**MINI, source=str(tmp_path / 'a.pth'))
    encoder.init_weights()
    assert torch.equal(encoder.model.blocks[1].mlp.fc1.weight, state['blocks.1.mlp.fc1.weight'])
    assert encoder.load_report.root == taken and len(encoder.load_report.dropped) == 1


def test_several_encoders_that_no_rule_decides_between_are_named(tmp_path, state):
    torch.save(prefixed('left.', state) | prefixed('right.', state), tmp_path / 'a.pth')
    with pytest.raises(UserError, match="several encoders, below 'left.', 'right.'"):
        load(tmp_path / 'a.pth')


@pytest.mark.parametrize('name, size, publish', FORMATS)
def test_published_formats_give_timms_own_features(tmp_path, name, size, publish):
    """At twice their size, so that tables are resized; SAM's timm does not resize."""
    torch.manual_seed(0)
    source = timm.create_model(name, img_size=size, num_classes=0, **NARROW)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = publish(source.state_dict())
    torch.save(state, tmp_path / 'a.pth')
    size *= 1 if 'sam' in name else 2
    reference = timm.create_model(name, img_size=size, num_classes=0, **NARROW).eval()
    filtered = describe_timm_model(name, img_size=size, **NARROW)[1](dict(state.get('model', state)), reference)
    assert not reference.load_state_dict(filtered, strict=False).missing_keys
    ours = InflatedViT(name, slices=1, channels=3, inflation='none', source=str(tmp_path / 'a.pth'), img_size=size,
                       out_indices=(0, 1, 2, 2), sizes=NARROW).eval()
    ours.init_weights()
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        wanted = reference.forward_intermediates(image, indices=[0, 1, 2], norm=False, intermediates_only=True)
        for a, b in zip(ours(image), wanted, strict=False):
            torch.testing.assert_close(a, b)


def test_biases_that_the_model_has_no_place_for_are_said(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(checkpoints, 'print_log', lambda line, **_: lines.append(line))
    name = 'vit_small_patch16_dinov3_qkvb'
    state = timm.create_model(name, img_size=64, num_classes=0, **NARROW).state_dict()
    for fill, said in ((0.0, False), (0.1, True)):
        for key in state:
            if key.endswith('q_bias'):
                state[key].fill_(fill)
        torch.save(dinov3(dict(state)), tmp_path / 'a.pth')
        encoder = InflatedViT(name.removesuffix('_qkvb'), slices=1, source=str(tmp_path / 'a.pth'), img_size=64,
                              out_indices=(0, 1, 2, 2), sizes=NARROW)
        encoder.init_weights()
        assert ['its attention has biases' in line for line in lines] == [True] * said


def test_dinos_full_checkpoint_with_its_options(tmp_path):
    """Student, teacher, heads and an argparse.Namespace, as DINO's training writes them."""
    torch.manual_seed(0)
    vit = InflatedViT('vit_base_patch16_224', **{**MINI, 'slices': 1, 'channels': 3}).model.state_dict()
    teacher = {f'backbone.{key}': value for key, value in vit.items()} | {'head.mlp.0.weight': torch.zeros(2, 2)}
    student = {f'module.{key}': torch.zeros_like(value) for key, value in teacher.items()}
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(student=student, teacher=teacher, epoch=3, args=argparse.Namespace(arch='vit_base')), path)
    encoder = InflatedViT('vit_base_patch16_224', **{**MINI, 'img_size': 48, 'source': path})
    encoder.init_weights()
    assert encoder.load_report.resized == ['pos_embed']
    assert encoder.load_report.dropped.keys() == {'student.*', 'teacher.head.*'}
    assert torch.equal(encoder.model.blocks[1].mlp.fc1.weight, vit['blocks.1.mlp.fc1.weight'])
    # the class token's position comes first and is not resized
    assert torch.equal(encoder.model.pos_embed[:, 0], vit['pos_embed'][:, 0])


def test_beit_ssls_shared_table_is_given_to_every_block(tmp_path, state):
    tables = [key for key in state if key.endswith('relative_position_bias_table')]
    shared = torch.randn_like(state[tables[0]])
    for key in tables:
        del state[key]
    torch.save({'model': state | {'rel_pos_bias.relative_position_bias_table': shared}}, tmp_path / 'a.pth')
    encoder = InflatedViT(**MINI, source=str(tmp_path / 'a.pth'))
    encoder.init_weights()
    assert all(torch.equal(block.attn.relative_position_bias_table, shared) for block in encoder.model.blocks)


def test_oblong_images_resize_each_axis_by_itself(tmp_path, state):
    tables = [key for key in state if key.endswith('relative_position_bias_table')]
    for key in tables:  # a function of the vertical offset alone stays one
        offsets = torch.arange(-3.0, 4).repeat_interleave(7)[:, None].expand(-1, 3)
        state[key] = torch.cat([offsets, torch.zeros(3, 3)])
    torch.save(state, tmp_path / 'a.pth')
    encoder = InflatedViT(**{**MINI, 'img_size': (32, 64), 'source': str(tmp_path / 'a.pth')})
    encoder.init_weights()
    table = encoder.model.blocks[0].attn.relative_position_bias_table.detach()[:-3].reshape(7, 15, 3)
    torch.testing.assert_close(table, torch.arange(-3.0, 4)[:, None, None].expand(-1, 15, 3))


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize('name', ['a.safetensors', 'a.pth', 'a.bin', 'a'])
@pytest.mark.parametrize('write', [saved, save])
def test_the_content_tells_the_format(tmp_path, state, write, name):
    (tmp_path / name).write_bytes(write(state))
    assert not load(tmp_path / name).missing


def zipped(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr(name, b'1')
    return buffer.getvalue()


def arrays():
    buffer = io.BytesIO()
    np.savez(buffer, kernel=np.array([print]))  # whose reading would unpickle
    return buffer.getvalue()


@pytest.mark.parametrize('content, what, remedy', [
    (b'', 'it is empty', 'download it again'), (b'\n<!DOCTYPE html><html></html>', 'HTML', 'direct link'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'Git LFS pointer', 'git lfs pull'),
    (gzip.compress(b'1', mtime=0), 'gzip', 'gunzip'), (b'\x89HDF\r\n\x1a\n', 'HDF5', 'PyTorch file'),
    (b'\x08\x07\x12\x07pytorch\x1a\x03', 'ONNX', 'PyTorch file'), (b'{"weight_map": {}}', 'JSON', 'name the file'),
    (arrays(), 'allow_pickle=False', 'take another'), (zipped('a/weights.ckpt'), 'zip archive', 'unpack'),
    (zipped('a/constants.pkl'), 'TorchScript', 'state_dict()'),
    (saved({'a': torch.zeros(9)})[:-30], 'end is missing', 'download it again'),
    (save({'a': torch.zeros(9)})[:-9], 'cannot be read', 'download it again')])
@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_a_file_of_another_format_is_called_what_it_is(tmp_path, content, what, remedy, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=what) as caught:
        load(tmp_path / name)
    assert remedy in str(caught.value) and str(caught.value).isprintable()


def test_a_folder_is_told_from_a_missing_file(tmp_path):
    (tmp_path / 'weights.pth').touch()
    with pytest.raises(UserError, match='is a folder; name the checkpoint in it, e.g. .*weights.pth'):
        load(tmp_path)


def test_ones_own_checkpoint_is_a_source_as_it_is(tmp_path):
    """The kernel of a trained segmentor is not inflated again: three slices are no colours, colours no slices."""
    def save_own(encoder, channels=1):
        path = tmp_path / f'{len(list(tmp_path.iterdir()))}.pth'
        torch.save({'state_dict': {f'module.backbone.{key}': value for key, value in encoder.state_dict().items()},
                    'meta': dict(carried=dict(data=dict(channels=channels)))}, path)
        return path

    own = InflatedViT(**MINI)
    encoder = InflatedViT(**MINI, source=str(path := save_own(own)), inflation='average')
    encoder.init_weights()
    assert torch.equal(encoder.model.patch_embed.proj.weight, own.model.patch_embed.proj.weight)
    assert 'patch_embed.proj.weight' in encoder.load_report.loaded and not encoder.load_report.inflated
    assert load(path, inflation='random').missing == ['patch_embed.proj.weight', 'patch_embed.proj.bias']
    for others in (dict(slices=5), dict(slices=1, channels=3)):
        with pytest.raises(UserError, match='inflated already, to 3 slices and 1 channels'):
            load(path, **others)
    with pytest.raises(UserError, match='inflation separable starts from a 2D one'):
        load(path, inflation='separable')
    two = save_own(InflatedViT(**MINI | dict(channels=2)), 2)
    with pytest.raises(UserError, match='to 3 slices and 2 channels, and the encoder takes 2 and 3'):
        load(two, slices=2, channels=3)
    for flat, channels in ((dict(slices=1), 1), (dict(slices=1, channels=3), 3)):  # grey, and colours
        report = load(save_own(InflatedViT(**MINI | flat), channels))
        assert report.inflated == ['patch_embed.proj.weight']
    several = dict(slices=1, channels=3)  # of one slice, whose channels are no colours for its like
    assert not load(save_own(InflatedViT(**MINI | several), 3), **several).inflated
    with pytest.raises(UserError, match='merge it first'):
        load(save_own(InflatedViT(**MINI, tuning='lora(2)')))
    sizes = dict(embed_dim=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4), window_size=(2, 4, 4))
    video = VideoSwin(channels=4, sizes=sizes)  # four sequences of MRI, each with a kernel of its own
    for channels in (4, 1):
        encoder = VideoSwin(channels=channels, sizes=sizes, source=str(save_own(video, 4)))
        encoder.init_weights()
        kernels = [each.model.patch_embed.proj.weight for each in (video, encoder)]
        assert torch.equal(*kernels) if channels == 4 else torch.allclose(kernels[0].sum(1, True), kernels[1])
    flat = dict(sizes, window_size=4)  # a 2D one of colours is inflated as any other
    swin = InflatedSwin(slices=1, channels=3, img_size=128, sizes=flat)
    encoder = VideoSwin(channels=3, sizes=sizes, source=str(save_own(swin, 3)))
    encoder.init_weights()
    assert 'patch_embed.proj.weight' in encoder.load_report.inflated


@pytest.mark.parametrize('keys, what', [
    (['layer1.0.conv1.weight', 'conv1.weight'], 'a ResNet'), (['decode_head.conv_seg.weight'], 'decoder'),
    (['vit.embeddings.patch_embeddings.projection.weight'], 'Hugging Face'),
    (['backbone.patch_embed.projection.weight', 'backbone.layers.0.ffn.layers.0.0.weight'], 'mmpretrain'),
    (['downsample_layers.0.0.weight', 'stages.0.0.dwconv.weight'], 'ConvNeXt'),
    (['a.b'], r'its keys are state_dict\.a\.b')])
def test_a_checkpoint_of_another_kind_is_called_what_it_resembles(tmp_path, keys, what):
    torch.save({'state_dict': {key: torch.zeros(2, 3, 4, 4) for key in keys}}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=what):
        load(tmp_path / 'a.pth')


def test_another_models_tables_are_told_by_what_the_file_lacks(tmp_path):
    torch.save(timm.create_model('vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=24, depth=2,
                                 num_heads=3).state_dict(), tmp_path / 'vit.pth')
    with pytest.raises(UserError, match=r"of another model \(it lacks 'blocks\.0\.attn\.q_bias'\)"):
        load(tmp_path / 'vit.pth')


def test_an_optimizers_state_is_no_source(tmp_path):
    torch.save({'state': {0: {'exp_avg': torch.zeros(3)}}, 'param_groups': []}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='an optimizer\'s state alone'):
        load(tmp_path / 'a.pth')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_and_not_rounded_further(tmp_path, state, dtype):
    stored = {key: value.to(dtype) for key, value in state.items()}
    for number, content in enumerate((stored, {key: value.float() for key, value in stored.items()})):
        torch.save(content, tmp_path / f'{number}.pth')
    first, second = (InflatedViT(**{**MINI, 'img_size': 64}, source=str(tmp_path / f'{number}.pth'))
                     for number in range(2))
    first.init_weights()
    second.init_weights()
    for key, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[key], rtol=1e-6, atol=1e-7)


class Evil:
    def __reduce__(self):
        return (open, ('/tmp/never_written', 'w'))


def _renamed(state, path):
    state['blocks.0.norm1.wieght'] = state.pop('blocks.0.norm1.weight')
    torch.save(state, path)


def _missing(state, path):
    del state['blocks.1.mlp.fc1.bias']
    torch.save(state, path)


def _wrong_shape(state, path):
    state['blocks.1.mlp.fc1.bias'] = torch.zeros(7)
    torch.save(state, path)


def _truncated(state, path):
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:1000])


def _hostile(state, path):
    torch.save({'model': Evil()}, path)


def _no_kernel(state, path):
    del state['patch_embed.proj.weight']
    torch.save(state, path)


def _not_finite(value, key):
    def spoil(state, path):
        state[key].view(-1)[0] = value
        torch.save(state, path)
    return spoil


def _quantized(state, path):
    torch.save(state | {'blocks.1.mlp.fc1.weight': state['blocks.1.mlp.fc1.weight'].to(torch.int8)}, path)


def _other_patch(state, path):
    torch.save(state | {'patch_embed.proj.weight': torch.zeros(24, 3, 16, 16)}, path)


def _deeper(state, path):
    torch.save(state | {key.replace('blocks.1.', 'blocks.2.'): value for key, value in state.items()}, path)


def _shallower(state, path):
    torch.save({key: value for key, value in state.items() if not key.startswith('blocks.1.')}, path)


@pytest.mark.parametrize('spoil, message', [
    (_not_finite(float('nan'), 'patch_embed.proj.weight'), 'patch_embed.proj.weight.*NaN'),
    (_not_finite(float('inf'), 'blocks.1.mlp.fc1.bias'), 'blocks.1.mlp.fc1.bias.*infinite'),
    (_quantized, 'int8'), (_other_patch, r'\(24, 3, 16, 16\).*8 x 8'),
    (_deeper, 'the file has 3 blocks, the encoder 2'), (_shallower, 'the file has 1 blocks, the encoder 2'),
    (_renamed, 'wieght'), (_missing, 'blocks.1.mlp.fc1.bias'), (_wrong_shape, r'\(7,\)'),
    (_truncated, 'a.pth'), (_hostile, 'refused'), (_no_kernel, 'patch_embed.proj.weight'),
    (lambda state, path: None, 'not found')])
def test_bad_files_are_refused_whole(tmp_path, state, spoil, message):
    spoil(state, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / 'a.pth')
    assert '\n' not in str(caught.value)
