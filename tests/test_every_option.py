"""What a user sets is obeyed or refused: places of a config, keys of `experiment`, options of scripts.

Places, keys and options are counted from the code, so that a new one without an entry here is a failure.
"""

import argparse
import ast
import logging
import re
import runpy
import signal
import sys
from copy import deepcopy

import pytest
from conftest import REPO
from mmengine.config import Config

from mmseg_plugins import experiment
from mmseg_plugins.errors import UserError, check_given_once
from mmseg_plugins.experiment import load_config, prepare_for_device
from mmseg_plugins.keys import KEYS, decided_by
from mmseg_plugins.sources import SOURCES

# Configs that together have every kind of part, and what of their experiment is another here.
CONFIGS = {'beit_centering_phantom': {}, 'videoswin_centering_phantom': {}, 'mini_beit_dino_phantom': {},
           'swin_centering_phantom': {'encoder': 'deit_tiny_patch16_224', 'img_size': 64}, 'unet3d_phantom': {}}
# Another value for every key; the data's is the same folder by another name.
OTHERS = dict(data_root='{data}/.', source='other.pth', inflation='average', slices=7, stride=2, target='all',
              img_size=96, batch=8, accumulate=2, lr=0.5, steps=77, warmup=7, seed=7, split='test',
              evaluate='train', val_interval=7, checkpoint_interval=7, encoder='deit_tiny_patch16_224',
              protocol='paper', precision='bf16', activation_checkpointing=True, compile=True, channels_last=True,
              train_percent=50, neighbour_lr=0.1, power=0.9, crop=(8, 32, 32), spacing=(2.0, 1.5, 1.5),
              lifting='divided', tuning='bitfit', inference_precision='bf16')


def places(cfg: Config) -> dict:
    return dict(experiment.places(cfg))


@pytest.fixture
def configure(prepared, monkeypatch):
    """A function that reads a config, each file from the disk but once, and has `experiment` carried into it."""
    read, files = Config.fromfile, {}
    monkeypatch.setattr(experiment.Config, 'fromfile',
                        lambda path, **how: deepcopy(files.get(path) or files.setdefault(path, read(path, **how))))

    def configure(name: str, options: dict) -> dict:
        base = CONFIGS[name] | dict(data_root=str(prepared), source=None)
        cfg = load_config(REPO / 'configs' / f'{name}.py',
                          {f'experiment.{key}': value for key, value in base.items()} | options)
        prepare_for_device(cfg, 'none')
        return places(cfg)
    return configure


@pytest.mark.parametrize('place, value', [
    ('optim_wrapper.clip_grad.max_norm', -1), ('optim_wrapper.clip_grad.max_norm', '1.0'),
    ('optim_wrapper.optimizer.weight_decay', float('inf')), ('optim_wrapper.optimizer.weight_decay', -1),
    ('optim_wrapper.optimizer.weight_decay', 'abc'), ('optim_wrapper.optimizer.eps', float('nan')),
    ('optim_wrapper.optimizer.eps', float('inf')), ('default_hooks.logger.interval', 0),
    ('default_hooks.logger.interval', 1.5), ('model.decode_head.dropout_ratio', -0.5),
    ('model.backbone.drop_path_rate', 1.0), ('env_cfg.cudnn_benchmark', 'abc'),
    ('model.decode_head.loss_decode.gamma', float('inf'))])
def test_numbers_that_mean_nothing_are_refused_by_their_place(configure, place, value):
    with pytest.raises(UserError, match=f'{place}={value!r} (must be|is no number)'):
        configure('beit_centering_phantom', {place: value})


@pytest.mark.parametrize('place', ['model.init_cfg.type', 'model.backbone.init_cfg.type', 'model.pretrained'])
def test_weights_have_no_other_way_in(configure, place):
    with pytest.raises(UserError, match='weights are loaded by experiment.source'):
        configure('beit_centering_phantom', {place: 'x.pth'})


def test_the_first_of_several_evaluators_gets_the_reported_labels(configure):
    kind = configure('beit_centering_phantom', {})['val_evaluator.type']
    found = configure('beit_centering_phantom', {'val_evaluator': [dict(type=kind)]})
    assert found['val_evaluator.0.headline'] == [1, 2]


