"""The tools as a user calls them: distributed training and evaluation, prediction, mistakes."""

import json
import os
import shlex
import sys
from pathlib import Path

import children
import nibabel as nib
import numpy as np
import pytest
import timm
import torch
from children import finish
from conftest import REPO, call_tool, free_port, write_msd
from mmengine.runner import Runner

from mmseg_plugins.datasets import read_index
from mmseg_plugins.errors import UserError

CONFIG = 'configs/mini_beit_centering_hippocampus.py'


def run(command: list, check: int = 0, **environment: str) -> str:
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    result = children.run(command, **dict(PORT=str(free_port()), PATH=path) | environment)
    assert result.returncode == check, result.stdout + result.stderr
    return result.stderr + result.stdout


def options(prepared: Path, **experiment) -> list[str]:
    values = dict(data_root=prepared, source=None, steps=3, warmup=1, batch=4, slices=3, evaluate='train',
                  checkpoint_interval=3) | experiment
    return ['--cfg-options', *(f'experiment.{key}={value}' for key, value in values.items())]


@pytest.fixture(scope='module')
def trained(prepared, tmp_path_factory) -> Path:
    """A checkpoint trained in two processes."""
    work = tmp_path_factory.mktemp('work')
    log, arguments = work / 'log', ['--launcher', 'pytorch', '--work-dir', work, *options(prepared)]
    finish(children.start_ranks(2, children.script, ['tools/train.py', CONFIG, *arguments], log))
    assert log.read_text().strip().splitlines()[-1] == str(work)
    return work / 'iter_3.pth'


def test_evaluation_by_several_processes(trained, prepared, tmp_path):
    choice = ['--work-dir', tmp_path, *options(prepared)]
    run([sys.executable, 'tools/test.py', CONFIG, trained, '--out', tmp_path / '1.json', *choice])
    run(['tools/dist_test.sh', CONFIG, trained, 2, '--out', tmp_path / '2.json', *choice])
    one, two = (json.loads((tmp_path / f'{n}.json').read_text()) for n in (1, 2))
    assert one == two and 0 < one['mean']['dsc_pooled'] < 100
    cases = read_index(prepared)['split']['train']
    assert sorted(one['cases']) == sorted(cases)
    assert (tmp_path / '1.csv').read_text() == (tmp_path / '2.csv').read_text()


def test_metrics_take_no_files_place(trained, prepared, tmp_path):
    (tmp_path / 'm.json').write_text('{}')
    for out, message in ((tmp_path / 'm.json', 'or give --overwrite'),
                         (prepared / 'new.json', 'would overwrite this input')):
        with pytest.raises(UserError, match=message):
            call_tool('test', REPO / CONFIG, trained, '--work-dir', tmp_path, '--out', out, *options(prepared))
    with pytest.raises(UserError, match='does not fit the config'):  # that far it comes
        call_tool('test', REPO / CONFIG, trained, '--work-dir', tmp_path, '--out', tmp_path / 'm.json',
                  '--overwrite', *options(prepared, slices=5))


def test_memory_that_an_evaluation_lacks_is_one_line(trained, prepared, tmp_path, monkeypatch):
    def fail(self):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Runner, 'test', fail)
    with pytest.raises(UserError, match='in the evaluation; take a smaller test_dataloader.batch_size'):
        call_tool('test', REPO / CONFIG, trained, '--work-dir', tmp_path, *options(prepared))


def test_training_resumes_though_a_kill_left_the_note_of_its_last_checkpoint_empty(prepared, tmp_path):
    train = [sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path, '--resume']
    run([*train, *options(prepared, steps=2, checkpoint_interval=1)])
    (tmp_path / 'last_checkpoint').write_text('')
    output = run([*train, *options(prepared, steps=3, checkpoint_interval=1)])
    assert 'resumed epoch: 0, iter: 2' in output and (tmp_path / 'iter_3.pth').exists()


def test_prediction_equals_the_evaluations(trained, prepared, msd_raw, tmp_path):
    """The same windows, the same resizing: the DSC of predicted files is what the metric reports."""
    index = json.loads((prepared / 'index.json').read_text())
    [case] = index['split']['test']
    out = tmp_path / 'label.nii'
    call_tool('predict', REPO / CONFIG, trained, msd_raw / 'imagesTr' / f'{case}.nii.gz', out, *options(prepared))
    run([sys.executable, 'tools/test.py', CONFIG, trained, '--work-dir', tmp_path, '--out', tmp_path / 'm.json',
         *options(prepared, evaluate='test')])
    predicted, truth = (np.asarray(nib.load(path).dataobj)
                        for path in (out, msd_raw / 'labelsTr' / f'{case}.nii.gz'))
    dice = [200 * ((predicted == k) & (truth == k)).sum() / ((predicted == k).sum() + (truth == k).sum())
            for k in (1, 2)]
    found = json.loads((tmp_path / 'm.json').read_text())
    assert found['mean']['dsc'] == pytest.approx(np.mean(dice))
    assert [figures['dsc'] for figures in found['cases'][case].values()] == pytest.approx(dice)


