"""tools/nnunet.py: what nnunetv2 is handed, by a stand-in; and the real one, where its environment is at hand."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import children
import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import REPO, call_tool, wait_for, write_msd

from benchmarks.methods.command import TOLD, write_cases
from mmseg_plugins.datasets import CATALOGUE, DatasetInfo, read_index
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.errors import UserError
from mmseg_plugins.files import write_json
from mmseg_plugins.untrusted import find_fault

REAL = Path(os.environ.get('NNUNET_ENV', REPO / '.venv-nnunet'))
SIZES = '--epochs', '8', '--iterations', '2'
# It leaves what the next command needs, and a note of what it saw; `broken` names a command that is to fail.
STAND_IN = '''
    import json, os, shutil, sys
    from pathlib import Path

    name, place = Path(sys.argv[0]).name.removeprefix('nnUNetv2_'), Path(__file__).parent
    raw, preprocessed, results = (Path(os.environ[f'nnUNet_{part}']) / 'Dataset001_cases'
                                  for part in ('raw', 'preprocessed', 'results'))
    seen = dict(name=name, arguments=sys.argv[1:], variables={
        key: value for key, value in os.environ.items() if key.startswith('nnUNet_')})
    seen |= {part: sorted(path.name for path in raw.glob(f'{part}/*'))
             for part in ('imagesTr', 'labelsTr', 'imagesTs')}
    with open(place / 'calls', 'a') as file:
        file.write(json.dumps(seen) + '\\n')
    if (place / 'broken').exists() and (place / 'broken').read_text() == name:
        sys.exit(1)
    model = results / 'nnUNetTrainerSeeded__nnUNetPlans__2d'
    if name == 'plan_and_preprocess':
        preprocessed.mkdir(parents=True)
        shutil.copy(raw / 'dataset.json', place)
    elif name == 'train':
        shutil.copy(preprocessed / 'splits_final.json', place)
        (model / 'fold_0').mkdir(parents=True)
        (model / 'fold_0/checkpoint_final.pth').touch()
        (model / 'fold_0/cost.json').write_text('{"parameters": 7, "peak_memory_mib": 9}')
        (model / 'plans.json').write_text('{"configurations": {"2d": {"batch_size": 4, "patch_size": [16, 24]}}}')
    else:
        out = Path(sys.argv[sys.argv.index('-o') + 1])
        out.mkdir(exist_ok=True)
        for image in raw.glob('imagesTs/*_0000.nii.gz'):
            target = out / image.name.replace('_0000', '')
            if not target.exists():
                shutil.copy(image, target)
    '''


@pytest.fixture
def env(tmp_path) -> Path:
    """An environment whose nnunetv2 is the stand-in."""
    programs = tmp_path / 'env/bin'
    programs.mkdir(parents=True)
    for name in ('plan_and_preprocess', 'train', 'predict'):
        (programs / f'nnUNetv2_{name}').write_text(f'#!/usr/bin/env python3{textwrap.dedent(STAND_IN)}')
    (programs / 'python').write_text('#!/bin/sh\necho 2.8.1\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    return programs.parent


def call(tmp_path: Path, split: str = 'test', *options: str) -> list[dict]:
    """tools/nnunet.py on the cases below a folder; returns what the stand-in's commands saw, since ever."""
    (tmp_path / 'out').mkdir(exist_ok=True)
    call_tool('nnunet', '2d', tmp_path / 'cases', split, tmp_path / 'out', 3, '--work', tmp_path / 'work',
              '--env', tmp_path / 'env', '--device', 'cpu', *options)
    return [json.loads(line) for line in (tmp_path / 'env/bin/calls').read_text().splitlines()]


