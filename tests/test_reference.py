"""Features that the paper's own implementation computes from checkpoints in the published formats."""

import re

import numpy as np
import pytest
import torch
from conftest import REPO

from mmseg_plugins.models import InflatedSwin, InflatedViT, VideoSwin

ROOT = REPO.parent / 'shared' / 'reference'
SWIN = dict(embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))


@pytest.fixture(scope='module', params=['beit', 'swin', 'videoswin'])
def reference(request):
    path = ROOT / request.param / 'expected.npz'
    if not path.is_file():
        pytest.skip(f'no reference features under {ROOT}')
    return request.param, np.load(path)


def build(family, size, slices, channels, inflation):
    shared = dict(slices=slices, channels=channels, inflation=inflation, img_size=size,
                  source=str(ROOT / family / 'checkpoint.pth'), drop_path_rate=0.0)
    if family == 'beit':
        return InflatedViT(sizes=dict(embed_dim=48, depth=12, num_heads=4), **shared)
    return (InflatedSwin if family == 'swin' else VideoSwin)(sizes=SWIN, **shared)


def test_features_equal_the_papers(reference):
    """Every case within 1e-5: unresized and resized position tables, 1 to 9 slices, 1 and 2 channels."""
    family, expected = reference
    compared = 0
    for case in sorted({re.sub('_input$', '', key) for key in expected.files if key.endswith('_input')}):
        size, slices, channels = map(int, re.fullmatch(r'(\d+)_s(\d+)_c(\d+)', case).groups())
        window = torch.from_numpy(expected[f'{case}_input']).float()
        if family == 'swin':
            # the reference pads rows to a multiple of `slices` instead of the patch size: 256 -> 260
            rows = (size + -size % slices) // 4 * 4
            window, size = torch.nn.functional.pad(window, (0, 0, 0, rows - size)), (rows, size)
        inflations = [''] if family == 'videoswin' else ['_centering', '_average']
        for inflation in inflations:
            encoder = build(family, size, slices, channels, inflation.strip('_') or 'centering').eval()
            encoder.init_weights()
            with torch.no_grad():
                maps = encoder(window.flatten(1, 2))
            if family == 'beit':
                kernel = encoder.model.patch_embed.proj.weight.detach().unflatten(1, (channels, slices))
                wanted = torch.from_numpy(expected[f'{case}{inflation}_kernel'])
                assert (kernel - wanted).abs().max() < 1e-6
            for tap, features in enumerate(maps):
                name = f'block{encoder.out_indices[tap]}' if family == 'beit' else f'stage{tap}'
                wanted = torch.from_numpy(expected[f'{case}{inflation}_{name}']).float()
                features = features[:, ::features.shape[1] // wanted.shape[1]]
                assert features.shape == wanted.shape
                assert (features - wanted).abs().max() < 1e-5, (case, inflation, name)
                compared += 1
    assert compared == (24 if family == 'videoswin' else 48)