def test_an_option_that_is_given_twice_is_refused():
    check_given_once(['--a', '1', '--b=2', '--cfg-options', 'a=1', '--cfg-options', 'b=2'])
    with pytest.raises(UserError, match='--seeds is given twice'):
        check_given_once(['--seeds', '1', '--seeds=2'])


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
            'model.crop' if 'unet3d' in name else 'model.backbone.slices', 'param_scheduler.warmup'} <= refused


@pytest.mark.parametrize('key', KEYS)
def test_every_key_of_experiment_is_carried_to_the_places_that_it_is_said_to_decide(configure, prepared, key):
    name = 'unet3d_phantom' if KEYS[key].of == 'crops' else 'beit_centering_phantom'
    value = OTHERS[key]
    before = configure(name, {})
    after = configure(name, {f'experiment.{key}': value.format(data=prepared) if key == 'data_root' else value})
    changed = {place for place in after if before.get(place) != after[place]} - {f'experiment.{key}'}
    if key == 'encoder':
        assert after['model.backbone.model'] == value
    else:
        assert any(re.fullmatch(KEYS[key].decides, place) for place in changed), changed
        assert all(decided_by(place) for place in changed), changed


# Of every script: the arguments of a call, and by option what is added to these, with what is then said and was
# not before; or the test that shows it. `{data}` is prepared, `{raw}` its archive, `{used}` the folder of an
# earlier training and of a source, `{here}` an empty one.
CONFIG = str(REPO / 'configs/mini_beit_centering_hippocampus.py')
DATA = ['--cfg-options', 'experiment.data_root={data}', 'experiment.source=None']
WORK_DIR = (['--work-dir', '{used}'], '{used}: holds checkpoints of an earlier training')
DRY = ['--dry-run', '--work-dir', '{here}']
LAUNCHER = (['--launcher', 'pytorch'], 'RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set')
RANK = (['--local-rank', '3'], '--local-rank 3: not the LOCAL_RANK')
ARCHIVE = ['hippocampus', '--raw', '{raw}', '--out', '{here}/out', '--workers', '1']
DATASET = {
    '--raw': (['--raw', '{here}/none'], '{here}/none'),
    '--layout': (['--layout', 'msd'], '--layout, the dataset is the folder itself'),
    '--name': (['--name', 'mine'], '--name is for a folder'),
    '--imports': (['--imports', 'no_such_module'], "'no_such_module'"),
    '--workers': (['--workers', '0'], 'at least 1'),
    '--out': (['--out', CONFIG], CONFIG)}
GRID = ['--encoders', 'beit', '--sources', 'none', '--inflations', 'centering', '--slices', '1', '--seeds', '1']
SLURM = 'test_executors.py::test_every_setting_reaches_sbatch'
TINY, REFUSED = 'test_speed.py::TINY', 'test_speed.py::test_arguments_that_mean_nothing_are_refused'
CASE = {'--repeats': TINY, '--size': TINY, '--image': REFUSED, '--label': REFUSED,
        '--out': 'test_speed.py::test_every_script_ends_with_its_table'}
