"""Made-up archives in the published layouts, from the archive to figures at native resolution."""

import json
import shutil
import sys

import children
import nibabel as nib
import numpy as np
import pytest
from conftest import REPO, write_msd, write_nifti
from mmengine.runner import Runner

from mmseg_plugins.datasets import CATALOGUE, DatasetInfo, dataset_info, read_index
from mmseg_plugins.datasets.layouts import describe_folder, find_cases
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.splits import patient_split
from mmseg_plugins.datasets.verification import verify_dataset
from mmseg_plugins.datasets.volumes import read_volume
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config, prepare_for_device
from mmseg_plugins.inference import predict_volume

MSD = [name for name, info in CATALOGUE.items() if info.layout == 'msd']


def write_bcv(raw):
    rng = np.random.default_rng(0)
    for numbers in dataset_info('bcv').split.values():
        for number in numbers:
            label = rng.integers(0, 14, (20, 22, 3)).astype(np.uint8)
            image = (label * 40 - 200 + rng.normal(0, 9, label.shape)).astype(np.int16)
            write_nifti(raw / f'RawData/Training/img/img{number:04d}.nii.gz', image)
            write_nifti(raw / f'RawData/Training/label/label{number:04d}.nii.gz', label)
    return raw


def write_acdc(raw, patients=10):
    """As published: per patient Info.cfg, the 4D cine without labels, two frames with a label map each."""
    rng = np.random.default_rng(0)
    for number in range(1, patients + 1):
        folder = raw / 'database' / 'training' / f'patient{number:03d}'
        folder.mkdir(parents=True)
        (folder / 'Info.cfg').write_text('ED: 1\nES: 3\nGroup: DCM\n')
        cine = rng.integers(0, 400, (22, 25, 3, 4)).astype(np.int16)
        write_nifti(folder / f'{folder.name}_4d.nii.gz', cine)
        for frame in (1, 3):
            write_nifti(folder / f'{folder.name}_frame{frame:02d}.nii.gz', cine[..., frame])
            label = rng.integers(0, 4, cine.shape[:3]).astype(np.uint8)
            write_nifti(folder / f'{folder.name}_frame{frame:02d}_gt.nii.gz', label)
    testing = raw / 'database' / 'testing' / 'patient101'
    write_nifti(testing / 'patient101_frame01.nii.gz', np.ones((4, 5, 3), np.int16))
    return raw


def write_nnunet(raw, cases=7, **changes):
    rng = np.random.default_rng(0)
    for number in range(cases):
        label = rng.integers(0, 3, (20, 21, 4)).astype(np.uint8)
        write_nifti(raw / 'labelsTr' / f'knee_{number:03d}.nii.gz', label)
        for channel in range(2):
            write_nifti(raw / 'imagesTr' / f'knee_{number:03d}_{channel:04d}.nii.gz',
                        (label * 100 + channel * 50 + rng.normal(0, 5, label.shape)).astype(np.float32))
    declared = dict(channel_names={'0': 'T1', '1': 'T2'}, labels=dict(background=0, bone=1, cartilage=2),
                    numTraining=cases, file_ending='.nii.gz')
    (raw / 'dataset.json').write_text(json.dumps(declared | changes))
    return raw


def make_archive(name, root):
    info = dataset_info(name)
    raw = root / info.folder
    if info.layout == 'bcv':
        return write_bcv(raw)
    if info.layout == 'acdc':
        return write_acdc(raw)
    return write_msd(raw, cases=7, shape=(17, 24, 4), channels=len(info.channels), labels=len(info.labels))


def train_and_evaluate(prepared, work, **experiment):
    """One step of the mini BEiT, and its metric on the split that the dataset reports."""
    options = dict(data_root=str(prepared), source=None, steps=1, warmup=0, batch=4, slices=3, img_size=32,
                   checkpoint_interval=1) | experiment
    cfg = load_config(REPO / 'configs/mini_beit_centering_hippocampus.py',
                      {f'experiment.{key}': value for key, value in options.items()})
    prepare_for_device(cfg, 'none')
    cfg.work_dir, cfg.experiment_name = str(work), work.name
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner, runner.val_evaluator.metrics[0].scores, cfg


