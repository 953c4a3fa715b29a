"""Inflated checkpoints as standalone files, and the proof that comes with them."""

import re
import subprocess
import sys

import children
import pytest
import timm
import torch
from conftest import REPO
from safetensors.torch import load_file

from mmseg_plugins.certificate import build_encoder, certify
from mmseg_plugins.errors import UserError
from mmseg_plugins.models import InflatedSwin, InflatedViT, VideoSwin
from mmseg_plugins.models.encoders import timm_encoder

SWIN = dict(embed_dim=8, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4))
VIT = dict(patch_size=16, embed_dim=64, depth=12, num_heads=1)
MADE = {
    'beit': lambda: InflatedViT('beit_base_patch16_224', slices=1, channels=3, img_size=64, sizes=VIT),
    'dino': lambda: InflatedViT('vit_base_patch16_224', slices=1, channels=3, img_size=64, sizes=VIT),
    'swin': lambda: InflatedSwin(slices=1, channels=3, img_size=64, sizes=SWIN),
    'videoswin': lambda: VideoSwin(slices=5, channels=3, img_size=64, sizes=SWIN),
}


@pytest.fixture(scope='module', params=MADE)
def made(request, tmp_path_factory):
    """A checkpoint of random weights, and the encoder's name."""
    torch.manual_seed(0)
    model = MADE[request.param]()
    for parameter in model.parameters():
        if parameter.ndim < 3:
            torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp('source') / f'{request.param}.pth'
    torch.save({'model': model.model.state_dict()}, path)
    if request.param == 'videoswin':  # its authors' names
        state = {}
        for key, value in model.model.state_dict().items():
            key = re.sub(r'^features\.(\d+)\.(\d+)\.', lambda m: f'layers.{int(m[1]) // 2}.blocks.{m[2]}.', key)
            key = re.sub(r'^features\.(\d+)\.', lambda m: f'layers.{int(m[1]) // 2}.downsample.', key)
            state[f'backbone.{key.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")}'] = value
        torch.save({'state_dict': state}, path)
    return request.param, path


def test_a_standalone_file_gives_the_same_features_without_this_package(made, tmp_path):
    encoder, path = made
    out = tmp_path / 'inflated.safetensors'
    command = [sys.executable, str(REPO / 'tools/inflate.py'), str(path), '--encoder', encoder, '--slices', '3',
               '--img-size', '96', '--out', str(out)]
    result = children.run(command)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.strip().splitlines()
    assert lines[-1] == str(out) and 'none unexplained' in result.stdout
    [difference] = [float(line.split('difference ')[1].split()[0]) for line in lines if 'random windows' in line]
    assert difference < 1e-5
    start = next(number for number, line in enumerate(lines) if line.startswith(('import timm', 'from torch')))
    snippet = '\n'.join([*lines[start:-1], 'assert "mmseg_plugins" not in __import__("sys").modules'])
    assert subprocess.run([sys.executable, '-c', snippet], capture_output=True, cwd=tmp_path).returncode == 0
    weights = load_file(out)
    again = build_encoder(path, encoder, 3, 1, 'centering', 96)
    for key, value in again.model.state_dict().items():
        assert torch.equal(weights[key], value)


@pytest.mark.parametrize('method, centre, constant', [
    ('centering', True, True), ('average', False, True), ('gaussian(0.7)', False, True),
    ('repeat', False, False), ('random', False, False)])
def test_the_certificate_tells_what_a_method_preserves(made, method, centre, constant):
    encoder, path = made
    if encoder == 'videoswin':
        pytest.skip('its kernel keeps its own depth')
    certificate = certify(build_encoder(path, encoder, 5, 2, method, 64), path, encoder, 64)
    assert (certificate.centre < 1e-5) == centre
    assert (certificate.constant < 1e-5) == constant
    assert (certificate.kernel_difference < 1e-6) == constant


def test_a_2d_swin_starts_a_video_swin(tmp_path):
    torch.manual_seed(0)
    flat = MADE['swin']()
    torch.nn.init.normal_(flat.model.layers[0].blocks[0].attn.relative_position_bias_table)
    torch.save({'model': flat.model.state_dict()}, tmp_path / 'swin.pth')
    # timm puts the merging at a stage's start, Swin's authors at its end: files come in either way
    model = build_encoder(tmp_path / 'swin.pth', 'videoswin', 5, 1, 'average', 64)
    kernel = flat.model.patch_embed.proj.weight.sum(1) / 2
    torch.testing.assert_close(model.model.patch_embed.proj.weight[:, 0, 0], kernel)
    table = flat.model.layers[0].blocks[0].attn.relative_position_bias_table
    inflated = model.model.features[0][0].attn.relative_position_bias_table.unflatten(0, (15, 169))
    assert all(torch.equal(plane, table) for plane in inflated)
    assert not model.load_report.missing and certify(model, tmp_path / 'swin.pth', 'videoswin', 64).centre is None


FAMILIES = [('eva02_tiny_patch14_224', 56), ('vit_small_patch14_dinov2', 70),
            ('vit_small_patch14_reg4_dinov2', 70), ('vit_small_patch16_dinov3', 64),
            ('vit_small_patch16_dinov3_qkvb', 64), ('vit_small_patch32_224', 64), ('vit_tiny_patch16_224', 64),
            ('vit_base_patch16_224.mae', 64), ('deit3_small_patch16_224', 64), ('vit_base_patch32_clip_224', 64),
            ('swinv2_cr_tiny_ns_224', 64), ('swinv2_tiny_window8_256', 64), ('cait_xxs24_224', 64)]


@pytest.mark.parametrize('name, size', FAMILIES)
def test_any_timm_model_with_a_patch_embedding_works_by_name(tmp_path, monkeypatch, name, size):
    create = timm.create_model  # twelve blocks show no more than four
    few = dict(depth=4) if name.startswith(('vit', 'deit3', 'eva')) else {}
    monkeypatch.setattr(timm, 'create_model', lambda name, **sizes: create(name, **few | sizes))
    parts = timm_encoder(name, size, dict(backbone={}, decode_head=dict(norm_cfg={})))
    kind = InflatedSwin if parts['backbone'].pop('type') == 'InflatedSwin' else InflatedViT
    flat = kind(slices=1, channels=3, img_size=size, **parts['backbone'])
    torch.save(flat.model.state_dict(), tmp_path / 'source.pth')
    deep = build_encoder(tmp_path / 'source.pth', f'timm/{name}', 3, 1, 'centering', size)
    assert certify(deep, tmp_path / 'source.pth', f'timm/{name}', size).centre < 1e-5
    trained = kind(slices=3, channels=1, img_size=size, **parts['backbone']).train()
    maps = trained(torch.randn(2, 3, size, size))
    assert [m.shape[1] for m in maps] == parts['decode_head']['in_channels']
    sum(m.sum() for m in maps).backward()
    assert [n for n, p in trained.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('name, why', [
    ('convnext_tiny', 'img_size'), ('xcit_nano_12_p16_224', 'nothing to inflate'),
    ('vit_base_r50_s16_224', 'nothing to inflate'), ('vit_tiny_patch16_225', 'did you mean')])
def test_a_model_that_cannot_work_says_why(name, why):
    with pytest.raises(UserError, match=why) as caught:
        timm_encoder(name, 64, dict(backbone={}, decode_head=dict(norm_cfg={})))
    assert '\n' not in str(caught.value)