SCORED = 'test_score.py::test_a_folder_becomes_a_record_that_tables_and_comparisons_read'
NNUNET = 'test_nnunet.py::call'
KEPT = 'test_predict.py::test_no_tool_writes_over_what_it_reads'
SHOWN = {
    'tools/train.py': ([CONFIG, *DATA, *WORK_DIR[0]], {
        '--work-dir': (['--dry-run', '--work-dir', '{here}/new'], CONFIG), '--dry-run': (DRY, '5 slices'),
        '--resume': ([*DRY, '--resume'], 'no checkpoint to go on from'), '--amp': ([*DRY, '--amp'], ', bf16'),
        '--cfg-options': ([*DRY, '--cfg-options', 'experiment.slices=7'], '7 slices'),
        '--launcher': LAUNCHER, '--local-rank': RANK}),
    'tools/pretrain.py': ([CONFIG, '--out', '{here}/x.pth', *DATA], {
        '--out': 'test_pretraining.py::test_two_processes_on_slices_of_one_channel',
        '--work-dir': WORK_DIR, '--launcher': LAUNCHER, '--local-rank': RANK,
        '--resume': (['--work-dir', '{here}', '--resume'], 'no checkpoint to go on from'),
        '--cfg-options': (['--cfg-options', 'experiment.slices=2'], 'experiment.slices=2'),
        '--amp': (['--amp', '--cfg-options', 'experiment.precision=fp32'], 'precision is given twice'),
        '--dry-run': 'test_tools.py::test_a_dry_run_approves_what_will_start_alone',
        '--overwrite': KEPT}),
    'tools/test.py': ([CONFIG, '{used}/iter_5.pth', *DATA], {
        '--overwrite': 'test_tools.py::test_metrics_take_no_files_place',
        '--work-dir': 'test_tools.py::test_evaluation_by_several_processes',
        '--out': 'test_tools.py::test_evaluation_by_several_processes',
        '--cfg-options': (['--cfg-options', 'experiment.evaluate=tset'], "did you mean 'test'"),
        '--launcher': LAUNCHER, '--local-rank': RANK}),
    'tools/predict.py': ([CONFIG, '{used}/iter_5.pth', '{raw}/imagesTr/case_000.nii.gz', '{here}/o.nii', *DATA], {
        '--overlay': (['--overlay', 'o.nii'], 'must be named .png'),
        '--truth': 'test_predict.py::test_a_folder_is_segmented_scored_and_gone_on_with',
        '--dry-run': 'test_tools.py::test_a_dry_run_approves_what_will_start_alone',
        '--input': 'test_predict.py::test_a_folder_is_segmented_scored_and_gone_on_with',
        '--output': 'test_predict.py::test_a_folder_is_segmented_scored_and_gone_on_with',
        '--dataset': 'test_predict.py::test_a_split_is_scored_as_evaluation_does',
        '--split': (['--split', 'test'], 'is of --dataset'),
        '--imports': 'test_predict.py::test_no_module_is_imported_because_a_checkpoint_says_so',
        '--overwrite': 'test_predict.py::test_a_label_map_that_is_there_is_replaced_where_that_is_asked_for',
        '--device': (['--device', 'abacus'], '--device abacus: '),
        '--cfg-options': (['--cfg-options', 'experiment.slice=3'], "did you mean 'slices'")}),
    'tools/export.py': (['{used}/iter_5.pth', '{here}/out'], {
        '--scores': 'test_export.py::test_the_card_says_what_it_is',
        '--imports': 'test_export.py::test_modules_of_its_own_are_named_on_the_card',
        '--overwrite': 'test_export.py::test_the_card_says_what_it_is'}),
    'tools/inflate.py': (['{used}/iter_5.pth', '--encoder', 'timm/vit_tiny_patch16_224'], {
        '--encoder': (['--encoder', 'swim'], "did you mean 'swin'"), '--slices': (['--slices', '0'], 'slices=0'),
        '--channels': (['--channels', '0'], 'channels=0'), '--method': (['--method', 'mean'], "'mean'"),
        '--lifting': (['--lifting', 'divide'], "did you mean 'divided'"),
        '--imports': (['--imports', 'no_such_module'], "'no_such_module'"),
        '--img-size': (['--img-size', '-8'], 'img_size=-8'),
        '--out': (['--out', 'o.pth'], 'must be named .safetensors'), '--overwrite': KEPT}),
    'tools/flops.py': ([CONFIG], {'--cfg-options': (['--cfg-options', 'experiment.slices=7'], '1 x 7 x')}),
    'tools/score.py': (['{here}', '--dataset', 'nope', '--method', 'mine', '--out', '{here}/out'], {
        '--dataset': (['--dataset', 'other'], 'data/prepared/other'), '--out': SCORED, '--split': SCORED,
        '--method': (['--method', 'a/b'], "--method: 'a/b' cannot be a name"), '--seed': SCORED,
        '--made-by': SCORED, '--imports': (['--imports', 'no_such_module'], "'no_such_module'")}),
    'tools/nnunet.py': (['2d', '{here}', 'test', '{here}/out', '1', '--work', '{here}/work'], {
        '--work': NNUNET, '--env': NNUNET, '--device': (['--device', 'abacus'], "invalid choice: 'abacus'"),
        '--epochs': (['--epochs', '0'], 'epochs 0: must be'), '--workers': (['--workers', '-1'], 'at least 0'),
        '--iterations': (['--iterations', '0'], 'iterations 0: must be'),
        '--gpu-memory': (['--gpu-memory', '0'], 'gpu-memory 0.0: must be'),
        '--planner': 'test_nnunet.py::test_it_is_handed_the_same_split',
        '--no-mirroring': 'test_nnunet.py::test_it_is_handed_the_same_split',
        '--trainer': 'test_nnunet.py::test_a_trainer_is_one_of_nnunets_own'}),
    'tools/sources.py': ([], {'--weights-root': (['--weights-root', '{here}/w'], 'under {here}/w'),
                              '--check': (['--weights-root', '{used}', '--check'], 'sha256'),
                              '--get': (['--get', 'layuot'], "did you mean 'layout'"),
                              '--from': (['--from', 'timm'], '--from goes with --get')}),
    'tools/verify_data.py': (ARCHIVE, DATASET),
    'tools/prepare_data.py': (ARCHIVE, DATASET | {
        '--size': (['--size', '64'], '--size is for photographs'),
        '--uncompressed': 'faults/test_faults.py::test_a_full_disk_leaves_whole_cases_in_the_store'}),
    'benchmarks/report.py': (['{here}', '{here}'], {
        '--watch': (['--watch'], '--watch is of one folder'),
        '--compare': (['--compare', 'a', 'b'], 'of one folder'),
        '--against': (['--against', '{used}'], '--against compares one folder'),
        '--check': (['--check', '--watch'], 'exclude each other')}),
    'benchmarks/run_grid.py': ([*GRID, '--dry-run'], {
        '--grid': (['--grid', 'no-such'], 'no-such.yaml: grid not found'),
        '--tables': (['--tables', '2a'], '--tables and free axes'),
        '--encoders': (['--encoders', 'timm/deit_tiny_patch16_224'], 'experiment.encoder=deit_tiny_patch16_224'),
        '--sources': (['--sources', 'beit'], 'source beit: weights'),
        '--inflations': (['--sources', 'layout', '--slices', '3', '--inflations', 'average'], 'inflation=average'),
        '--liftings': (['--slices', '3', '--liftings', 'divided'], 'experiment.lifting=divided'),
        '--tunings': (['--tunings', 'lora(8)'], 'experiment.tuning=lora(8)'),
        '--slices': (['--slices', '7'], 'experiment.slices=7'),
        '--strides': (['--slices', '3', '--strides', '2'], 'experiment.stride=2'),
        '--targets': (['--slices', '3', '--targets', 'all'], 'experiment.target=all'),
        '--lrs': (['--lrs', '1e-5'], 'experiment.lr=1e-05'),
        '--neighbour-lrs': (['--slices', '3', '--neighbour-lrs', '0.1'], 'experiment.neighbour_lr=0.1'),
        '--train-percents': (['--train-percents', '25'], 'experiment.train_percent=25'),
        '--steps': (['--steps', '9'], 'experiment.steps=9'), '--folds': (['--folds', '3'], 'fold 2 of 3'),
        '--dataset': (['--dataset', 'hippocampus', '--data-root', '{raw}/..'], 'data/prepared/hippocampus'),
        '--seeds': (['--seeds', '7'], 'experiment.seed=7'),
        '--data-root': 'test_grid.py::test_missing_data_stops_with_one_line',
        '--weights-root': (['--sources', 'beit', '--weights-root', '{here}/w'], 'source beit: {here}/w/'),
        '--out': 'test_planning.py::test_a_plan_that_cannot_be_is_one_line_and_nothing_is_written',
        '--max-iters': (['--max-iters', '7'], 'experiment.steps=7'),
        '--executor': (['--executor', 'debug', '--workers', '2'], 'not for debug'),
        '--imports': (['--imports', 'no_such_module'], "'no_such_module'"),
        '--workers': (['--workers', '0'], '--workers and --max-iters must be at least 1'),
        '--dry-run': 'test_grid.py::test_dry_run_lists_every_cell_without_data',
        '--retry-failed': 'test_grid.py::test_a_failed_run_is_recorded_while_the_rest_goes_on',
        '--search': (['--grid', 'smoke', '--search'], 'grid smoke has no `tune`'),
        '--halve-on-oom': (['--executor', 'slurm', '--gpus', '2', '--halve-on-oom'], '--halve-on-oom is for'),
        '--slurm': (['--executor', 'slurm', '--slurm', '{here}/no.yaml'], '{here}/no.yaml'),
        **dict.fromkeys(['--partition', '--time', '--nodes', '--gpus', '--cpus', '--memory', '--limit', '--grace',
                         '--sbatch'], SLURM),
        '--detach': (['--detach'], '--detach is for --executor slurm'),
        '--plan': 'test_planning.py::test_a_plan_writes_nothing',
        '--device': (['--device', 'abacus'], '--calibrate and --device go with --plan'),
        '--calibrate': (['--calibrate'], '--calibrate and --device go with --plan')}),
    'benchmarks/certificates.py': (['{used}/iter_5.pth'], {
        '--encoder': (['--encoder', 'swim'], "did you mean 'swin'"),
        '--img-size': (['--img-size', '-8'], 'img_size=-8'),
        '--out': 'test_lifting.py::test_the_certificates_of_all_are_one_page'}),
    'benchmarks/coverage.py': ([], dict.fromkeys(['--draws', '--out'], 'test_speed.py::test_the_coverage_page')),
    'benchmarks/speed/loader.py': ([], CASE), 'benchmarks/speed/metric.py': ([], CASE),
    'benchmarks/speed/options.py': ([], {'--out': CASE['--out']} | dict.fromkeys(
        ['--repeats', '--models', '--size', '--batch', '--steps'], TINY)),
    'benchmarks/speed/step.py': ([], CASE | dict.fromkeys(
        ['--input', '--batch', '--precision', '--inference-precision'], TINY)),
}
SCRIPTS = sorted(str(path.relative_to(REPO)) for folder in ('tools', 'benchmarks', 'benchmarks/speed')
                 for path in (REPO / folder).glob('*.py') if "__name__ == '__main__'" in path.read_text())