def test_it_is_handed_the_same_split(prepared, env, tmp_path):
    """And sees what is evaluated only to predict it."""
    write_cases(prepared, tmp_path / 'cases', 'test')
    split = read_index(prepared)['split']
    plan, train, predict = call(tmp_path, 'test', *SIZES, '--planner', 'nnUNetPlannerResEncM',
                                '--gpu-memory', '0.5', '--no-mirroring')
    for option, value in (('-pl', 'nnUNetPlannerResEncM'), ('-gpu_memory_target', '0.5')):
        assert plan['arguments'][plan['arguments'].index(option) + 1] == value
    learnt = sorted([*split['train'], *split['val']])
    for seen in (plan, train):
        assert not seen['imagesTs']
        assert seen['imagesTr'] == [f'{case}_0000.nii.gz' for case in learnt]
        assert seen['labelsTr'] == [f'{case}.nii.gz' for case in learnt]
    assert predict['imagesTs'] == [f'{case}_0000.nii.gz' for case in sorted(split['test'])]
    assert '--disable_tta' in predict['arguments']
    assert json.loads((env / 'bin/splits_final.json').read_text()) == [
        dict(train=split['train'], val=split['val'])]
    assert json.loads((env / 'bin/dataset.json').read_text()) == dict(
        name='hippocampus', channel_names={'0': 'MRI'}, labels={'background': 0, 'Anterior': 1, 'Posterior': 2},
        numTraining=len(learnt), file_ending='.nii.gz')
    variables = train['variables']
    assert [variables[f'nnUNet_{name}'] for name in ('seed', 'epochs', 'iterations', 'n_proc_DA')] == [*'3820']
    assert '--c' in train['arguments'] and train['arguments'][-2:] == ['cpu', '--c']
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        *(f'{case}.nii.gz' for case in sorted(split['test'])), 'method.json']
    told = json.loads((tmp_path / 'out/method.json').read_text())
    assert not find_fault(told, TOLD) and told['parameters'] == 7 and told['settings']['patch_size'] == '16 x 24'
    assert sorted(path.name for path in (tmp_path / 'work').iterdir()) == [
        'options.json', 'predicted', 'results']