@pytest.mark.parametrize('name', ['bcv', 'acdc', *MSD])
def test_an_archive_is_verified_prepared_trained_on_and_evaluated(tmp_path, name):
    raw, info, folder = make_archive(name, tmp_path), dataset_info(name), tmp_path / 'prepared' / name
    dataset = find_cases(info, raw)
    found = verify_dataset(dataset, workers=1)
    assert not found.lines and len(found.facts) == len(dataset.cases)
    assert prepare_dataset(name, raw, folder, workers=1).cases == len(dataset.cases)
    index = read_index(folder)
    assert index['split'] == dataset.split == {
        key: value for key, value in json.loads((folder / 'split.json').read_text()).items() if key != 'hash'}
    runner, scores, cfg = train_and_evaluate(folder, tmp_path / 'work')
    assert list(scores.cases) == sorted(index['split'][info.evaluate])
    assert scores.pooled.shape == (len(info.labels),) and np.isfinite(scores.pooled[0])
    [case] = [dataset.cases[case] for case in index['split'][info.evaluate][:1]]
    volume = read_volume(case.images, case.label)
    assert volume.image.shape[1] == len(info.channels)
    predicted = predict_volume(runner.model.eval(), volume, cfg, index)
    assert predicted.shape == volume.label.shape  # native, though the network saw 32 x 32


def test_acdc_keeps_a_patients_frames_together_and_leaves_the_cine_alone(tmp_path):
    dataset = find_cases(dataset_info('acdc'), write_acdc(tmp_path / 'ACDC'))
    patients = {part: {case[:10] for case in cases} for part, cases in dataset.split.items()}
    assert {part: len(names) for part, names in patients.items()} == dict(train=7, val=1, test=2)
    assert len(set.union(*patients.values())) == 10 and len(dataset.cases) == 20
    assert not any('4d' in case or 'patient101' in case for case in dataset.cases)


def test_the_acdc_rule_gives_the_papers_counts():
    split = patient_split({f'patient{n:03d}': [f'patient{n:03d}_frame01', f'patient{n:03d}_frame12']
                           for n in range(1, 101)})
    assert {part: len(cases) for part, cases in split.items()} == dict(train=140, val=20, test=40)


def test_a_frame_without_its_label_is_a_fault(tmp_path):
    raw = write_acdc(tmp_path / 'ACDC')
    (raw / 'database/training/patient004/patient004_frame03_gt.nii.gz').unlink()
    found = verify_dataset(find_cases(dataset_info('acdc'), raw), workers=1)
    [line] = found.lines
    assert 'patient004_frame03_gt.nii.gz: file not found' in line and len(found.facts) == 19


def test_nnunets_layout_needs_no_code(tmp_path):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee')
    name, info = describe_folder(raw, 'nnunet')
    assert (name, info.modality) == ('knee', 'MRI')
    folder = tmp_path / 'prepared' / name
    assert prepare_dataset(name, raw, folder, info=info, workers=1).cases == 7
    index = read_index(folder)
    assert index['labels'] == ['background', 'bone', 'cartilage'] and index['channel_names'] == ['T1', 'T2']
    assert [len(index['split'][part]) for part in ('train', 'val', 'test')] == [5, 1, 1]
    _, scores, _ = train_and_evaluate(folder, tmp_path / 'work')
    assert list(scores.cases) == index['split']['test']
    window = read_volume((raw / 'imagesTr/knee_000_0000.nii.gz', raw / 'imagesTr/knee_000_0001.nii.gz')).image
    second = np.asarray(nib.load(raw / 'imagesTr/knee_000_0001.nii.gz').dataobj)
    assert window.shape[1] == 2 and np.allclose(np.sort(window[:, 1].ravel()), np.sort(second.ravel()))


def test_nnunets_own_folds_are_taken(tmp_path):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=4)
    folds = [dict(train=['knee_000', 'knee_003'], val=['knee_001', 'knee_002'])]
    (raw / 'splits_final.json').write_text(json.dumps(folds))
    dataset = find_cases(describe_folder(raw, 'nnunet')[1], raw)
    assert dataset.split == folds[0] and dataset.info.evaluate == 'val'
    (raw / 'splits_final.json').write_text(json.dumps([dict(train=['knee_000', 'knee_001'], val=['knee_001'])]))
    with pytest.raises(UserError, match='knee_001 in train and val'):
        find_cases(dataset.info, raw)


@pytest.mark.parametrize('changes, message', [
    (dict(file_ending='.png'), 'convert the files'), (dict(labels=dict(background=0, whole=[1, 2])), 'regions'),
    (dict(labels=dict(background=0, bone=2)), 'gaps'), (dict(labels=dict(background=0, ignore=1)), 'ignore'),
    (dict(channel_names={}), "'channel_names' must name")])
def test_what_nnunet_allows_and_we_do_not_is_said(tmp_path, changes, message):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=2, **changes)
    with pytest.raises(UserError, match=message):
        find_cases(DatasetInfo('nnunet', raw.name, 'MRI', 'here', 'none'), raw)


def test_a_missing_channel_is_a_fault(tmp_path):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=3)
    (raw / 'imagesTr/knee_001_0001.nii.gz').unlink()
    found = verify_dataset(find_cases(describe_folder(raw, 'nnunet')[1], raw), workers=1)
    [line] = found.lines
    assert 'knee_001_0001.nii.gz: file not found' in line and len(found.facts) == 2