@pytest.fixture
def call(prepared, msd_raw, tmp_path, monkeypatch, capfd):
    """A function that calls a script within this process and returns what it has printed."""
    used = tmp_path / 'used'
    used.mkdir()
    (used / 'iter_5.pth').write_bytes(b'torn')
    (used / SOURCES['layout'].file).write_bytes(b'torn')
    (tmp_path / 'here').mkdir()
    names = dict(data=prepared, raw=msd_raw, used=used, here=tmp_path / 'here')
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def call(script: str, arguments: list[str]) -> str:
        monkeypatch.setattr(sys, 'argv', [script, *(argument.format(**names) for argument in arguments)])
        with pytest.raises(SystemExit):
            runpy.run_path(str(REPO / script), run_name='__main__')
        return ''.join(capfd.readouterr())
    yield call, names
    logging.disable(logging.NOTSET)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def options_of(monkeypatch):
    """A function that tells the options a script takes, by its parser."""
    def stop(parser, *_):
        raise StopIteration(parser)

    def options_of(script: str) -> set[str]:
        monkeypatch.setattr(sys, 'argv', [script])
        monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        with pytest.raises(StopIteration) as parser:
            runpy.run_path(str(REPO / script), run_name='__main__')
        return {action.option_strings[-1] for action in parser.value.args[0]._actions if action.option_strings
                } - {'--help'}
    return options_of


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_option_has_its_entry(options_of, script):
    assert options_of(script) == set(SHOWN[script][1])


