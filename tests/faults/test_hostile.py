"""Hostile and absurd inputs are refused in one line, before anything runs, is allocated, or leaves its place."""

import copy
import gzip
import json
import pickle
import shutil
import tracemalloc
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import REPO, call_tool, write_msd, write_nifti
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from benchmarks.grid.reader import load_grid
from benchmarks.runs.records import open_record, seal
from mmseg_plugins.checkpoints import read_checkpoint
from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.layouts import describe_folder, find_cases
from mmseg_plugins.datasets.volumes import read_volume
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import read_config
from mmseg_plugins.safe_load import load_checkpoint, load_trained

CONFIG = REPO / 'configs/mini_beit_centering_hippocampus.py'


def refused(call, *texts):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).isprintable() and all(text in str(caught.value) for text in texts), str(caught.value)


class Reduced:
    """Pickled as the call of a function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def shell(tmp_path):
    import os
    return Reduced(os.system, (f'touch {tmp_path}/ran',))


def _globals(tmp_path):
    return Reduced(getattr, (HistoryBuffer.update, '__globals__'))


class Poisoned(dict):
    """`getattr(..., '__globals__')`, into which pickle's SETITEM then writes."""

    def __reduce__(self):
        return getattr, (HistoryBuffer.update, '__globals__'), None, None, iter([('poisoned', 1)])


def _class_attribute(tmp_path):
    return Reduced(getattr, (HistoryBuffer, '__init__'))


def _pointers(tmp_path):
    """A dtype of numbers that the file says are pointers."""
    return Reduced(np.dtype, ('f8', False, True), (3, '<', None, None, None, -1, -1, 1))


HOSTILE = {'a shell': shell, 'globals': _globals, 'a write to globals': lambda _: Poisoned(),
           'an attribute of a class': _class_attribute, 'pointers': _pointers,
           'objects in an array': lambda tmp_path: np.array([shell(tmp_path)], object),
           'a nested pickle': lambda tmp_path: Reduced(pickle.loads, (pickle.dumps(shell(tmp_path)),)),
           'a whole module': lambda _: nn.Linear(2, 2)}


@pytest.mark.parametrize('archive', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('make', HOSTILE.values(), ids=HOSTILE)
def test_nothing_in_a_checkpoint_runs(tmp_path, make, archive):
    path = tmp_path / 'hostile.pth'
    torch.save(dict(state_dict=dict(a=make(tmp_path)), meta={}), path, _use_new_zipfile_serialization=archive)
    for read in (load_checkpoint, load_trained, read_checkpoint,
                 lambda path: CheckpointLoader.load_checkpoint(str(path), 'cpu')):  # resuming, and load_from
        refused(lambda read=read: read(path), 'hostile.pth', 'refused')
    assert not (tmp_path / 'ran').exists() and 'poisoned' not in HistoryBuffer.update.__globals__


def test_what_others_allow_does_not_count(tmp_path):
    """Another package may have told torch that more is safe."""
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=Reduced(json.dumps, ({},))), path)
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([json.dumps])
    try:
        refused(lambda: load_checkpoint(path), 'refused')
        assert json.dumps in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_what_mmengine_writes_is_read(tmp_path):
    history, values = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 1]), np.arange(6, dtype='>u4').reshape(2, 3)
    path = tmp_path / 'iter_3.pth'
    torch.save(dict(loss=history, lr=np.float64(0.5), values=[values, (values.T,)]), path)
    for read in (load_checkpoint, lambda path: CheckpointLoader.load_checkpoint(str(path), 'cpu')):
        found = read(path)
        assert type(found['loss']) is HistoryBuffer and found['loss'].mean() == pytest.approx(7 / 3)
        found['loss'].update(8.0)
        assert found['loss'].max() == 8 and found['lr'] == 0.5
        np.testing.assert_array_equal(found['values'][0], values)
        np.testing.assert_array_equal(found['values'][1][0], values.T)
    torch.save(found, path)  # and again, as a resumed run does
    assert load_checkpoint(path)['loss'].data[0].tolist() == [1, 2, 4, 8]


