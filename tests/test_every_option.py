"""What a user sets is obeyed or refused: every place of a config, every key of `experiment`, every option of a script.

Places, keys and options are counted from the code, so that a new one without an entry here is a failure.
"""

from copy import deepcopy

import pytest
from conftest import REPO
from mmengine.config import Config

from mmseg_plugins import experiment
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config, prepare_for_device
from mmseg_plugins.keys import KEYS, decided_by

# Configs that together have every kind of part, and what of their experiment is another here.
CONFIGS = {'beit_centering_phantom': {}, 'videoswin_centering_phantom': {}, 'mini_beit_dino_phantom': {},
           'swin_centering_phantom': {'encoder': 'deit_tiny_patch16_224', 'img_size': 64}}
# Another value for every key; the data's is the same folder by another name.
OTHERS = dict(data_root='{data}/.', source='other.pth', inflation='average', slices=7, stride=2, target='all',
              img_size=96, batch=8, accumulate=2, lr=0.5, steps=77, warmup=7, seed=7, split='test',
              evaluate='train', val_interval=7, checkpoint_interval=7, encoder='deit_tiny_patch16_224',
              protocol='paper', precision='bf16', activation_checkpointing=True, compile=True, channels_last=True)


def places(cfg: Config) -> dict:
    return dict(experiment._places(cfg))


@pytest.fixture
def configure(prepared, monkeypatch):
    """A function that reads a config, each file from the disk but once, and has `experiment` carried into it."""
    read, files = Config.fromfile, {}
    monkeypatch.setattr(experiment.Config, 'fromfile',
                        lambda path: deepcopy(files.get(path) or files.setdefault(path, read(path))))

    def configure(name: str, options: dict) -> dict:
        base = CONFIGS[name] | dict(data_root=str(prepared), source=None)
        cfg = load_config(REPO / 'configs' / f'{name}.py',
                          {f'experiment.{key}': value for key, value in base.items()} | options)
        prepare_for_device(cfg, 'none')
        return places(cfg)
    return configure


def other(value):
    """A value that is not the same and of the same kind, as far as there is one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list | tuple):
        return [other(value[0]) if value else 7, *value[1:]]
    return 'other' if value is None else f'{value}x'


@pytest.mark.parametrize('name', CONFIGS)
def test_no_place_of_a_config_is_overwritten_in_silence(configure, name):
    refused = set()
    for place, value in configure(name, {}).items():
        if place.startswith('experiment.'):
            continue
        try:
            assert configure(name, {place: other(value)})[place] == other(value), f'{place} is taken, not obeyed'
        except UserError as error:
            assert any(text in str(error) for text in (*place.split('.'), 'experiment.')), str(error)
            refused.add(place)
    assert {'optim_wrapper.optimizer.lr', 'train_dataloader.batch_size', 'train_cfg.max_iters', 'randomness.seed',
            'model.backbone.slices', 'param_scheduler.warmup'} <= refused


@pytest.mark.parametrize('key', KEYS)
def test_every_key_of_experiment_is_carried_to_the_places_that_it_is_said_to_decide(configure, prepared, key):
    name, value = 'beit_centering_phantom', OTHERS[key]
    before = configure(name, {})
    after = configure(name, {f'experiment.{key}': value.format(data=prepared) if key == 'data_root' else value})
    changed = {place for place in after if before.get(place) != after[place]} - {f'experiment.{key}'}
    if key == 'encoder':
        assert after['model.backbone.model'] == value
    else:
        deciders = {decided_by(place) for place in changed}
        assert key in deciders and None not in deciders, changed


# Of every script: the arguments of a call, and by option what is added to these, with what is then said; or the
# test that shows it. `{...}` is filled in: data is prepared, raw its archive, here an empty folder.
CONFIG = str(REPO / 'configs/mini_beit_centering_hippocampus.py')
SLURM = 'faults/test_slurm.py::test_settings_come_from_a_file_and_before_it_from_the_command_line'
SPEED = 'test_speed.py::test_it_runs_and_ends_with_its_table'
TRAIN = [CONFIG, '--cfg-options', 'experiment.data_root={data}', 'experiment.source=None']
ARCHIVE = ['hippocampus', '--raw', '{raw}', '--out', '{here}/out', '--workers', '1']
FOLDER = ['{raw}', '--layout', 'msd', '--name', 'mine', '--out', '{here}/out', '--workers', '1']
SHOWN = {
    'tools/train.py': ([*TRAIN, '--dry-run'], {
        'config': (['{here}/no.py'], 'unrecognized arguments'),
        '--work-dir': (['--work-dir', '{used}'], '{used}: holds checkpoints of an earlier training'),
        '--resume': (['--resume', '--work-dir', '{here}/w'], 'no checkpoint to go on from'),
        '--cfg-options': (['--cfg-options', 'experiment.slices=7'], '7 slices'),
        '--amp': (['--amp'], ', bf16'),
        '--launcher': (['--launcher', 'mpy'], 'invalid choice'),
        '--local-rank': 'test_launch.py::test_a_local_rank_that_is_not_the_environments_is_refused',
        '--dry-run': 'test_tools.py::test_a_wrong_experiment_is_named_before_training'}),
}
