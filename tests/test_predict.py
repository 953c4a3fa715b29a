"""Prediction as a user calls it, and that no tool writes over a file it reads."""

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import REPO, call_tool
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config

CONFIG = REPO / 'configs/mini_beit_centering_hippocampus.py'


def options(prepared, **experiment) -> list[str]:
    values = dict(data_root=prepared, source=None, slices=3) | experiment
    return ['--cfg-options', *(f'experiment.{key}={value}' for key, value in values.items())]


@pytest.fixture(scope='module')
def checkpoint(prepared, tmp_path_factory) -> Path:
    init_default_scope('mmseg')
    cfg = load_config(CONFIG, {'experiment.data_root': str(prepared), 'experiment.source': None,
                               'experiment.slices': 3})
    path = tmp_path_factory.mktemp('random') / 'iter_0.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return path


@pytest.fixture
def files(msd_raw, tmp_path, monkeypatch) -> Path:
    """A folder with images a, b and c, a label of a, and a config and a checkpoint that nothing may reach."""
    monkeypatch.chdir(tmp_path)
    for name, case in zip('abc', ('case_000', 'case_001', 'case_002'), strict=True):
        shutil.copy(msd_raw / 'imagesTr' / f'{case}.nii.gz', f'{name}.nii.gz')
    shutil.copy(msd_raw / 'labelsTr/case_000.nii.gz', 'truth.nii.gz')
    Path('own.py').write_text(f'_base_ = {str(CONFIG)!r}\n')
    Path('torn.pth').write_bytes(b'no checkpoint')
    Path('link.nii.gz').symlink_to('a.nii.gz')
    Path('hard.nii.gz').hardlink_to('a.nii.gz')
    Path('nowhere.nii.gz').symlink_to('gone.nii.gz')
    Path('folder.nii.gz').mkdir()
    Path('torn.nii.gz').hardlink_to('torn.pth')
    Path('own.nii.gz').symlink_to('own.py')
    Path('truth.png').hardlink_to('truth.nii.gz')
    return tmp_path


def test_prediction_lies_on_the_image(checkpoint, prepared, msd_raw, tmp_path, capsys):
    image = msd_raw / 'imagesTr' / 'case_003.nii.gz'
    out, picture = tmp_path / 'not there yet/label.nii.gz', tmp_path / 'overlay.png'
    call_tool('predict', CONFIG, checkpoint, image, out, '--overlay', picture, *options(prepared))
    label = nib.load(out)
    np.testing.assert_array_equal(label.affine, nib.load(image).affine)
    assert label.shape == nib.load(image).shape and np.asarray(label.dataobj).max() <= 2
    assert capsys.readouterr().out.splitlines()[-2:] == [str(out), str(picture)] and picture.stat().st_size > 5000


def test_where_voxel_sizes_are_nominal_volumes_are_in_voxels(files, checkpoint, prepared, capsys):
    call_tool('predict', CONFIG, checkpoint, 'a.nii.gz', 'true.nii', *options(prepared))
    assert ' ml\n' in capsys.readouterr().out
    shutil.copytree(prepared, 'data')
    index = json.loads(Path('data/index.json').read_text())
    Path('data/index.json').write_text(json.dumps(index | dict(nominal_spacing=True)))
    call_tool('predict', CONFIG, checkpoint, 'a.nii.gz', 'nominal.nii', *options('data'))
    said, label = capsys.readouterr().out, np.asarray(nib.load('nominal.nii').dataobj)
    assert f'Anterior: {(label == 1).sum():,} voxels\n' in said and ' ml' not in said and 'are nominal' in said


READ = ['a.nii.gz a.nii.gz', 'a.nii.gz ./a.nii.gz', 'a.nii.gz folder.nii.gz/../a.nii.gz', 'a.nii.gz link.nii.gz',
        'link.nii.gz a.nii.gz', 'a.nii.gz hard.nii.gz', 'a.nii.gz torn.nii.gz', 'a.nii.gz own.nii.gz',
        'a.nii.gz truth.nii.gz --truth truth.nii.gz --overlay o.png',
        'a.nii.gz o.nii.gz --truth truth.nii.gz --overlay truth.png']
EXISTING = ['a.nii.gz b.nii.gz', 'a.nii.gz b.nii.gz c.nii.gz', 'a.nii.gz nowhere.nii.gz',
            'a.nii.gz o.nii.gz --overlay truth.png']


@pytest.mark.parametrize('call, text', [
    *((f'{call}{more}', 'would overwrite this input') for call in READ for more in ('', ' --overwrite')),
    *((call, 'would overwrite this file') for call in EXISTING),
    ('a.nii.gz b.nii.gz o.nii.gz', 'b.nii.gz: one of 2 images, but hippocampus has 1 channel'),
    ('a.nii.gz link.nii.gz o.nii.gz', 'named twice'), ('a.nii.gz folder.nii.gz', 'a folder'),
    ('a.nii.gz folder.nii.gz --overwrite', 'a folder'), ('a.nii.gz o.nrrd', 'must be named .nii or .nii.gz'),
    ('a.nii.gz o.nii.gz --overlay o.nii', 'must be named .png'),
    ('a.nii.gz o.nii.gz --truth truth.nii.gz', 'name one with --overlay'),
    ('a.nii.gz no.nii.gz/o.nii.gz', 'torn.pth: holds more')])  # all is well up to the checkpoint
def test_what_must_not_be_written_is_refused_before_the_model_is_read(files, prepared, call, text):
    before = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=text):
        call_tool('predict', 'own.py', 'torn.pth', *call.split(), *options(prepared))
    assert {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()} == before


