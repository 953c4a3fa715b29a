"""Every config says what it is and builds, without data, weights or memory."""

import ast
from pathlib import Path

import pytest
import torch
from conftest import REPO
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_plugins.datasets.catalogue import CATALOGUE, PAPER_DATASETS
from mmseg_plugins.experiment import load_model_config, read_config

CONFIGS = sorted((REPO / 'configs').glob('*.py'))


def test_table_5_has_its_configs():
    names = {path.stem for path in CONFIGS}
    assert {f'beit_{kind}_{dataset}' for kind in ('centering', '2d') for dataset in PAPER_DATASETS} <= names


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_builds_and_its_docstring_gives_the_command(path):
    text = ' '.join(ast.get_docstring(ast.parse(path.read_text())).split())
    assert 'Command: ' in text and f'configs/{path.name}' in text
    experiment = read_config(path).experiment
    dataset = Path(experiment.data_root).name
    if dataset in PAPER_DATASETS and not path.stem.startswith(('mini_', 'dino_vitbase16')):
        assert 'Paper: ' in text and 'tools/dist_train.sh' in text
        info = CATALOGUE[dataset]  # Table 1's input size and Table 6's steps
        assert (experiment.img_size, experiment.steps, experiment.batch) == (info.input_size, info.steps, 16)
    cfg, _ = load_model_config(path)
    init_default_scope('mmseg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) > 1e5


@pytest.mark.parametrize('encoder, neck, widths', [
    ('deit_tiny_patch16_224', True, [192] * 4), ('swinv2_tiny_window8_256', False, [96, 192, 384, 768])])
@pytest.mark.parametrize('config', ['beit_centering_bcv', 'beit_centering_phantom', 'swin_centering_phantom'])
def test_a_timm_encoder_takes_the_place_of_any_configs(config, encoder, neck, widths):
    cfg, _ = load_model_config(REPO / 'configs' / f'{config}.py',
                               {'experiment.encoder': encoder, 'experiment.img_size': 64, 'experiment.slices': 3})
    init_default_scope('mmseg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.with_neck == neck and model.backbone.name == encoder
    assert list(model.decode_head.in_channels) == widths and model.backbone.model.patch_embed.proj.in_channels == 3
