"""Prediction as a user calls it: by a checkpoint alone, of folders; and that no tool writes over what it reads."""

import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import REPO, call_tool
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS

from mmseg_plugins import segmenting
from mmseg_plugins.carried import carry, find_differences
from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.images import find_images
from mmseg_plugins.datasets.volumes import Volume
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation.metrics import dsc
from mmseg_plugins.evaluation.scores import compare
from mmseg_plugins.experiment import load_config
from mmseg_plugins.inference import load_model, predict_volume

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
    carried = carry(cfg, read_index(prepared))
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=dict(carried=carried)), path)
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


def labels_of(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_a_checkpoint_is_enough(files, checkpoint, prepared, capsys):
    """Neither config nor data is here; given, the config counts, and where it differs is said."""
    call_tool('predict', checkpoint, 'a.nii.gz', 'own.nii')
    assert ' ml\n' in capsys.readouterr().out
    call_tool('predict', CONFIG, checkpoint, 'a.nii.gz', 'given.nii', *options(prepared))
    assert 'warning' not in capsys.readouterr().out
    np.testing.assert_array_equal(labels_of('own.nii'), labels_of('given.nii'))
    call_tool('predict', CONFIG, checkpoint, 'a.nii.gz', 'far.nii', *options('nowhere/hippocampus', stride=2))
    assert (f'warning: {CONFIG.name}: experiment.stride is 2, the checkpoint was trained with 1; the config counts'
            in capsys.readouterr().out)
    half = options(prepared, inference_precision='bf16')
    call_tool('predict', CONFIG, checkpoint, 'a.nii.gz', 'half.nii', *half)
    assert ("experiment.inference_precision is 'bf16', the checkpoint was trained with 'fp32'"
            in capsys.readouterr().out)
    lifted = load_config(CONFIG, {'experiment.data_root': str(prepared), 'experiment.lifting': 'joint'})
    assert "experiment.lifting is 'joint', the checkpoint was trained with 'kernel'" in find_differences(
        lifted, read_index(prepared), torch.load(checkpoint, weights_only=True))
    held = torch.load(checkpoint, weights_only=True)['meta']['carried']
    assert str(prepared) not in json.dumps(held)  # where things lie is nobody else's business


def test_images_go_through_what_they_do_in_evaluation(prepared, checkpoint):
    cfg, seen = load_config(CONFIG, {'experiment.data_root': str(prepared), 'experiment.source': None}), []
    pipeline = cfg.test_dataloader.dataset.pipeline

    def step(data):
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            sample.pred_sem_seg = PixelData(data=torch.zeros(1, *sample.ori_shape))
            seen.append((tuple(image.shape[1:]), sample.img_shape))
        return data['data_samples']

    def predict():
        volume = Volume(np.zeros((2, 1, 9, 7), np.int16), None, np.eye(4), (2, 1, 0), (False,) * 3)
        predict_volume(SimpleNamespace(channels=1, test_step=step), volume, cfg, read_index(prepared))
        return seen.pop()

    size = cfg.experiment.img_size
    assert predict() == ((size, size), (size, size))
    fits, whole = 1, step

    def step(data):
        if len(data['inputs']) > fits:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return whole(data)
    assert predict() == ((size, size), (size, size)) and len(seen) == 2  # one at a time then
    fits = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        predict()
    step = whole
    del pipeline[[part.type for part in pipeline].index('ResizeWindow')]  # windows are slid over the slice itself
    assert predict() == ((9, 7), (9, 7))
    pipeline.insert(1, dict(type='RandomWindowFlip', prob=1.0))
    with pytest.raises(UserError, match='its test pipeline has RandomWindowFlip, which is not done here'):
        load_model(cfg, None, checkpoint, 'cpu')


def test_a_reference_is_scored(files, checkpoint, capsys):
    call_tool('predict', checkpoint, 'a.nii.gz', 'o.nii', '--truth', 'truth.nii.gz')
    truth, label = labels_of('truth.nii.gz'), labels_of('o.nii')
    said = capsys.readouterr().out.splitlines()[:2]
    found = [float(line.split('DSC ')[1].split(' %')[0]) for line in said]
    assert [('HD95' in line) for line in said] == [bool((label == number).any()) for number in (1, 2)]
    assert found == pytest.approx(dsc(compare(truth, label, 3, (1, 1, 1)))[1:], abs=0.01)


def save_changed(checkpoint, path, change) -> Path:
    content = torch.load(checkpoint, weights_only=True)
    change(content['meta']['carried'])
    torch.save(content, path)
    return path


SMUGGLED = [  # place in the carried config, what is put there, what is said; None: it is passed over
    (('model', 'neck', 'type'), 'os.system', "names 'os.system', which is not registered"),
    (('model', 'neck', 'type'), 'TIMMBackbone', 'of mmseg, which may do more than compute'),
    (('model', 'decode_head', 'norm_cfg'), ({'type': 'os.system', 'command': 'touch ran'},), 'more than plain'),
    (('model', 'decode_head', 'norm_cfg'), [[{'type': 'antigravity'}]], "'antigravity'"),
    (('model', 'decode_head', 'loss_decode'), {'type': 'CrossEntropyLoss', 'class_weight': 'evil.pkl'}, None),
    (('model', 'decode_head', 'init_cfg'), {'type': 'Pretrained', 'checkpoint': 'evil.pkl'}, None),
    (('model', 'backbone', 'source'), 'evil.pkl', None),
    (('model', 'backbone', 'sizes', 'checkpoint_path'), 'evil.pkl', 'sizes.checkpoint_path'),
    (('experiment', 'slices'), 0, 'experiment.slices=0'), (('pipeline',), None, 'not as tools/train.py writes it'),
    (('pipeline',), [{'enlarge': 'area'}], 'not as tools/train.py writes it')]


class Evil:
    def __reduce__(self):
        return Path.touch, (Path('ran'),)


@pytest.mark.parametrize('place, value, text', SMUGGLED)
def test_a_checkpoint_is_read_as_data(files, checkpoint, place, value, text):
    """Whatever stands where its config would be, nothing of it runs, and no file that it names is read."""
    Path('evil.pkl').write_bytes(pickle.dumps(Evil()))
    Path('antigravity.py').write_text('open("ran", "w")')

    def change(carried):
        *parts, last = ('config', *place)
        for part in parts:
            carried = carried[part]
        carried[last] = value
    spoilt = save_changed(checkpoint, 'spoilt.pth', change)
    if text is None:
        call_tool('predict', spoilt, 'a.nii.gz', 'o.nii')
    else:
        with pytest.raises(UserError, match=text):
            call_tool('predict', spoilt, 'a.nii.gz', 'o.nii')
    assert not Path('ran').exists() and Path('o.nii').exists() == (text is None)


@pytest.mark.parametrize('key, value', [('headline', [99]), ('labels', ['background']), ('channels', 0),
                                        ('intensity', dict(sound='loud', paper='maximum'))])
def test_what_it_carries_of_its_data_is_checked(files, checkpoint, key, value):
    spoilt = save_changed(checkpoint, 'spoilt.pth', lambda carried: carried['data'].update({key: value}))
    with pytest.raises(UserError, match='not as tools/train.py writes it'):
        call_tool('predict', spoilt, 'a.nii.gz', 'o.nii')
    later = save_changed(checkpoint, 'later.pth', lambda carried: carried['data'].update(of_a_later_version=1))
    call_tool('predict', later, 'a.nii.gz', 'o.nii')


@pytest.mark.parametrize('key', ['nominal_spacing', 'citation'])  # which an index may lack, and no checkpoint
def test_what_predictions_ask_of_its_data_is_there(files, checkpoint, key):
    spoilt = save_changed(checkpoint, 'spoilt.pth', lambda carried: carried['data'].pop(key))
    with pytest.raises(UserError, match='not as tools/train.py writes it'):
        call_tool('predict', spoilt, 'a.nii.gz', 'o.nii')


def test_no_module_is_imported_because_a_checkpoint_says_so(files, checkpoint, monkeypatch):
    Path('theirs_of_this_test.py').write_text('from pathlib import Path\nPath("imported").touch()\n')
    monkeypatch.syspath_prepend(files)
    own = save_changed(checkpoint, 'own.pth', lambda carried: carried.update(imports=['theirs_of_this_test']))
    with pytest.raises(UserError, match='if you have and trust them, give --imports theirs_of_this_test'):
        call_tool('predict', own, 'a.nii.gz', 'o.nii')
    assert not Path('imported').exists()
    call_tool('predict', own, 'a.nii.gz', 'o.nii', '--imports', 'theirs_of_this_test')
    assert Path('imported').exists() and Path('o.nii').exists()


def test_a_folder_is_segmented_scored_and_gone_on_with(files, checkpoint, msd_raw, capsys):
    for folder in ('in', 'truth'):
        Path(folder).mkdir()
    for case, name in (('case_000', 'p1_0000.nii.gz'), ('case_001', 'p2.nii.gz'), ('case_002', 'p3.nii')):
        image = nib.load(msd_raw / f'imagesTr/{case}.nii.gz')
        nib.save(image, f'in/{name}')
    shutil.copy(msd_raw / 'labelsTr/case_000.nii.gz', 'truth/p1.nii.gz')
    Path('in/p4.nii.gz').write_bytes(b'torn')
    Path('in/p5.nii.gz').symlink_to('never fetched')
    call = ['predict', checkpoint, '--input', 'in', '--output', 'out']
    assert call_tool(*call) == 2  # two of five are no images; the others are done
    said = capsys.readouterr()
    assert '2 of 5 could not be segmented: p4, p5' in said.out and 'p4.nii.gz: not NIfTI' in said.err
    assert 'p5.nii.gz: file not found' in said.err
    assert sorted(path.name for path in Path('out').glob('*.nii*')) == ['p1.nii.gz', 'p2.nii.gz', 'p3.nii.gz']
    call_tool('predict', checkpoint, 'in/p1_0000.nii.gz', 'alone.nii')
    np.testing.assert_array_equal(labels_of('out/p1.nii.gz'), labels_of('alone.nii'))

    Path('out/p2.nii.gz').unlink()  # as if a kill had come between its note and its label map
    for name in ('p4', 'p5'):
        Path(f'in/{name}.nii.gz').unlink()
    times = {name: Path(f'out/{name}').stat().st_mtime_ns for name in ('p1.nii.gz', 'p3.nii.gz')}
    nib.save(nib.load(msd_raw / 'imagesTr/case_004.nii.gz'), 'in/p3.nii')  # another image in its place
    shutil.copy('truth/p1.nii.gz', 'truth/p9.nii.gz')
    assert not call_tool(*call, '--truth', 'truth', '--overlay', 'pictures')
    said = capsys.readouterr().out
    assert '1 of 3 are done already' in said and said.splitlines()[-1] == str(files / 'out')
    assert 'left out, no image is called so: p9' in said
    assert {name: Path(f'out/{name}').stat().st_mtime_ns == time for name, time in times.items()} == {
        'p1.nii.gz': True, 'p3.nii.gz': False}
    assert Path('out/p2.nii.gz').exists() and len(list(Path('pictures').glob('*.png'))) == 3
    scores = json.loads(Path('out/scores.json').read_text())
    figures = dsc(compare(labels_of('truth/p1.nii.gz'), labels_of('alone.nii'), 3, (1, 1, 1)))[1:]
    assert [label['dsc'] for label in scores['cases']['p1'].values()] == pytest.approx(figures)
    assert set(scores['cases']) == {'p1'} and Path('out/scores.csv').read_text().startswith('case,label,dsc')
    shutil.move('truth/p1.nii.gz', 'truth/p8.nii.gz')
    with pytest.raises(UserError, match='no label map of the images; name each by its case, as p1.nii.gz, not p8'):
        call_tool(*call, '--truth', 'truth')


def test_label_maps_of_another_call_are_never_taken_for_ones_own(files, checkpoint):
    other = save_changed(checkpoint, 'other.pth', lambda carried: carried['config']['experiment'].update(stride=2))
    for folder, name in (('x', 'a'), ('y', 'b')):
        Path(folder).mkdir()
        shutil.copy(f'{name}.nii.gz', folder)

    def predict(made_by, folder, *more):
        return call_tool('predict', made_by, '--input', folder, '--output', 'out', *more)
    predict(checkpoint, 'x')
    predict(other, 'y')  # beside those, of another checkpoint
    for more in ([], ['--dry-run']):
        with pytest.raises(UserError, match='out/a.nii.gz: is there, made by another call'):
            predict(other, 'x', *more)
    predict(other, 'x', '--dry-run', '--overwrite')
    with pytest.raises(UserError, match='made by another call'):
        call_tool('predict', CONFIG, checkpoint, '--input', 'x', '--output', 'out',
                  *options('nowhere/hippocampus', stride=3))  # settings count, not the config's name
    before = Path('out/a.nii.gz').stat().st_mtime_ns
    predict(checkpoint, 'x')
    assert Path('out/a.nii.gz').stat().st_mtime_ns == before
    predict(checkpoint, 'x', '--overwrite')
    assert Path('out/a.nii.gz').stat().st_mtime_ns > before
    Path('pictures').mkdir()
    Path('pictures/a.png').write_text('mine')
    for more in ([], ['--truth', 'x']):  # of which a label map that is there does not tell
        with pytest.raises(UserError, match='pictures/a.png: is there'):
            predict(checkpoint, 'x', '--overlay', 'pictures', *more)
    predict(checkpoint, 'x', '--overlay', 'others')
    assert Path('others/a.png').exists() and not predict(checkpoint, 'x', '--overlay', 'others')
    shutil.copy('c.nii.gz', 'x/a.nii.gz')  # so that its label map is to be made again, and the picture with it
    with pytest.raises(UserError, match='pictures/a.png: is there'):
        predict(checkpoint, 'x', '--overlay', 'pictures')
    assert Path('pictures/a.png').read_text() == 'mine'
    Path('mine').mkdir()
    for name in ('a.nii.gz', 'scores.csv'):
        Path(f'mine/{name}').write_text('mine')
        with pytest.raises(UserError, match=f'mine/{name}: is there, made by something else'):
            call_tool('predict', checkpoint, '--input', 'x', '--output', 'mine')
        Path(f'mine/{name}').unlink()


def test_one_image_that_does_not_fit_into_memory_does_not_end_the_others(files, checkpoint, monkeypatch, capsys):
    Path('in').mkdir()
    for name in 'ab':
        shutil.copy(f'{name}.nii.gz', 'in')
    calls = iter((torch.OutOfMemoryError('CUDA out of memory'), None))
    real = segmenting.predict_volume

    def predict(*arguments, **more):
        if error := next(calls):
            raise error
        return real(*arguments, **more)
    monkeypatch.setattr(segmenting, 'predict_volume', predict)
    assert call_tool('predict', checkpoint, '--input', 'in', '--output', 'out') == 2
    assert 'a: 6 x 1 x 21 x 18 voxels do not fit into memory' in capsys.readouterr().err
    assert not Path('out/a.nii.gz').exists() and Path('out/b.nii.gz').exists()


@pytest.mark.parametrize('names, channels, cases', [
    ('a.nii b.nii.gz', 1, {'a': 1, 'b': 1}), ('a_0000.nii b_0000.nii', 1, {'a': 1, 'b': 1}),
    ('img_0000.nii img_0001.nii', 1, {'img_0000': 1, 'img_0001': 1}),  # numbers of cases
    ('a_0000.nii a_0001.nii b.nii', 2, {'a': 2, 'b': 1}), ('a_0001.nii a_0002.nii', 2, {'a_0001': 1, 'a_0002': 1}),
    ('a_0000.nii b.nii', 2, "lacks its channel a_0001"), ('a_0000.nii a_0001.nii a_0002.nii', 2, 'has 3 channels'),
    ('a.nii a.nii.gz', 1, "case 'a' has a.nii too"), ('a.nii a_0000.nii', 1, "case 'a' has"),
    ('a.nrrd .b.nii', 1, 'no file named .nii.gz or .nii')])
def test_images_of_a_folder_by_case(tmp_path, names, channels, cases):
    for name in names.split():
        (tmp_path / name).touch()
    if isinstance(cases, str):
        with pytest.raises(UserError, match=cases):
            find_images(tmp_path, channels, 2)
    else:
        images, notes = find_images(tmp_path, channels, 2)
        assert {image.name: len(image.files) for image in images} == cases
        assert bool(notes) == ('img_0001' in names)  # cases' numbers, or channels'


def test_a_split_is_scored_as_evaluation_does(files, checkpoint, prepared, msd_raw, capsys):
    Path('data/prepared').mkdir(parents=True)
    Path('data/prepared/hippocampus').symlink_to(prepared)
    call_tool('predict', checkpoint, '--dataset', 'hippocampus', '--split', 'train', '--output', 'out')
    index, scores = read_index(prepared), json.loads(Path('out/scores.json').read_text())
    trained = len(index['split']['train'])
    assert f'warning: {trained} of {trained} cases were trained on' in capsys.readouterr().out
    assert set(scores['cases']) == set(index['split']['train'])
    case = index['split']['train'][0]
    call_tool('predict', checkpoint, msd_raw / f'imagesTr/{case}.nii.gz', 'alone.nii')
    np.testing.assert_array_equal(labels_of(f'out/{case}.nii.gz'), labels_of('alone.nii'))
    np.testing.assert_allclose(nib.load(f'out/{case}.nii.gz').affine, nib.load('alone.nii').affine, atol=1e-5)
    figures = dsc(compare(labels_of(msd_raw / f'labelsTr/{case}.nii.gz'), labels_of('alone.nii'), 3, (1, 1, 1)))
    assert [label['dsc'] for label in scores['cases'][case].values()] == pytest.approx(figures[1:])


def test_calls_that_exclude_themselves(files, checkpoint):
    Path('in').mkdir()
    shutil.copy('a.nii.gz', 'in/a.nii.gz')
    for call, text in (('--input in', 'name the folder'), ('a.nii.gz --input in --output o', 'a file beside'),
                       ('a.nii.gz o.nii --output o', 'goes with'), ('--input in --output in', 'would overwrite'),
                       ('--input in --output a.nii.gz', 'no folder'), ('a.nii.gz', 'name an image'),
                       ('--input in --dataset d --output o', 'exclude each other'),
                       ('a.nii.gz o.nii --cfg-options experiment.stride=2', 'name it before the checkpoint')):
        with pytest.raises(UserError, match=text):
            call_tool('predict', checkpoint, *call.split())
    assert [path.name for path in Path('in').iterdir()] == ['a.nii.gz']
