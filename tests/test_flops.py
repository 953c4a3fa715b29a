"""The cost counted from the model's own operations against the paper's integers and hand arithmetic."""

import sys
from pathlib import Path

import children
import pytest
import torch
from conftest import REPO
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from benchmarks.paper.published import decoder_flops
from mmseg_plugins.experiment import load_model_config
from mmseg_plugins.flops import count_cost


def cost(config, size, **experiment):
    cfg, _ = load_model_config(REPO / 'configs' / config,
                               {f'experiment.{key}': value for key, value in experiment.items()})
    init_default_scope('mmseg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return count_cost(model, size), model


@pytest.mark.parametrize('slices, published', [(1, 213_343_401_984), (5, 214_954_014_720)])
def test_beit_b_costs_what_the_paper_says(slices, published):
    parts, model = cost('beit_centering_bcv.py', (512, 512), slices=slices, data_root='data/none/bcv')
    assert parts['patch embedding'].flops + parts['blocks'].flops == published
    assert parts['neck'].flops + parts['decoder'].flops == decoder_flops() == 992_448_086_016
    assert sum(part.parameters for part in parts.values()) == sum(p.numel() for p in model.parameters())
    assert all(module.fused_attn for module in model.modules() if hasattr(module, 'fused_attn'))


def test_a_plain_vit_has_no_layer_scale_to_count():
    parts, _ = cost('dino_centering_bcv.py', (64, 48), img_size=[64, 48], slices=3, data_root='data/none/bcv')
    tokens, width = 4 * 3 + 1, 768
    assert parts['patch embedding'].flops == 2 * 256 * 12 * width * 3
    block = 12 * tokens * width ** 2 + 2 * tokens ** 2 * width + 3 * tokens * width
    assert parts['blocks'].flops == 2 * 12 * block


@pytest.mark.parametrize('config', ['dino_centering_bcv.py', 'beit_centering_bcv.py'])
def test_a_weight_that_is_computed_is_so_once_and_not_by_window(config):
    full, low_rank = (cost(config, (64, 48), img_size=[64, 48], tuning=tuning, data_root='data/none/bcv')[0]
                      for tuning in ('full', 'lora'))
    assert [part.flops for part in low_rank.values()] == [part.flops for part in full.values()]
    assert low_rank['blocks'].parameters > full['blocks'].parameters


def test_swin_by_hand():
    """Patch 2, window 4, width 16 on 64 x 64: every map is whole windows."""
    parts, _ = cost('swin_centering_phantom.py', (64, 64), slices=5, data_root='data/none/bcv')
    total, tokens, width = 0, 32 * 32, 16
    embedding = tokens * (4 * width * 5 + width)  # one kernel, one norm
    for stage in range(4):
        if stage:  # merging: norm over 4 widths, then halved
            total += tokens // 4 * (4 * width + 8 * width ** 2)
            tokens, width = tokens // 4, width * 2
        total += 2 * (12 * tokens * width ** 2 + 2 * tokens * 16 * width + 3 * tokens * width)
        total += tokens * width  # the tap's norm
    assert parts['patch embedding'].flops == 2 * embedding and parts['blocks'].flops == 2 * total


def test_video_swin_by_hand():
    """Attention pads 128, 64, 32, 16 to whole windows of 7 inside of itself, its queries with them."""
    parts, _ = cost('videoswin_centering_bcv.py', (512, 512), data_root='data/none/bcv')
    total, window = 0, 3 * 7 * 7
    stages = [(2, 128, 128, 133), (2, 256, 64, 70), (18, 512, 32, 35), (2, 1024, 16, 21)]
    for depth, width, side, padded_side in stages:
        tokens, padded = 3 * side ** 2, 3 * padded_side ** 2
        if width > 128:  # merging: norm over 4 of the widths before, then halved
            total += tokens * (2 * width + 2 * width ** 2)
        total += depth * (padded * (4 * width ** 2 + 2 * window * width + width)
                          + tokens * (8 * width ** 2 + 2 * width))
    assert parts['blocks'].flops == 2 * total == 543_403_516_416


@pytest.mark.parametrize('option', ['model.neck.embed_dim=96', 'model.decode_head.type=UPerHed'])
def test_parts_that_do_not_fit_are_one_line(option):
    command = [sys.executable, 'tools/flops.py', 'configs/beit_centering_bcv.py', '--cfg-options', option]
    result = children.run(command)
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_the_tool_needs_no_data():
    command = [sys.executable, str(REPO / 'tools/flops.py'), str(REPO / 'configs/beit_centering_bcv.py')]
    result = children.run(command, Path('/'))
    assert result.returncode == 0, result.stderr
    assert '214,954,014,720' in result.stdout and '14 classes' in result.stdout