def source_of(test: str) -> str:
    path, name = test.split('::')
    text = (REPO / 'tests' / path).read_text()
    [found] = [node for node in ast.parse(text).body
               if name in (getattr(node, 'name', ''), *(target.id for target in getattr(node, 'targets', ())))]
    first = min(node.lineno for node in (found, *getattr(found, 'decorator_list', ())))
    return '\n'.join(text.splitlines()[first - 1:found.end_lineno]).replace('-', '_')


def without(arguments: list[str], options: set[str]) -> list[str]:
    """Arguments less these options and their values."""
    kept, skip = [], False
    for word in arguments:
        skip = word in options if word.startswith('--') else skip
        kept += [] if skip else [word]
    return kept


@pytest.mark.parametrize('script, option', [(script, option) for script in SHOWN for option in SHOWN[script][1]])
def test_every_option_is_obeyed_or_refused(call, script, option):
    arguments, shown = SHOWN[script][0], SHOWN[script][1][option]
    if isinstance(shown, str):
        assert option.lstrip('-').replace('-', '_') in source_of(shown), f'{shown} has no {option}'
        return
    run, names = call
    more, said = shown
    said = said.format(**names)
    instead = {word for word in more if word.startswith('--')} - {'--cfg-options'}
    before, given = run(script, arguments), run(script, [*without(arguments, instead), *more])
    assert said not in before and said in given, given
