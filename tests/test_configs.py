"""Every config says what it is and builds, without data, weights or memory."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from yapf.yapflib import yapf_api

from benchmarks.grid.reader import load_grid
from benchmarks.paper.published import published_data
from benchmarks.runs.settings import describe_settings
from mmseg_plugins.building import build_model, check_model
from mmseg_plugins.carried import carry, read_carried
from mmseg_plugins.datasets.catalogue import CATALOGUE, DatasetInfo, dataset_info
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import (
    check_start,
    load_config,
    load_model_config,
    places,
    prepare_for_device,
    read_config,
)
from mmseg_plugins.keys import KEYS
from mmseg_plugins.options import parse_value

PREPARED = dict(dataset='any', headline=[1], channels=1, intensity=dict(sound='percentiles', paper='maximum'),
                nominal_spacing=False, citation='', evaluate='test', nsd_tolerance=2.0)
PAPER_DATASETS = published_data().index
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
    if dataset in PAPER_DATASETS and not path.stem.startswith(('mini_', 'dino_vitbase16', 'dinov2_')):
        assert 'Paper: ' in text and 'tools/dist_train.sh' in text
    if dataset in PAPER_DATASETS and path.stem.startswith(('beit_', 'swin_', 'videoswin_', 'dino_centering')):
        size = int(published_data().loc[dataset, 'input size'].split('x')[0])
        steps = 250_000 if dataset in ('brain', 'pancreas', 'vessel') else 25_000
        if 'Recipe: published' not in text:  # another method's own
            assert (experiment.img_size, experiment.steps, experiment.batch) == (size, steps, 16)
    cfg, _ = load_model_config(path)
    init_default_scope('mmseg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) > 1e5
    if {'decode_head', 'network'} & set(cfg.model):  # what a checkpoint carries of it builds the same
        index = dict(PREPARED, labels=['label'] * (getattr(model, 'classes', 2)))
        carried = json.loads(json.dumps(carry(cfg, index)))
        again, _ = read_carried(dict(meta=dict(carried=carried)), path)
        with torch.device('meta'):
            other = MODELS.build(again.model)
        shapes, others = ({name: value.shape for name, value in each.state_dict().items()}
                          for each in (model, other))
        assert shapes == others


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
    before = read_config(REPO / 'configs' / f'{config}.py').model.backbone
    assert model.backbone.layer_scale == before.get('layer_scale')  # of the config, as drop path
    assert list(model.decode_head.in_channels) == widths and model.backbone.model.patch_embed.proj.in_channels == 3


DECAYED = '_centering_bcv', '_centering_phantom', '_layout', 'unet_matched_bcv'


@pytest.mark.parametrize('path', [path for path in CONFIGS if path.stem.endswith(DECAYED)],
                         ids=lambda path: path.stem)
def test_of_a_model_only_matrices_and_layer_scale_decay(path):
    cfg, _ = load_model_config(path, {'experiment.img_size': 64})
    init_default_scope('mmseg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decays = {id(parameter): group['weight_decay'] for group in groups for parameter in group['params']}
    names = {name: (parameter.ndim, decays[id(parameter)]) for name, parameter in model.named_parameters()
             if parameter.requires_grad}  # not a teacher's
    decayed = {name for name, (_, decay) in names.items() if decay}
    assert {decay for _, decay in names.values()} == {0.0, 0.05}
    scales = {name for name in names if name.split('.')[-1].startswith('gamma')}
    tables = {name for name in names if re.search('pos_embed|cls_token|relative_position_bias_table', name)}
    assert decayed == {name for name, (ndim, _) in names.items() if ndim > 1} - tables | scales
    assert not [name for name in decayed if name.endswith('bias')] and bool(scales) == ('beit' in path.stem)


def test_every_other_way_that_the_recipe_names_is_taken():
    path = REPO / 'configs/beit_centering_bcv.py'
    named = re.findall(r'`([a-z]\w*\.[\w.]+)=([^`]+)`', (REPO / 'docs/recipe.md').read_text())
    usual = dict(places(read_config(path)))
    for place, text in named:
        value = parse_value(place, text)
        assert dict(places(read_config(path, {place: value})))[place] == value != usual.get(place, ''), place
    assert len(named) > 10


def test_layer_scale_starts_from_1_without_a_source_and_from_the_sources_with_one(tmp_path):
    cfg, _ = load_model_config(REPO / 'configs/beit_scratch_bcv.py')
    settings = dict(cfg.model.backbone, type='InflatedViT', img_size=32, source=None,
                    sizes=dict(patch_size=16, embed_dim=24, num_heads=2))

    def scales(**changes) -> set[float]:
        encoder = MODELS.build(settings | changes)
        encoder.init_weights()
        torch.save(dict(model=encoder.model.state_dict()), tmp_path / f'{len(list(tmp_path.iterdir()))}.pth')
        return {round(value, 4) for name, parameter in encoder.named_parameters() if 'gamma' in name
                for value in parameter.flatten().tolist()}

    assert settings['layer_scale'] == 1.0 and scales() == {1.0}
    assert scales(layer_scale=None, slices=1, channels=3) == {0.1}  # timm's
    assert scales(source=str(tmp_path / '1.pth')) == {0.1}
    vit = dict(model='vit_tiny_patch16_224', sizes=dict(embed_dim=24, depth=12, num_heads=2))
    assert scales(**vit) == set()  # has none
    with pytest.raises(ValueError, match='layer_scale=-1 must be a number'):
        scales(layer_scale=-1)


def test_input_size_and_steps_are_the_datasets_unless_the_config_says_otherwise(msd_raw, tmp_path, monkeypatch):
    def chosen(config, **experiment) -> tuple:
        values = dict(data_root='data/spine') | experiment
        cfg = read_config(REPO / 'configs' / f'{config}.py', {f'experiment.{key}': values[key] for key in values})
        return cfg.experiment.img_size, cfg.experiment.steps

    assert chosen('beit_centering_bcv') == (512, 25_000) == (DatasetInfo.input_size, DatasetInfo.steps)
    entry = replace(dataset_info('hippocampus'), input_size=48, steps=77)
    monkeypatch.setitem(CATALOGUE, 'spine', entry)
    assert chosen('beit_centering_bcv') == chosen('beit_2d_brain') == (48, 77)
    assert chosen('beit_centering_bcv', img_size=32) == (32, 77) and chosen('beit_2d_brain', steps=5) == (48, 5)
    assert chosen('beit_centering_phantom') == (64, 150)  # the miniature's
    assert chosen('beit_centering_phantom', img_size=None, steps=None) == (48, 77)
    own = tmp_path / 'own.py'
    base = str(REPO / 'configs/beit_centering_bcv.py')
    own.write_text(f'_base_ = {base!r}\nexperiment = dict(img_size=[32, 64])\n')
    assert chosen(own.with_suffix('')) == ([32, 64], 77)

    prepare_dataset('spine', msd_raw, tmp_path / 'spine', workers=1)
    monkeypatch.delitem(CATALOGUE, 'spine')  # it is a user's module's, which training does not import
    cfg = load_config(base, {'experiment.data_root': str(tmp_path / 'spine'), 'experiment.source': None})
    assert (cfg.model.backbone.img_size, cfg.train_cfg.max_iters) == (48, 77)
    index = tmp_path / 'spine/index.json'
    index.write_text(index.read_text().replace('"input_size": 48', '"input_size": 0'))
    with pytest.raises(UserError, match="its input_size is '0', no whole number above 0"):
        read_index(index.parent)
    index.write_text(index.read_text().replace('"input_size": 0,', ''))  # as earlier versions wrote it
    assert chosen('beit_centering_bcv', data_root=str(index.parent)) == (512, 77)


@pytest.mark.parametrize('key', KEYS)
def test_a_key_of_experiment_that_is_left_out_or_none_has_its_meaning_or_is_one_line(key, prepared, tmp_path):
    options = {'experiment.data_root': str(prepared), 'experiment.source': None}
    cfg = read_config(REPO / 'configs/beit_centering_phantom.py', options)
    none, left_out = tmp_path / 'none.py', tmp_path / 'left_out.py'
    cfg.experiment[key] = None
    cfg.dump(none)
    del cfg.experiment[key]
    cfg.dump(left_out)
    for path, fault in ((none, f'experiment.{key}=None'), (left_out, f'experiment.{key} is missing')):
        if KEYS[key].optional:
            assert describe_settings(load_config(path)) and check_start(load_config(path), 1)
        else:
            with pytest.raises(UserError, match=re.escape(f'{path}: {fault}')):
                load_config(path)


def test_the_text_of_a_config_is_its_own_each_time():
    configs = [Config(dict(steps=steps)) for steps in (*range(6), 0, 5)]
    assert [cfg.pretty_text.strip() for cfg in configs] == [f'steps = {cfg.steps}' for cfg in configs]


def test_a_configs_text_is_laid_out_and_its_file_read_once(monkeypatch, tmp_path):
    laid, read = [], []
    lay_out, from_file = yapf_api.FormatTree, Config.fromfile
    monkeypatch.setattr(yapf_api, 'FormatTree', lambda *args, **rest: laid.append(1) or lay_out(*args, **rest))
    monkeypatch.setattr(Config, 'fromfile', lambda *args, **rest: read.append(1) or from_file(*args, **rest))
    path = tmp_path / 'own.py'
    path.write_text(f"_base_ = '{REPO}/configs/beit_centering_phantom.py'\nexperiment = dict(seed=71)\n")
    first, second = (read_config(path, {'experiment.steps': steps}) for steps in (7, 8))
    assert (first.experiment.steps, second.experiment.steps, len(read)) == (7, 8, 1)
    assert first.pretty_text == first.pretty_text != second.pretty_text and len(laid) == 2


@pytest.mark.parametrize('name', [f'{before}vit_tiny_patch16_224{tag}' for before in ('', 'timm/')
                                  for tag in ('', '.augreg_in21k')])
def test_a_timm_name_is_one_thing_everywhere(name, tmp_path):
    """With or without `timm/` and a tag: in options, configs, grids and tools."""
    option = {'experiment.encoder': name, 'experiment.img_size': 64}
    cfg = read_config(REPO / 'configs/beit_centering_bcv.py', option)
    assert cfg.experiment.encoder == name.removeprefix('timm/')
    assert cfg.experiment.source is None  # the config's is of its own encoder
    given = read_config(REPO / 'configs/beit_centering_bcv.py', option | {'experiment.source': 'timm'})
    assert given.experiment.source == 'timm'
    (tmp_path / 'own.py').write_text(f'_base_ = {str(REPO / "configs/beit_centering_bcv.py")!r}\n'
                                     f'model = dict(backbone=dict(model={name!r}))\n')
    init_default_scope('mmseg')
    with torch.device('meta'):
        model = MODELS.build(load_model_config(tmp_path / 'own.py')[0].model)
    assert model.backbone.name == name.removeprefix('timm/')
    [cell] = load_grid('phantom', encoder=[name]).cells()
    assert cell.encoder == f'timm/{name.removeprefix("timm/")}' and cell.source.startswith('timm/vit_tiny')


@pytest.mark.parametrize('options, head, message', [
    ({}, {}, ''),
    ({'experiment.target': 'all'}, {}, "auxiliary_head: predicts one slice, experiment.target='all' asks for all"),
    ({'experiment.encoder': 'deit_tiny_patch16_224'}, dict(in_channels=192), ''),
    ({'experiment.encoder': 'deit_tiny_patch16_224'}, {}, '_head 192 channels, and its in_channels is 96'),
    ({}, dict(num_classes=7), 'auxiliary_head.num_classes=7, but experiment.data_root decides it'),
    ({'model.decode_head.out_channels': 1}, {}, 'decode_head.out_channels=1: there is one for each of 3 classes'),
])
def test_heads_have_the_datasets_classes_or_it_is_one_line(prepared, tmp_path, options, head, message):
    auxiliary = dict(type='FCNHead', in_channels=96, channels=8, in_index=2,
                     loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)) | head
    (tmp_path / 'own.py').write_text(f'_base_ = {str(REPO / "configs/beit_centering_phantom.py")!r}\n'
                                     f'model = dict(auxiliary_head={auxiliary})\n')
    options = {'experiment.data_root': str(prepared), 'experiment.source': None, **options}
    if not message:
        model = build_model(load_config(tmp_path / 'own.py', options))
        assert model.auxiliary_head.num_classes == model.decode_head.num_classes == 3
        return
    with pytest.raises(UserError, match=message):
        build_model(load_config(tmp_path / 'own.py', options))


@pytest.mark.parametrize('name, unused', [('mini_swin_photographs', True), ('swin_centering_phantom', False)])
def test_processes_do_not_wait_for_maps_that_the_head_does_not_take(monkeypatch, name, unused):
    cfg, _ = load_model_config(REPO / f'configs/{name}.py', {'experiment.img_size': 64})
    monkeypatch.setattr('mmseg_plugins.compat.join_cpu_processes', lambda *_: None)
    prepare_for_device(cfg, 'pytorch')
    assert cfg.find_unused_parameters is unused


def test_a_config_without_custom_rates_builds(tmp_path):
    cfg, _ = load_model_config(REPO / 'configs/beit_centering_phantom.py',
                               {'optim_wrapper.paramwise_cfg': None, 'experiment.source': None})
    check_model(cfg)