def test_urls_are_not_fetched():
    refused(lambda: CheckpointLoader.load_checkpoint('https://example.org/a.pth'), 'https://example.org/a.pth')


def test_a_damaged_or_blown_up_checkpoint_is_named(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(weight=torch.zeros(1000))), path)
    whole = path.read_bytes()
    middle = whole.index(bytes(3000)) + 1000
    for content in (whole[:-1], whole[:len(whole) // 2], whole[:middle] + b'\1' + whole[middle + 1:], b''):
        path.write_bytes(content)
        refused(lambda: load_trained(path), 'a.pth', 'cannot be read')
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/data.pkl', bytes(10**6))
    refused(lambda: load_checkpoint(path), 'compressed')


def write_description(raw, **changes):
    path = raw / 'dataset.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope='module')
def secret(tmp_path_factory):
    return write_nifti(tmp_path_factory.mktemp('elsewhere') / 'secret.nii.gz', np.ones((3, 4, 5), np.uint8))


@pytest.mark.parametrize('name', ['../secret.nii.gz', '/etc/passwd', 'imagesTr/../../secret.nii.gz',
                                  'link/secret.nii.gz', 'link.nii.gz', 'loop.nii.gz', 'a\0b.nii.gz',
                                  'a\nb.nii.gz', 'x' * 5000])
@pytest.mark.parametrize('part', ['image', 'label'])
def test_no_path_leads_out_of_a_dataset(tmp_path, secret, name, part):
    raw = write_msd(tmp_path / 'Task99_A', cases=2)
    (raw / 'link').symlink_to(secret.parent)
    (raw / 'link.nii.gz').symlink_to(secret)
    (raw / 'loop.nii.gz').symlink_to('loop.nii.gz')
    entry = dict(image='imagesTr/case_000.nii.gz', label='labelsTr/case_000.nii.gz') | {part: name}
    write_description(raw, training=[entry])
    refused(lambda: find_cases(describe_folder(raw, 'msd')[1], raw), 'dataset.json', 'outside its own folder')


def test_a_link_to_a_whole_dataset_is_followed_and_so_are_links_within(tmp_path):
    raw = write_msd(tmp_path / 'disk' / 'Task99_A', cases=2)
    (raw / 'images').symlink_to('imagesTr')
    write_description(raw, training=[dict(image='images/case_000.nii.gz', label='./labelsTr/case_000.nii.gz')])
    (tmp_path / 'Task99_B').symlink_to(raw)
    link = tmp_path / 'Task99_B'
    assert list(find_cases(describe_folder(link, 'msd')[1], link).cases) == ['case_000']


@pytest.mark.parametrize('file', ['..nii.gz', '.nii.gz', '...nii.gz', '.hidden.nii.gz', 'x' * 120 + '.nii.gz'])
def test_a_case_has_a_name_that_is_a_folders(tmp_path, file):
    raw = write_msd(tmp_path / 'Task99_A', cases=1)
    shutil.copy(raw / 'imagesTr/case_000.nii.gz', raw / 'imagesTr' / file)
    write_description(raw, training=[dict(image=f'imagesTr/{file}', label='labelsTr/case_000.nii.gz')])
    refused(lambda: find_cases(describe_folder(raw, 'msd')[1], raw), 'cannot be a name')


def nnunet(root, **changes):
    raw = root / 'Dataset099_A'
    write_nifti(raw / 'imagesTr/a_0000.nii.gz', np.ones((3, 4, 5), np.uint8))
    write_nifti(raw / 'labelsTr/a.nii.gz', np.ones((3, 4, 5), np.uint8))
    declared = dict(channel_names={'0': 'CT'}, labels=dict(background=0, a=1), file_ending='.nii.gz')
    (raw / 'dataset.json').write_text(json.dumps(declared | changes))
    return raw


@pytest.mark.parametrize('changes', [dict(file_ending='/../../secret.nii.gz'), dict(file_ending=''),
                                     dict(file_ending=['.nii.gz']), dict(labels=dict(background=0, a=1, b=1))])
def test_nnunets_description_cannot_lead_astray(tmp_path, changes):
    raw = nnunet(tmp_path, **changes)
    refused(lambda: find_cases(describe_folder(raw, 'nnunet')[1], raw), 'dataset.json')


@pytest.mark.parametrize('folds', [[dict(train=['../a'], val=[])], [dict(train=['a', 'a'], val=[])], {'0': 1},
                                   [[]], [dict(train='a', val=None)]])
def test_odd_folds_are_refused_and_links_out_too(tmp_path, secret, folds):
    raw = nnunet(tmp_path)
    (raw / 'splits_final.json').write_text(json.dumps(folds))
    info = describe_folder(raw, 'nnunet')[1]
    refused(lambda: find_cases(info, raw), 'splits_final.json')
    (raw / 'labelsTr/a.nii.gz').unlink()
    (raw / 'labelsTr/a.nii.gz').symlink_to(secret)
    refused(lambda: find_cases(info, raw), 'outside its own folder')


@pytest.mark.parametrize('name', ['../out', '/out', '..', '', 'a\nb'])
def test_a_datasets_own_name_stays_below_the_prepared_ones(tmp_path, monkeypatch, name):
    raw = write_msd(tmp_path / 'Task99_A', cases=1)
    monkeypatch.chdir(tmp_path)
    layout = '--layout', 'msd', '--workers', 1
    if name:
        refused(lambda: call_tool('prepare_data', raw, *layout, f'--name={name}'), 'cannot be a name')
    else:
        raw.rename(tmp_path / 'Task99_')
        refused(lambda: call_tool('prepare_data', tmp_path / 'Task99_', *layout), '--name')
    assert [path.name for path in tmp_path.iterdir()] in (['Task99_A'], ['Task99_'])


def header(**fields):
    """A volume of 60 voxels whose header says otherwise."""
    def change(content):
        made = nib.Nifti1Header(content[:348], check=False)
        for name, value in fields.items():
            field, _, place = name.partition('__')
            if place:
                made[field][int(place)] = value
            else:
                made[field] = value
        return made.binaryblock + content[348:]
    return change


ABSURD = {
    'everything': header(dim=[4, 32767, 32767, 32767, 32767, 1, 1, 1]),
    'a little more than it has': header(dim__3=6), 'a dimension below zero': header(dim__1=-3),
    'no dimension': header(dim__2=0), 'seven dimensions': header(dim=[7] + [32767] * 7),
    'two dimensions': header(dim__0=2), 'five dimensions': header(dim=[5, 3, 4, 5, 1, 1, 1, 1]),
    'no number of dimensions': header(dim__0=99), 'spacing NaN': header(pixdim__1=np.nan),
    'spacing infinite': header(pixdim__2=np.inf), 'spacing zero': header(pixdim__3=0),
    'affine NaN': header(srow_x=[np.nan] * 4), 'affine infinite': header(srow_y__1=np.inf),
    'affine zero': header(srow_z=[0] * 4), 'affine absurd': header(srow_x=[3e38, 0, 0, 0]),
    'an offset behind the end': header(vox_offset=1e30), 'an offset before the start': header(vox_offset=-352),
    'no offset': header(vox_offset=np.nan), 'an unknown dtype': header(datatype=77),
    'colours': header(datatype=128),
    'complex numbers': header(datatype=32), 'wrong magic': header(magic=b'n+9'), 'no magic': header(magic=b''),
    'more behind it': lambda content: content + bytes(2**20)}


@pytest.mark.parametrize('change', ABSURD.values(), ids=ABSURD)
@pytest.mark.parametrize('end', ['.nii', '.nii.gz'])
def test_an_absurd_header_is_refused_before_memory_is_taken(tmp_path, end, change):
    path = write_nifti(tmp_path / f'a{end}', np.ones((3, 4, 5), np.uint8))
    content = path.read_bytes()
    changed = change(gzip.decompress(content) if end == '.nii.gz' else content)
    path.write_bytes(gzip.compress(changed) if end == '.nii.gz' else changed)
    tracemalloc.start()
    try:
        refused(lambda: read_volume(path), path.name)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_gzip_that_swells_takes_no_memory(tmp_path):
    """A gigabyte of zeros in a megabyte: more voxels than any volume has, or more than its header declares."""
    path = write_nifti(tmp_path / 'a.nii', np.ones((3, 4, 5), np.uint8))
    small, swollen = path.read_bytes(), gzip.compress(bytes(2**28), 1)
    huge = header(dim=[3, 2048, 2048, 1024, 1, 1, 1, 1])(small)
    for start, text in ((small, 'goes on behind'), (huge, 'more than')):
        target = tmp_path / 'bomb.nii.gz'
        target.write_bytes(gzip.compress(start) + swollen * (16 if start is huge else 1))
        tracemalloc.start()
        try:
            refused(lambda target=target: read_volume(target), text)
            assert tracemalloc.get_traced_memory()[1] < 2**25
        finally:
            tracemalloc.stop()


def test_a_device_is_not_read(tmp_path):
    (tmp_path / 'a.nii').symlink_to('/dev/zero')
    refused(lambda: read_volume(tmp_path / 'a.nii'), 'not a file')


@pytest.mark.parametrize('place, value, text', [
    (('made_up',), 1, "'made_up'"), (('cost', 'flop'), 1, "did you mean 'flops'"),
    (('scores', 'headlines'), [], "did you mean 'headline'"), (('hardware', 'gpus'), None, "did you mean 'gpu'"),
    (('training', 'step'), 1, "did you mean 'steps'"), (('attempts',), 3, 'attempts cannot be 3')])
def test_a_record_with_unknown_keys_is_refused(place, value, text):
    record = json.loads(next((REPO / 'results').glob('*/records/*.json')).read_text())
    changed = copy.deepcopy(record)
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    refused(lambda: open_record(json.dumps(seal(changed))), text)
    open_record(json.dumps(seal(record | dict(attempts=[dict(reason='out of memory')]))))


def test_a_failed_record_may_say_more():
    done = json.loads(next((REPO / 'results').glob('*/records/*.json')).read_text())
    failed = {key: done[key] for key in ('version', 'run', 'identity', 'seed', 'command', 'config', 'cell', 'code',
                                         'packages', 'hardware', 'python')} | dict(state='failed', reason='torn')
    open_record(json.dumps(seal(failed | dict(checkpoint=None, out_of_memory=dict(peak=3), attempts=[]))))
    refused(lambda: open_record(json.dumps(seal(failed | dict(scores=done['scores'])))), "'scores'")
    refused(lambda: open_record(json.dumps(seal(failed | dict(checkpoint=3)))), 'checkpoint')


def test_every_committed_record_opens():
    paths = sorted((REPO / 'results').glob('*/records/*.json'))
    assert len(paths) > 60 and all(open_record(path.read_text()) for path in paths)


@pytest.mark.parametrize('lines, text', [
    ('datasets: [../../etc]', 'cannot be a name'),
    ('dataset: phantom\nsources: {../x: {file: a, encoder: beit}}', 'cannot be a name'),
    ('dataset: phantom\naxes: {slices: ["5"]}', "slices is '5'; it must be a whole number"),
    ('dataset: phantom\nseeds: [one]', 'seeds'),
    ('dataset: phantom\naxes: {stride: [1]}\noptions: {experiment.slice: 3}', "did you mean 'slices'"),
    ('dataset: phantom\ntables: [2a]\nrows: {2a: {Ours: {slcies: 3}}}', "did you mean 'slices'"),
    ('dataset: phantom\naxes: {lr: [2024-01-01]}', 'lr is '),
    ('dataset: phantom\nsources: {a: {file: a, encoder: beit, licens: b}}', "did you mean 'licence'")])
def test_a_grid_with_odd_entries_is_one_line(tmp_path, lines, text):
    path = tmp_path / 'odd.yaml'
    path.write_text(f'configs: {{beit: configs/beit_centering_phantom.py}}\n{lines}\n')
    refused(lambda: load_grid(str(path)), 'odd.yaml', text)


def test_a_grid_that_swells_is_one_line(tmp_path):
    path = tmp_path / 'bomb.yaml'
    lists = ''.join(f'    - &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]\n' for i in range(1, 12))  # 9 ** 11 entries
    path.write_text(f'configs: {{beit: a.py}}\ndataset:\n    - &a0 [x]\n{lists}')
    refused(lambda: load_grid(str(path)), 'bomb.yaml')


@pytest.mark.parametrize('option, text', [
    ('slices', "--cfg-options slices: a config has no 'slices'"),
    ('experment.slices', "did you mean 'experiment'"), ('experiment.slcies', "did you mean 'slices'"),
    ('model.backbone.drop_paht_rate', "did you mean 'drop_path_rate'"),
    ('model.bakbone.x', "did you mean 'backbone'"),
    ('model.decode_head.chanels', "did you mean 'channels'"),
    ('optim_wrapper.optimizer.lrr', "did you mean 'lr'"),
    ('model.decode_head.loss_decode.gama', "did you mean 'gamma'"),
    ('train_cfg.max_iter', "did you mean 'max_iters'"),
    ('train_dataloader.num_wrokers', "did you mean 'num_workers'"), ('randomness.sed', "did you mean 'seed'"),
    ('train_dataloader.dataset.pipeline.2.pixel', "did you mean 'pixels'"), ('model.type', "'3'"),
    ('default_hooks.checkpoint.intervall', "did you mean 'interval'"), ('val_evaluator.headlin', 'headline'),
    ('optim_wrapper.paramwise_cfg.norm_decay_mutl', 'norm_decay_mult'), ('experiment.slices.x', 'slices')])
def test_a_misspelt_option_is_refused_with_the_nearest(option, text):
    refused(lambda: read_config(CONFIG, {option: '3'}), CONFIG.name, text)


def test_valid_options_and_helper_variables_are_not(tmp_path):
    read_config(CONFIG, {'load_from': 'a.pth', 'model.backbone.sizes.qkv_bias': False,
                         'optim_wrapper.optimizer.fused': False,
                         'train_dataloader.prefetch_factor': 2})
    helpers = 'norm_cfg = crop_size = test_pipeline = val_dataset = img_scale = None\n'
    path = tmp_path / 'own.py'
    path.write_text(f'_base_ = {str(CONFIG)!r}\n{helpers}')
    read_config(path)
    path.write_text(f'_base_ = {str(CONFIG)!r}\noptim_wraper = dict()\n')
    refused(lambda: read_config(path), 'own.py', "did you mean 'optim_wrapper'")


@pytest.mark.parametrize('change', [
    lambda index: index['split'].update(train=['../../x']), lambda index: index['cases'].update({'../x': {}}),
    lambda index: index.update(channels=-1), lambda index: index.pop('labels'),
    lambda index: next(iter(index['cases'].values())).update(shape=[10**9, 1, 1])])
def test_a_prepared_datasets_index_is_checked(prepared, tmp_path, change):
    index = json.loads((prepared / 'index.json').read_text())
    change(index)
    (tmp_path / 'index.json').write_text(json.dumps(index))
    refused(lambda: read_index(tmp_path), 'index.json')