def test_it_goes_on_after_what_is_done(prepared, env, tmp_path):
    write_cases(prepared, tmp_path / 'cases', 'train')
    cases = tmp_path / 'cases/split.json'
    split = json.loads(cases.read_text())
    cases.write_text(json.dumps(dict(train=split['val'], test=split['train'])))  # several to predict
    for broken in ('plan_and_preprocess', 'train', 'predict'):
        (env / 'bin/broken').write_text(broken)
        with pytest.raises(UserError, match=f'nnUNetv2_{broken} ended with status 1'):
            call(tmp_path)
    names = [seen['name'] for seen in map(json.loads, (env / 'bin/calls').read_text().splitlines())]
    assert names == ['plan_and_preprocess', 'plan_and_preprocess', 'train', 'train', 'predict']
    (env / 'bin/broken').unlink()
    first, second, *_ = split['train']
    whole = (tmp_path / f'cases/images/{first}.nii.gz').read_bytes()
    (tmp_path / 'work/predicted').mkdir()
    (tmp_path / f'work/predicted/{first}.nii.gz').write_bytes(whole[:len(whole) // 2])
    kept = (tmp_path / f'cases/images/{split["train"][2]}.nii.gz').read_bytes()
    (tmp_path / f'work/predicted/{second}.nii.gz').write_bytes(kept)
    (tmp_path / f'out/{second}.nii.gz').write_bytes(b"another model's")
    assert call(tmp_path)[5:][0]['name'] == 'predict'
    assert (tmp_path / f'out/{first}.nii.gz').read_bytes() == whole  # torn before
    assert (tmp_path / f'out/{second}.nii.gz').read_bytes() == kept  # predicted before


def test_channels_are_files_and_a_ct_is_scaled_as_one(env, tmp_path, monkeypatch):
    raw = write_msd(tmp_path / 'raw/Task77_Knee', cases=7, channels=2)
    monkeypatch.setitem(CATALOGUE, 'knee', DatasetInfo('msd', 'Task77_Knee', 'CT', origin='here', licence='none'))
    prepare_dataset('knee', raw, tmp_path / 'knee')
    write_cases(tmp_path / 'knee', tmp_path / 'cases', 'all:0/3')
    (env / 'bin/broken').write_text('train')
    with pytest.raises(UserError):
        call(tmp_path, 'all:0/3')
    dataset = tmp_path / 'work/raw/Dataset001_cases'
    assert json.loads((dataset / 'dataset.json').read_text())['channel_names'] == {'0': 'CT', '1': 'CT'}
    [split] = json.loads((tmp_path / 'work/preprocessed/Dataset001_cases/splits_final.json').read_text())
    assert split['val'] == split['train'] and len(split['train']) in (4, 5)  # as nnU-Net's own fold `all`
    for case in split['train']:
        whole = nib.load(raw / f'imagesTr/{case}.nii.gz')
        for channel in range(2):
            alone = nib.load(dataset / f'imagesTr/{case}_000{channel}.nii.gz')
            np.testing.assert_array_equal(alone.dataobj, whole.dataobj[..., channel])
            np.testing.assert_array_equal(alone.affine, whole.affine)


def test_a_trainer_is_one_of_nnunets_own(prepared, env, tmp_path):
    """Planning, training and prediction know which, and the record says it."""
    write_cases(prepared, tmp_path / 'cases', 'test')
    seen = call(tmp_path, 'test', '--trainer', 'nnUNet_Primus_S_Trainer')
    assert {each['variables']['nnUNet_trainer'] for each in seen} == {'nnUNet_Primus_S_Trainer'}
    settings = json.loads((tmp_path / 'out/method.json').read_text())['settings']
    assert settings['trainer'] == 'nnUNet_Primus_S_Trainer' and settings['gpu_memory'] == 'as nnU-Net chooses'
    with pytest.raises(UserError, match='work: begun with trainer nnUNet_Primus_S_Trainer; name another folder'):
        call(tmp_path)
    (env / 'bin/python').write_text(
        '#!/bin/sh\ncase "$2" in *version*) echo 2.8.1;; *) echo no such >&2; exit 1;; esac\n')
    with pytest.raises(UserError, match='--trainer Primus: not one of nnunetv2 2.8.1 in .*; it said: no such'):
        call(tmp_path, 'test', '--trainer', 'Primus')


def test_what_cannot_be_is_said_in_one_line(prepared, env, tmp_path):
    write_cases(prepared, tmp_path / 'cases', 'test')
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        call(tmp_path, 'tset')
    (env / 'bin/python').write_text('#!/bin/sh\nexit 1\n')
    with pytest.raises(UserError, match='no nnunetv2 there; .* or make it: python -m venv .*nnunetv2==2'):
        call(tmp_path)
    write_json(tmp_path / 'cases/split.json', dict(train=['a'], test=['a']))
    with pytest.raises(UserError, match='no case is left to train on'):
        call(tmp_path)
    assert not (tmp_path / 'work').exists()


@pytest.mark.skipif(not (REAL / 'bin/nnUNetv2_train').exists(),
                    reason='no environment of nnunetv2 (docs/extending.md; NNUNET_ENV names another)')
@pytest.mark.parametrize('configuration, trainer', [
    ('2d', 'nnUNetTrainer'), ('3d_fullres', 'nnUNetTrainer'), ('3d_fullres', 'nnUNet_Primus_S_Trainer')])
def test_a_grids_run_is_that_of_nnunets_own_commands_even_if_it_was_interrupted(configuration, trainer, tmp_path):
    raw = write_msd(tmp_path / 'data/Task04_Hippocampus', cases=7, shape=(24, 32, 16))
    command = (f'python {REPO}/tools/nnunet.py {configuration} {{cases}} {{split}} {{out}} {{seed}} '
               f'--work {{work}} --env {REAL} --device cpu --trainer {trainer} {" ".join(SIZES)}')
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(dict(
        dataset='hippocampus', configs=dict(nnunet=dict(command=command)), axes=dict(encoder=['nnunet']),
        seeds=[3])))
    arguments = [sys.executable, REPO / 'benchmarks/run_grid.py', '--grid', 'mine.yaml', '--out', 'out',
                 '--workers', '1']
    grid = children.start(children.script, arguments[1:], tmp_path / 'log', None, tmp_path)
    wait_for(lambda: [*tmp_path.rglob('checkpoint_latest.pth')], 300, 'the first checkpoint')
    os.kill(grid.pid, signal.SIGTERM)
    grid.join()
    assert not [*tmp_path.rglob('checkpoint_final.pth')] and not [*tmp_path.glob('out/records/*')]
    again = children.run(arguments, tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    [mine] = (json.loads(path.read_text()) for path in (tmp_path / 'out/records').iterdir())
    assert mine['method']['settings']['epochs'] == '8'
    # a U-Net of so small images is smaller
    assert (mine['cost']['parameters'] > 2 * 10**7) == ('Primus' in trainer)
    log = next(tmp_path.rglob('command.log')).read_text()
    assert log.count('Epoch 0') == log.count('Epoch 7') == 1 and 'Epoch 7' in log[log.rindex('nnUNetv2_train'):]

    split, own = read_index(tmp_path / 'data/prepared/hippocampus')['split'], tmp_path / 'own'
    dataset = own / 'raw/Dataset007_Own'
    for part, folder in (('Tr', 'imagesTr'), ('Tr', 'labelsTr'), ('Ts', 'imagesTs')):
        for case in split['test'] if part == 'Ts' else split['train'] + split['val']:
            name = f'{case}.nii.gz' if folder == 'labelsTr' else f'{case}_0000.nii.gz'
            source = raw / folder.replace('Ts', 'Tr') / f'{case}.nii.gz'
            (dataset / folder).mkdir(parents=True, exist_ok=True)
            (dataset / folder / name).write_bytes(source.read_bytes())
    write_json(dataset / 'dataset.json', dict(
        channel_names={'0': 'MRI'}, labels={'background': 0, 'one': 1, 'two': 2}, file_ending='.nii.gz',
        numTraining=len(split['train'] + split['val'])))
    write_json(own / 'preprocessed/Dataset007_Own/splits_final.json',
               [dict(train=split['train'], val=split['val'])])
    variables = {f'nnUNet_{part}': str(own / part) for part in ('raw', 'preprocessed', 'results')} | dict(
        nnUNet_extTrainer=str(REPO / 'tools/nnunet_trainer'), nnUNet_trainer=trainer, nnUNet_seed='3',
        nnUNet_epochs='8', nnUNet_iterations='2', OMP_NUM_THREADS='1')
    for line, more in (
            (f'plan_and_preprocess -d 7 -c {configuration} -npfp 1 -np 1', {}),
            (f'train 7 {configuration} 0 -tr nnUNetTrainerSeeded -device cpu', dict(nnUNet_n_proc_DA='0')),
            (f'predict -d 7 -c {configuration} -f 0 -tr nnUNetTrainerSeeded -device cpu -i {dataset}/imagesTs '
             f'-o {own}/maps -npp 0 -nps 0', {})):
        subprocess.run([REAL / f'bin/nnUNetv2_{line.split()[0]}', *line.split()[1:]], check=True, cwd=own,
                       env=os.environ | variables | more, capture_output=True)
    for case in split['test']:
        maps = [nib.load(folder / f'{case}.nii.gz')
                for folder in (own / 'maps', Path(tmp_path, mine['method']['label_maps']))]
        np.testing.assert_array_equal(*(np.asarray(image.dataobj) for image in maps))
    scored = children.run([sys.executable, REPO / 'tools/score.py', own / 'maps', '--dataset', 'hippocampus',
                           '--method', 'nnunet', '--out', 'scored', '--seed', '3'], tmp_path)
    assert scored.returncode == 0, scored.stderr
    [theirs] = (json.loads(path.read_text()) for path in (tmp_path / 'scored/records').iterdir())
    assert all(mine[key] == theirs[key] for key in ('cell', 'seed', 'scores', 'data'))
    assert all(mine['method'][key] == theirs['method'][key] == [] for key in ('missing', 'notes'))