@pytest.mark.parametrize('name', ['a.nii.gz/o.nii.gz', 'x' * 300 + '.nii.gz'])
def test_a_place_that_cannot_be_written_is_found_before_the_model_is_read(files, prepared, name):
    with pytest.raises(OSError) as caught:
        call_tool('predict', 'own.py', 'torn.pth', 'b.nii.gz', name, *options(prepared))
    assert caught.value.filename in (str(files / name), str(files / name.partition('/')[0]))


def test_a_label_map_that_is_there_is_replaced_where_that_is_asked_for(files, checkpoint, prepared):
    call_tool('predict', CONFIG, checkpoint, 'a.nii.gz', 'b.nii.gz', '--overwrite', *options(prepared))
    assert nib.load('b.nii.gz').get_data_dtype() == np.uint8


def test_units_are_kept_and_an_odd_one_is_said(files, checkpoint, prepared, capsys):
    for unit, scale in (('micron', 1000), ('meter', 1)):
        image = nib.load('a.nii.gz')
        made = nib.Nifti1Image(np.asarray(image.dataobj), np.diag([scale] * 3 + [1]) @ image.affine)
        made.header.set_xyzt_units(unit, 'msec')
        nib.save(made, 'in.nii')
        call_tool('predict', CONFIG, checkpoint, 'in.nii', f'{unit}.nii', *options(prepared))
        written = nib.load(f'{unit}.nii').header
        assert written.get_xyzt_units() == (unit, 'msec') and int(written['sform_code']) == 2
        assert written.get_zooms() == made.header.get_zooms()
        assert ('in.nii: voxels are 3000 mm apart' in capsys.readouterr().out) == (unit == 'meter')


@pytest.mark.parametrize('folder', ['My Spine, 1=2', '2024', 'Rückenmark', '~'])
def test_paths_may_hold_anything(files, checkpoint, prepared, monkeypatch, capsys, folder):
    """Those of config, checkpoint, data, images and what is written."""
    shutil.copytree(prepared, Path(folder) / 'data')
    shutil.copy(checkpoint, Path(folder) / '7')
    for name in ('a.nii.gz', 'truth.nii.gz', 'own.py'):
        shutil.copy(name, Path(folder))
    monkeypatch.chdir(folder)
    call_tool('predict', *options('data'), '--', 'own.py', '7', 'a.nii.gz', '-1.nii')
    assert capsys.readouterr().out.splitlines()[-1] == os.path.abspath('-1.nii') and Path('-1.nii').is_file()
    monkeypatch.chdir(files)
    place = f'./{folder}' if folder == '~' else folder
    call_tool('predict', f'{place}/own.py', f'{place}/7', f'{place}/a.nii.gz', f'{place}/1.nii.gz',
              f'--overlay={place}/1.png', f'--truth={place}/truth.nii.gz', *options(f'{place}/data'))
    assert capsys.readouterr().out.splitlines()[-2:] == [
        str(files / folder / '1.nii.gz'), str(files / folder / '1.png')]
    one, other = (nib.load(files / folder / name).dataobj for name in ('1.nii.gz', '-1.nii'))
    np.testing.assert_array_equal(one, other)


def test_a_tilde_that_the_shell_leaves_is_the_users_home(files, checkpoint, prepared, monkeypatch):
    monkeypatch.setenv('HOME', str(files))
    shutil.copytree(prepared, 'data')
    call_tool('predict', '~/own.py', checkpoint, '~/a.nii.gz', '~/1.nii', '--overlay=~/1.png', *options('~/data'))
    assert Path('1.nii').is_file() and Path('1.png').is_file() and not Path('~').exists()


def test_a_checkpoint_of_another_config_is_refused(files, checkpoint, prepared):
    with pytest.raises(UserError, match='does not fit the config'):
        call_tool('predict', CONFIG, checkpoint, 'a.nii.gz', 'o.nii', *options(prepared, slices=5))


def test_no_tool_writes_over_what_it_reads(files, prepared, checkpoint):
    shutil.copytree(prepared, 'data')
    for name in ('weights.json', 'x.safetensors', 'y.safetensors'):
        shutil.copy(checkpoint, name)
    Path('work').mkdir()
    shutil.move('own.py', 'work/own.py')
    before = {path: path.read_bytes() for path in files.rglob('*') if path.is_file()}
    for text, *call in (
            ('would overwrite', 'test', CONFIG, 'weights.json', '--out', 'weights.json'),
            ('would overwrite', 'test', CONFIG, 'weights.json', '--out', './data/index.json'),
            ('must be named .json', 'test', CONFIG, 'weights.json', '--out', 'a.nii.gz'),
            ('lies in the work dir', 'test', 'work/own.py', 'weights.json', '--work-dir', 'work'),
            ('lies in the work dir', 'train', 'work/own.py', '--work-dir', './work'),
            ('lies in the work dir', 'pretrain', 'work/own.py', '--work-dir', 'work', '--out', 'o.pth'),
            ('overwrite this input', 'pretrain', 'work/own.py', '--out', 'work/own.py', '--overwrite'),
            ('overwrite this file', 'pretrain', 'work/own.py', '--out', 'weights.json')):
        with pytest.raises(UserError, match=text):
            call_tool(*call, *options('data', evaluate='train', batch=1))
    with pytest.raises(UserError, match='overwrite this input'):
        call_tool('pretrain', 'work/own.py', '--out', 'weights.json', '--resume',
                  *options('data', source='weights.json'))
    for out, overwrite, text in (('x.safetensors', '--overwrite', 'input'), ('y.safetensors', '', 'file')):
        with pytest.raises(UserError, match=f'the inflated checkpoint would overwrite this {text}'):
            call_tool('inflate', 'x.safetensors', '--encoder', 'beit', '--out', out, *overwrite.split())
    assert {path: path.read_bytes() for path in files.rglob('*') if path.is_file()} == before
