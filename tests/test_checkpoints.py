import argparse

import pytest
import torch
from safetensors.torch import save_file

from mmseg_plugins.errors import UserError
from mmseg_plugins.models import InflatedViT

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


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': {f'backbone.{k}': v for k, v in
                                                                         s.items()}},
                                  lambda s: {'teacher': {f'module.{k}': v for k, v in s.items()}}])
def test_usual_containers(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / 'a.pth')
    assert not load(tmp_path / 'a.pth').missing


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


def test_safetensors(tmp_path, state):
    save_file(state, tmp_path / 'a.safetensors')
    assert not load(tmp_path / 'a.safetensors').missing


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


@pytest.mark.parametrize('spoil, message', [
    (_renamed, 'wieght'), (_missing, 'blocks.1.mlp.fc1.bias'), (_wrong_shape, r'\(7,\)'),
    (_truncated, 'a.pth'), (_hostile, 'refused'), (_no_kernel, 'patch_embed.proj.weight'),
    (lambda state, path: None, 'not found')])
def test_bad_files_are_refused_whole(tmp_path, state, spoil, message):
    spoil(state, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / 'a.pth')
    assert '\n' not in str(caught.value)