@pytest.mark.parametrize('command, message', [
    (['tools/dist_train.sh', 'configs/beit_centering_bcx.py', 2], 'did you mean'),
    ([sys.executable, 'tools/train.py', 'configs/swin_centering_bcv.py', '--cfg-options',
      'experiment.data_root=/no/bcv'],
     f'{shlex.quote(str(REPO / "tools/prepare_data.py"))} bcv'),
    ([sys.executable, 'tools/train.py', CONFIG, '--cfg-options', 'experiment.slcies=3'], "did you mean 'slices'"),
    ([sys.executable, 'tools/train.py', CONFIG, '--cfg-options', 'experiment.inflation=centring'],
     "did you mean 'centering'"),
    ([sys.executable, 'tools/test.py', CONFIG, 'no.pth'], 'no.pth: checkpoint not found'),
    ([sys.executable, 'tools/prepare_data.py', 'hipocampus'], "did you mean 'hippocampus'"),
])
def test_a_mistake_is_one_line_and_status_2(command, message):
    output = run(command, check=2)
    assert message in output and len(output.strip().splitlines()) == 1


@pytest.mark.parametrize('experiment, message', [
    (dict(split='trian'), "did you mean 'train'"), (dict(slices='five'), 'whole number'),
    (dict(accumulate=0), 'at least 1'), (dict(evaluate='tset'), "did you mean 'test'")])
def test_a_wrong_experiment_is_named_before_training(prepared, experiment, message):
    command = [sys.executable, 'tools/train.py', CONFIG, '--dry-run', *options(prepared, **experiment)]
    output = run(command, check=2)
    assert message in output and len(output.strip().splitlines()) == 1


def test_a_checkpoint_of_another_config_is_refused(trained, prepared, tmp_path):
    output = run([sys.executable, 'tools/test.py', CONFIG, trained, '--work-dir', tmp_path,
                  *options(prepared, slices=5)], check=2)
    assert 'does not fit the config' in output and 'Traceback' not in output


def test_training_stops_where_the_loss_is_no_number(prepared, tmp_path):
    wild = options(prepared, lr='1e30', steps=20, warmup=0, checkpoint_interval=100)
    output = run([sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path, *wild], check=2)
    assert 'error: the loss became nan in step' in output and not list(tmp_path.glob('iter_*.pth'))


def test_a_missing_source_is_named_before_training(prepared, tmp_path):
    output = run([sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path / 'work',
                  *options(prepared, source='/no/beit.pth')], check=2)
    assert '/no/beit.pth: source checkpoint not found' in output and not (tmp_path / 'work').exists()


@pytest.mark.parametrize('tool, file', [
    ('prepare_data', 'split.json'), ('prepare_data', 'notes.txt'), ('prepare_data', 'imagesTr'),
    ('verify_data', 'report.json'), ('verify_data', 'cases.csv')])
def test_what_others_have_in_a_folder_is_not_replaced(tmp_path, tool, file):
    raw, out = write_msd(tmp_path / 'Task04_Hippocampus', cases=2), tmp_path / 'out'
    out.mkdir()
    (out / file).write_text('{}')
    with pytest.raises(UserError, match=f'out.*{file if tool == "prepare_data" else "not of an earlier call"}'):
        call_tool(tool, 'hippocampus', '--raw', raw, '--out', out, '--workers', '1')
    assert [path.name for path in out.iterdir() if not path.name.startswith('.')] == [file]
    (out / file).unlink()
    for _ in range(2):
        call_tool(tool, 'hippocampus', '--raw', raw, '--out', out, '--workers', '1')


def test_preparation_goes_on_with_the_good_cases_and_ends_with_2(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=4)
    (raw / 'imagesTr' / 'case_002.nii.gz').write_bytes(b'torn')
    output = run([sys.executable, 'tools/prepare_data.py', 'hippocampus', '--raw', raw, '--out', tmp_path / 'out'],
                 check=2)
    assert 'case_002.nii.gz' in output and '3 cases prepared, 1 left out' in output


def test_a_dry_run_approves_what_will_start_alone(trained, prepared, msd_raw, tmp_path, capsys):
    """A source or a size that does not fit is found without training, in every tool that has a --dry-run."""
    source = tmp_path / 'vit.pth'
    torch.save(timm.create_model('vit_tiny_patch16_224').state_dict(), source)
    place = ['--work-dir', tmp_path / 'work']
    for tool, config, more in (('train', CONFIG, []),
                               ('pretrain', 'configs/mini_beit_dino_phantom.py', ['--out', tmp_path / 'x.pth'])):
        call, slices = [tool, REPO / config, '--dry-run', *place, *more], 3 if tool == 'train' else 1
        call_tool(*call, *options(prepared, slices=slices))
        assert '3 steps of 4 windows' in capsys.readouterr().out
        if tool == 'train':
            call_tool(*call, *options(prepared, slices=4))
            assert '4 slices (2 before the centre slice, 1 behind it)' in capsys.readouterr().out
        with pytest.raises(UserError, match='does not fit the encoder'):
            call_tool(*call, *options(prepared, slices=slices, source=source))
        with pytest.raises(UserError, match='cannot be built|no multiple of its patch'):
            call_tool(*call, *options(prepared, slices=slices, img_size=60))
    assert not (tmp_path / 'work').exists() and not (tmp_path / 'x.pth').exists()
    image = msd_raw / 'imagesTr/case_000.nii.gz'
    call_tool('predict', '--dry-run', trained, image, tmp_path / 'o.nii')
    assert 'fits, 1 image to segment' in capsys.readouterr().out and not (tmp_path / 'o.nii').exists()
    with pytest.raises(UserError, match='does not fit the config'):
        call_tool('predict', '--dry-run', REPO / CONFIG, trained, image, tmp_path / 'o.nii',
                  *options(prepared, slices=5))