def test_another_datasets_archive_is_refused(tmp_path):
    raw = write_msd(tmp_path / 'Task01_BrainTumour', cases=2)
    with pytest.raises(UserError, match='declares 1 channels, Task01_BrainTumour has 4'):
        find_cases(dataset_info('brain'), raw)


def test_macos_and_mirrors_do_not_change_acdcs_split(tmp_path):
    raw = write_acdc(tmp_path / 'ACDC')
    before = find_cases(dataset_info('acdc'), raw)
    patient = raw / 'database/training/patient004'
    (patient / '._patient004_frame01.nii.gz').write_bytes(b'x')
    (raw / '__MACOSX' / 'patient004').mkdir(parents=True)
    (patient / 'patient004_4d.nii').mkdir()
    assert find_cases(dataset_info('acdc'), raw) == before
    shutil.copytree(raw / 'database', raw / 'copy')
    with pytest.raises(UserError, match='another folder of this patient'):
        find_cases(dataset_info('acdc'), raw)


def edit(raw, **changes):
    path = raw / 'dataset.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return raw


@pytest.mark.parametrize('changes, message', [
    (dict(training=[]), 'lists no labelled case'), (dict(labels={}), "'labels' must name ids"),
    (dict(labels={'0': 'background', '2': 'a', '3': 'b'}), "'labels' must name ids 0, 1, 2, ... without gaps"),
    (dict(modality='MRI'), "'modality' must name ids"), (dict(training=[dict(image=3, label='a')]), 'no list'),
    (dict(training=[dict(image=f'{p}/image.nii.gz', label=f'{p}.nii.gz') for p in 'ab']), 'two cases are called'),
    (dict(training=[dict(image='/etc/passwd', label='a')]), 'outside its own folder')])
def test_an_odd_decathlon_listing_is_one_line(tmp_path, changes, message):
    raw = edit(write_msd(tmp_path / 'Task04_Hippocampus', cases=2), **changes)
    with pytest.raises(UserError, match=message):
        find_cases(dataset_info('hippocampus'), raw)


def test_a_list_of_images_is_one_per_channel_and_links_are_followed(tmp_path):
    raw = write_msd(tmp_path / 'elsewhere' / 'Task98_Real', cases=3)
    entry = dict(image=[f'./imagesTr/case_00{i}.nii.gz' for i in (0, 1)], label='./labelsTr/case_000.nii.gz')
    edit(raw, modality=['T1', 'T2'], training=[entry])
    (tmp_path / 'Task99_Link').symlink_to(raw)
    name, info = describe_folder(tmp_path / 'Task99_Link', 'msd')
    assert name == 'link'
    found = verify_dataset(find_cases(info, tmp_path / 'Task99_Link'), workers=1)
    assert not found.lines and found.facts['case_000']['shape'][1] == 2


def test_cases_of_different_dtypes_share_a_batch(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=7)
    for number, scale in enumerate((1, 300, -1, 0.1)):  # uint8, uint16, int16, float32
        path = raw / f'imagesTr/case_{number:03d}.nii.gz'
        write_nifti(path, (np.asarray(nib.load(path).dataobj).round() * np.float32(scale)))
    prepare_dataset('hippocampus', raw, tmp_path / 'hippocampus', workers=1)
    facts = (tmp_path / 'hippocampus').glob('cases/*/meta.json')
    dtypes = {json.loads(path.read_text())['dtype'] for path in facts}
    assert {'uint8', 'uint16', 'int16', 'float32'} <= dtypes
    _, scores, _ = train_and_evaluate(tmp_path / 'hippocampus', tmp_path / 'work', batch=16)
    assert len(scores.cases) == 1


def test_a_dataset_of_the_catalogue_is_not_taken_for_another(tmp_path):
    raw = write_nnunet(tmp_path / 'Dataset004_Hippocampus', cases=4)
    for options, message in (([], "the catalogue has a dataset 'hippocampus' already"),
                             (['--name', 'knees', '--raw', raw], 'leave --raw out'),
                             (['--name', 'knees', '--workers', '0'], 'at least 1')):
        result = children.run([sys.executable, 'tools/prepare_data.py', raw, '--layout', 'nnunet', *options])
        assert result.returncode == 2 and message in result.stderr and result.stderr.count('\n') == 1
    (tmp_path / 'file').write_text('')
    for tool, place, message in (('prepare_data', tmp_path / 'out', ''), ('verify_data', tmp_path / 'out2', ''),
                                 ('verify_data', tmp_path / 'file', 'file: file exists; a file is in the way')):
        result = children.run([sys.executable, f'tools/{tool}.py', raw, '--layout', 'nnunet', '--name', 'knees',
                               '--out', place])
        assert result.returncode == (2 if message else 0) and message in result.stderr, result.stderr
    assert read_index(tmp_path / 'out')['dataset'] == 'knees'
