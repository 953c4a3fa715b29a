"""Made-up archives in the published layouts, from the archive to figures at native resolution."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import REPO, call_tool, write_msd, write_nifti
from mmengine.runner import Runner

from benchmarks.runs.agenda import data_digest
from benchmarks.runs.records import describe_result
from mmseg_plugins.datasets import (
    CATALOGUE,
    DatasetInfo,
    RawCase,
    RawDataset,
    dataset_info,
    layouts,
    read_index,
)
from mmseg_plugins.datasets.layout_images import prepare_layout
from mmseg_plugins.datasets.layouts import LAYOUTS, describe_folder, find_cases
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.splits import list_folds, msd_split, pair_sides, patient_split, split_cases
from mmseg_plugins.datasets.store import write_folds
from mmseg_plugins.datasets.verification import summary_rows, verify_dataset
from mmseg_plugins.datasets.volumes import read_volume
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation.folder import score_folder
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


def test_bcvs_folder_may_be_named_at_any_depth(tmp_path):
    raw = write_bcv(tmp_path / 'BCV')
    places = [raw, raw / 'RawData', raw / 'RawData/Training']
    whole, *others = (find_cases(dataset_info('bcv'), place) for place in places)
    assert whole.cases and all(other.cases == whole.cases for other in others)
    with pytest.raises(UserError, match=r'RawData/Training/img: folder not found'):
        find_cases(dataset_info('bcv'), tmp_path)


def test_channels_of_different_integers_can_be_resized(tmp_path):
    for number, low, high in ((0, -1000, 100), (1, 0, 40_000)):  # CT beside PET
        values = np.linspace(low, high, 24).round().reshape(2, 3, 4).astype(np.int32)
        write_nifti(tmp_path / f'{number}.nii', values)
    image = read_volume([tmp_path / '0.nii', tmp_path / '1.nii']).image
    assert image.dtype == np.float32 and image.min() == -1000 and image.max() == 40_000


def test_channels_in_another_order_are_read_again(tmp_path):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=7)
    spec = json.loads((raw / 'dataset.json').read_text())
    name, info = describe_folder(raw, 'nnunet')
    medians = []
    for order in ((0, 1), (1, 0)):
        cases = {f'knee_{number:03d}': dict(
            images=[f'imagesTr/knee_{number:03d}_{channel:04d}.nii.gz' for channel in order],
            label=f'labelsTr/knee_{number:03d}.nii.gz') for number in range(7)}
        (raw / 'dataset.json').write_text(json.dumps(spec | dict(dataset=cases)))
        prepare_dataset(name, raw, tmp_path / 'knee', info=info, workers=1)
        medians.append([entry['median'] for entry in read_index(tmp_path / 'knee')['cases'].values()])
    assert medians[0] == [pair[::-1] for pair in medians[1]] != medians[1]


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
    assert scores.by_label('dsc').shape == (len(info.labels),) and np.isfinite(scores.by_label('dsc')[0])
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


def test_without_its_authors_info_acdc_has_no_figure_in_mm(tmp_path):
    raw, folder = write_acdc(tmp_path / 'ACDC', patients=5), tmp_path / 'acdc'
    prepare_dataset('acdc', raw, folder, workers=1)
    true = read_index(folder)
    (raw / 'database/training/patient003/Info.cfg').unlink()
    dataset = find_cases(dataset_info('acdc'), raw)
    [line] = dataset.warnings
    assert 'patient003: no Info.cfg' in line and dict(summary_rows(dataset, verify_dataset(dataset, workers=1)))[
        'spacing (mm, nominal)']
    prepare_dataset('acdc', raw, folder, workers=1)
    nominal = read_index(folder)
    assert nominal['nominal_spacing'] and not true['nominal_spacing'] and data_digest(true) != data_digest(nominal)
    _, scores, _ = train_and_evaluate(folder, tmp_path / 'work')
    assert set(scores.figures) == {'dsc', 'dsc_pooled'}
    data = describe_result(scores, nominal, 'test')['data']
    assert data['nominal_spacing'] and 'nsd_tolerance' not in data
    with pytest.raises(UserError, match="metric 'hd95' needs true voxel sizes"):
        score_folder(tmp_path, folder, metrics=['hd95'])


def test_the_acdc_rule_gives_the_papers_counts():
    split = patient_split({f'patient{n:03d}': [f'patient{n:03d}_frame01', f'patient{n:03d}_frame12']
                           for n in range(1, 101)})
    assert {part: len(cases) for part, cases in split.items()} == dict(train=140, val=20, test=40)


def test_folds_are_of_whole_patients_and_parts_have_parts():
    patients = {f'p{n}': [f'p{n}_a', f'p{n}_b'] for n in range(10)}
    index = dict(dataset='heart', split=patient_split(patients),
                 groups={case: patient for patient, cases in patients.items() for case in cases})
    every = split_cases(index, 'all')
    assert len(every) == 20 and split_cases(index, 'val') == index['split']['val']
    folds = [split_cases(index, f'all:{fold}/3') for fold in range(3)]
    assert sorted(sum(folds, [])) == sorted(every) and [len(fold) for fold in folds] == [8, 6, 6]
    for fold, cases in enumerate(folds):
        others = split_cases(index, f'all:-{fold}/3')
        assert sorted(others + cases) == sorted(every)
        assert not {index['groups'][case] for case in others} & {index['groups'][case] for case in cases}
    inner, rest = (split_cases(index, f'all:-0/3:{part}/2') for part in ('0', '-0'))
    assert sorted(inner + rest) == sorted(split_cases(index, 'all:-0/3')) and not set(inner) & set(rest)
    copies = index | dict(cases={case: dict(image_sha256='same' if case in ('p3_a', 'p7_b') else case)
                                 for case in every})
    assert any({'p3_a', 'p3_b', 'p7_a', 'p7_b'} <= set(fold['val']) for fold in list_folds(copies, 9))
    twins = dict(p1_a='one', p2_a='two', p3_a='one', p3_b='two')  # p3 joins patients that were two before
    chain = index | dict(cases={case: dict(image_sha256=twins.get(case, case)) for case in every})
    assert any({'p1_a', 'p2_a', 'p3_a'} <= set(fold['val']) for fold in list_folds(chain, 8))
    for wrong, message in (('trian', "did you mean 'train'"), ('train:3/3', "'train:3/3': a part is written"),
                           ('all:0/11', '11 folds of 10 patients'), ('train:x', "'train:x': a part is")):
        with pytest.raises(UserError, match=message):
            split_cases(index, wrong)


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


def test_a_case_in_two_splits_of_a_layout_of_ones_own_is_refused(msd_raw, monkeypatch):
    info = dataset_info('hippocampus')
    found = find_cases(info, msd_raw)
    doubled = replace(found, split=dict(train=[*found.cases], test=[*found.cases][-1:]))
    monkeypatch.setitem(LAYOUTS, info.layout, lambda *_: doubled)
    with pytest.raises(UserError, match='case_009 stands in the splits more than once'):
        find_cases(info, msd_raw)
    lacking = replace(found, split=found.split | dict(test=[*found.split['test'], 'case_077']))
    monkeypatch.setitem(LAYOUTS, info.layout, lambda *_: lacking)
    with pytest.raises(UserError, match='the split names case_077, of which there are no files'):
        find_cases(info, msd_raw)


def test_all_of_nnunets_folds_are_kept_and_are_those_of_as_many(tmp_path):
    raw, names = write_nnunet(tmp_path / 'Dataset501_Knee', cases=4), [f'knee_{i:03d}' for i in range(4)]
    folds = [dict(train=names[:1] + names[2:], val=[names[1]]), dict(train=names[1:3], val=[names[3], names[0]]),
             dict(train=[names[0], names[1]], val=[names[2]])]
    (raw / 'splits_final.json').write_text(json.dumps(folds))
    assert call_tool('prepare_data', raw, '--layout', 'nnunet', '--out', tmp_path / 'knee') == 0
    index = read_index(tmp_path / 'knee')
    assert index['split'] == folds[0] and list_folds(index, 3) == folds
    two = list_folds(index, 2)  # of another number, as for any dataset
    assert sorted(two[0]['val'] + two[1]['val']) == names and sorted(two[0]['train']) == sorted(two[1]['val'])
    assert split_cases(index, 'all:-1/3:0/2') in ([names[1]], [names[2]])
    copies = index['cases'] | {names[0]: index['cases'][names[1]]}
    with pytest.raises(UserError, match='evaluate knee_001, and train on the same image, knee_000'):
        split_cases(index | dict(cases=copies), 'all:0/3')
    write_folds(tmp_path / 'knee', 3)
    assert json.loads((tmp_path / 'knee/folds_3.json').read_text()) == folds
    folds[2]['val'] = [names[2], names[3]]
    with pytest.raises(UserError, match=r'all:0/3.*own 3 folds .* evaluate knee_003 more than once'):
        split_cases(index | dict(folds=folds), 'all:0/3')
    folds[2]['val'] = ['knee_777']
    (raw / 'splits_final.json').write_text(json.dumps(folds))
    with pytest.raises(UserError, match="names case 'knee_777'"):
        find_cases(describe_folder(raw, 'nnunet')[1], raw)


def test_both_sides_of_a_subject_are_one_patient(tmp_path):
    assert pair_sides(['a_left', 'a_right', 'b_L_t1', 'b_R_t1', 'c-lh', 'c-rh', 'd_left', 'lef_t', 'Left e',
                       'right e', 'f_l', 'f_rh', 'left', 'g_leftover', 'g_right']) == {
        'a_left': 'a_left-right', 'a_right': 'a_left-right', 'b_L_t1': 'b_l-r_t1', 'b_R_t1': 'b_l-r_t1',
        'c-lh': 'c-lh-rh', 'c-rh': 'c-lh-rh', 'Left e': 'left-right e', 'right e': 'left-right e'}
    raw = write_msd(tmp_path / 'Task99_Knee', cases=20)
    declared = json.loads((raw / 'dataset.json').read_text())
    for number, entry in enumerate(declared['training']):
        for part, path in entry.items():
            entry[part] = f'{Path(path).parent}/s{number // 2:02d}_{"LR"[number % 2]}.nii.gz'
            (raw / path).rename(raw / entry[part])
    edit(raw, training=declared['training'])
    dataset = find_cases(describe_folder(raw, 'msd')[1], raw)
    assert {part: len(cases) for part, cases in dataset.split.items()} == dict(train=16, val=2, test=2)
    index = dict(dataset='knee', split=dataset.split, groups=dataset.groups)
    for parts in (dataset.split.values(), [fold['val'] for fold in list_folds(index, 5)]):
        subjects = [{case[:3] for case in cases} for cases in parts]
        assert sum(map(len, subjects)) == len(set.union(*subjects)) == 10
    # a split that was published stays as it is
    renamed = raw.rename(tmp_path / 'Task02_Heart')
    cases = list(find_cases(replace(dataset_info('heart'), labels=dataset.info.labels), renamed).cases)
    assert find_cases(replace(dataset_info('heart'), labels=dataset.info.labels), renamed).split == msd_split(
        'Task02_Heart', cases) != dataset.split


def test_a_small_split_that_nobody_chose_is_warned_of(tmp_path, capsys):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=8)
    call_tool('prepare_data', raw, '--layout', 'nnunet', '--out', tmp_path / 'knee')
    [line] = [line for line in capsys.readouterr().out.splitlines() if '--folds' in line]
    assert line == ('warning: knee: by the usual rule, 1 of its 8 cases are evaluated (test), which tells little; '
                    'cross-validate: benchmarks/run_grid.py --folds 5')
    names = [f'knee_{i:03d}' for i in range(8)]
    (raw / 'splits_final.json').write_text(json.dumps([dict(train=names[:6], val=names[6:])]))
    call_tool('prepare_data', raw, '--layout', 'nnunet', '--out', tmp_path / 'knee')
    assert '--folds' not in capsys.readouterr().out


def listed(cases=7, folder='mine'):
    """`dataset` of nnU-Net's dataset.json: files wherever they are."""
    return {f'knee_{i:03d}': dict(images=[f'./{folder}/knee_{i:03d}_{c:04d}.nii.gz' for c in range(2)],
                                  label=f'{folder}/labels/knee_{i:03d}.nii.gz') for i in range(cases)}


def test_nnunets_files_may_be_listed_anywhere_below_the_folder(tmp_path):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=3)
    before = verify_dataset(find_cases(describe_folder(raw, 'nnunet')[1], raw), workers=1)
    (raw / 'imagesTr').rename(raw / 'mine')
    (raw / 'labelsTr').rename(raw / 'mine/labels')
    write_nifti(raw / 'mine/labels/knee_777.nii.gz', np.ones((3, 4, 5), np.uint8))
    edit(raw, dataset=listed(3))
    found = verify_dataset(find_cases(describe_folder(raw, 'nnunet')[1], raw), workers=1)
    assert found.facts == before.facts and not found.lines
    assert set(found.warnings) - set(before.warnings) == {
        'mine/labels/knee_777.nii.gz: on disk, but not listed; left out'}
    (raw / 'mine/knee_001_0001.nii.gz').unlink()
    [line] = verify_dataset(find_cases(describe_folder(raw, 'nnunet')[1], raw), workers=1).lines
    assert 'mine/knee_001_0001.nii.gz: file not found' in line


def relisted(**changes):
    return dict(dataset=listed() | {'knee_006': listed()['knee_006'] | changes})


def labelled(**labels):
    return dict(labels=dict(background=0) | labels)


@pytest.mark.parametrize('changes, message', [
    (dict(file_ending='.png'), 'convert the files'), (dict(file_ending='nii.gz'), "file_ending 'nii.gz' is not"),
    (labelled(whole=[1, 2]), 'regions'), (labelled(bone=2), 'gaps'), (labelled(ignore=1), 'ignore'),
    (labelled(bone=1, skin=1), "'bone' and 'skin' have one id, 1"), (labelled(bone=True), "has the id 'True'"),
    (labelled(bone=1.5), "has the id '1.5'"), (labelled(bone=1, Bone=2), "'bone' and 'Bone', one name for two"),
    (labelled(Ignore=1), 'ignore'), (dict(labels=dict(bone=0, skin=1)), "label 0 is called 'bone', but 0 is"),
    (labelled(**{'': 1}), 'the label 1 has no name'),
    (labelled(bone=1, **{'bone ': 2}), 'one name for two'), (dict(labels=['background']), 'try --layout msd'),
    (dict(channel_names={}), "'channel_names' must name"), (dict(channel_names=['T1']), 'knee_000_0001.nii.gz'),
    (dict(channel_names=None, modality={'0': 'T1'}), "has 'modality' instead .* --layout msd"),
    (dict(dataset=['knee_000']), '`dataset` must be as'), (relisted(label=None), 'knee_006.label cannot be'),
    (relisted(images='a.nii.gz'), 'dataset.knee_006.images cannot be'),
    (relisted(images=['a.nii.gz']), "lists 1 images of case 'knee_006', but channel_names has 2"),
    (relisted(images=['a.nii.gz', 'b.nii']), "lists 'b.nii', but file_ending is '.nii.gz'"),
    (relisted(images=['a.nii.gz', './a.nii.gz']), "/a.nii.gz twice, for case 'knee_006' and for 'knee_006'"),
    (relisted(label=listed()['knee_001']['label']), "001.nii.gz twice, for case 'knee_001' and for 'knee_006'"),
    (relisted(label='../a.nii.gz'), "names '../a.nii.gz', outside its own folder"),
    (dict(dataset=listed() | {'KNEE_000': dict(images=['a.nii.gz', 'b.nii.gz'], label='c.nii.gz')}),
     "'knee_000' and 'KNEE_000' differ in capitals or spaces alone")])
def test_what_nnunet_allows_and_we_do_not_is_said(tmp_path, changes, message):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=1, **changes)
    with pytest.raises(UserError, match=message):
        find_cases(DatasetInfo('nnunet', raw.name, 'MRI', 'here', 'none'), raw)


def test_nothing_in_nnunets_folders_is_left_out_unsaid(tmp_path):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=2, numTraining=3, channel_names=['MRI', 'mri'])
    for name in ('imagesTr/knee_000_0000.nii', 'imagesTr/extra.NII.GZ', 'imagesTr/more/deep_0000.nii.gz',
                 'labelsTr/knee.mha', 'imagesTr/.hidden_0000.nii.gz', 'imagesTr/notes.txt'):
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_bytes(b'x')
    warnings = find_cases(describe_folder(raw, 'nnunet')[1], raw).warnings
    assert [re.sub('^.*dataset.json', 'dataset.json', line) for line in warnings] == [
        'dataset.json: numTraining is 3, but there are 2 cases; see which are missing, or correct it',
        "dataset.json: channels 'MRI' and 'mri' are called alike; see whether one stands twice",
        'imagesTr/extra.NII.GZ, imagesTr/knee_000_0000.nii, imagesTr/more/deep_0000.nii.gz, labelsTr/knee.mha: '
        'on disk, but not listed; left out']
    edit(raw, channel_names=['CT', 'PET'])
    name, info = describe_folder(raw, 'nnunet')
    assert info.modality == 'MRI' and 'channels CT, PET are scaled as MRI' in str(find_cases(info, raw).warnings)
    edit(raw, channel_names=['MR', 'T1'])
    info = replace(info, modality='CT')
    assert 'channels MR, T1 are scaled as CT' in str(find_cases(info, raw).warnings)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-be', 'utf-32'])
def test_json_is_read_in_any_of_unicodes_encodings(tmp_path, encoding):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=2, reference='Universität')
    folds = [dict(train=['knee_000'], val=['knee_001'])]
    (raw / 'splits_final.json').write_text(json.dumps(folds), encoding=encoding)
    path = raw / 'dataset.json'
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding=encoding)
    _, info = describe_folder(raw, 'nnunet')
    assert info.origin == 'Universität' and find_cases(info, raw).split == folds[0]


@pytest.mark.parametrize('layout', ['msd', 'nnunet'])
@pytest.mark.parametrize('content, message', [
    (b'', 'an empty file, not JSON'), (b'  <!DOCTYPE html><html>', 'a web page or XML'), (b'[]', 'but a list'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'a Git LFS pointer'),
    (b'\x1f\x8b\x08', 'compressed by gzip'), (b'{"labels": {"a": 1, "a": 2}}', "the key 'a' stands twice"),
    (b'{"numTraining": NaN}', 'NaN is no number'), (b'{"a": -Infinity}', '-Infinity is no number')])
def test_what_is_no_dataset_json_is_said(tmp_path, layout, content, message):
    (tmp_path / 'dataset.json').write_bytes(content)
    with pytest.raises(UserError, match=f'^{tmp_path}/dataset.json: .*{message}'):
        describe_folder(tmp_path, layout)


@pytest.mark.parametrize('folds', [[dict(train=['001'], val=[2])], [dict(train=['001'], val=[True])],
                                   [dict(train='001', val='2')], [dict(train=['001'])], [], {}])
def test_folds_hold_names(tmp_path, folds):
    """`001` is not 1, and what is no name is refused before it is compared with any."""
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=1)
    (raw / 'splits_final.json').write_text(json.dumps(folds))
    with pytest.raises(UserError, match='splits_final.json: not nnU-Net\'s list of folds'):
        find_cases(describe_folder(raw, 'nnunet')[1], raw)


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
    (dict(training=[dict(image=f'i/a.nii{end}', label=f'l/a.nii{end}') for end in ('', '.gz')]),
     "two cases are called 'a', .*/i/a.nii and .*/i/a.nii.gz"),
    (dict(training=[dict(image=f'{name}.nii', label='c.nii') for name in 'ab']), "c.nii twice, for case 'a' and"),
    (dict(labels={'0': 'background', '1': 'tumour', '2': 'Tumour '}), "'tumour' and 'Tumour', one name for two"),
    (dict(labels={'0': 'liver', '1': 'a', '2': 'background'}), "label 0 is called 'liver', but 0 is the back"),
    (dict(training=[dict(image='/etc/passwd', label='a')]), 'outside its own folder')])
def test_an_odd_decathlon_listing_is_one_line(tmp_path, changes, message):
    raw = edit(write_msd(tmp_path / 'Task04_Hippocampus', cases=2), **changes)
    with pytest.raises(UserError, match=message):
        find_cases(dataset_info('hippocampus'), raw)


def test_links_that_lead_to_one_file_are_one_file(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=2)
    link = raw / 'imagesTr' / 'case_001.nii.gz'
    link.unlink()
    link.symlink_to('case_000.nii.gz')
    with pytest.raises(UserError, match="case_001.nii.gz twice, for case 'case_000' and for 'case_001'"):
        find_cases(dataset_info('hippocampus'), raw)


def test_folds_that_cannot_be_read_are_not_passed_over(tmp_path):
    raw = write_nnunet(tmp_path / 'Dataset501_Knee', cases=2)
    (raw / 'splits_final.json').symlink_to('nowhere.json')
    with pytest.raises(UserError, match='splits_final.json: is no file, or a link that leads nowhere'):
        find_cases(DatasetInfo('nnunet', raw.name, 'MRI', 'here', 'none'), raw)


def test_what_a_decathlon_listing_leaves_out_is_said(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=4)
    (raw / 'imagesTr').rename(raw / 'images')
    entries = [{key: name.replace('imagesTr', 'images') for key, name in entry.items()}
               for entry in json.loads((raw / 'dataset.json').read_text())['training']]
    edit(raw, training=entries[:3], numTraining=4)
    count, stray = find_cases(dataset_info('hippocampus'), raw).warnings
    assert 'numTraining is 4, but there are 3 cases' in count
    assert stray == 'images/case_003.nii.gz, labelsTr/case_003.nii.gz: on disk, but not listed; left out'


def test_an_empty_split_is_said(tmp_path):
    raw, info = write_msd(tmp_path / 'Task04_Hippocampus', cases=2), dataset_info('hippocampus')
    warnings = prepare_dataset('hippocampus', raw, tmp_path / 'out', workers=1).warnings
    assert 'split val has no case; nothing can be trained or evaluated on it' in warnings
    with pytest.raises(UserError, match="evaluate='tset' is no split; did you mean 'test'"):
        find_cases(replace(info, evaluate='tset'), raw)


@pytest.mark.parametrize('changes, message', [
    (dict(modality='Ct'), "modality 'Ct' is neither"), (dict(labels='liver'), 'labels must be a list of names'),
    (dict(labels=('background', 1)), 'labels must be'), (dict(labels=('a', 'b', 'A')), "'a' and 'A' are one name"),
    (dict(labels=('a', 'b'), headline=(2,)), 'headline holds 2, and there are 2 labels'),
    (dict(headline=(1, 2, 1)), 'headline holds 1 twice'), (dict(headline=(True,)), 'headline holds True, which'),
    (dict(input_size='512'), "input_size holds '512', which is no whole number"), (dict(steps=0), 'steps holds 0'),
    (dict(split=dict(train=(1, 2), val=(2, 3))), 'split holds 2 twice'),
    (dict(split=dict(train=('001',))), "split holds '001', which is no whole number"),
    (dict(split=dict(train=(1,)), layout='msd'), "split is for BCV's layout"),
    (dict(paper_intensity=(1, float('nan'))), 'paper_intensity'), (dict(paper_intensity='max'), "'max' is")])
def test_a_users_entry_is_what_it_can_be(changes, message):
    with pytest.raises(UserError, match=f'^dataset Spine: .*{message}.*; correct its DatasetInfo'):
        DatasetInfo(**dict(layout='bcv', folder='Spine', modality='CT', origin='here', licence='none') | changes)


def test_a_layout_must_be_known_and_name_its_labels(tmp_path, monkeypatch):
    info = DatasetInfo('pairs', 'Knee', 'MRI', 'here', 'none', channels=['T1'])
    with pytest.raises(UserError, match="Knee: unknown layout 'pairs'; known: acdc, bcv, msd, nnunet"):
        find_cases(info, tmp_path)
    monkeypatch.setattr(layouts, 'LAYOUTS', {})
    cases = dict(a=RawCase((), tmp_path))
    layouts.register_layout('pairs')(lambda info, raw: RawDataset(info, cases, dict(test=['a'])))
    with pytest.raises(UserError, match=r'Knee: nothing names its labels; add labels=\[...\] to its DatasetInfo'):
        find_cases(info, tmp_path)
    with pytest.raises(KeyError, match='registered already'):
        layouts.register_layout('pairs')(print)


def test_no_dataset_takes_anothers_place(tmp_path):
    raw, out = write_msd(tmp_path / 'Task04_Hippocampus', cases=2), tmp_path / 'out'
    prepare_dataset('hippocampus', raw, out, workers=1)
    before = (out / 'index.json').read_bytes()
    raw.rename(tmp_path / 'Task99_Hippo')
    for prepare in (lambda: prepare_layout(out, 1, 16), lambda: prepare_dataset(
            'hippo', tmp_path / 'Task99_Hippo', out, info=describe_folder(tmp_path / 'Task99_Hippo', 'msd')[1])):
        with pytest.raises(UserError, match=r"holds the dataset 'hippocampus' \(archive Task04_Hippocampus\)"):
            prepare()
    assert (out / 'index.json').read_bytes() == before
    with pytest.raises(UserError, match="OUT: 'out' is there"):
        prepare_layout(tmp_path / 'OUT', 1, 16)


@pytest.mark.parametrize('folder', ['my data, 1', '501', 'Größe', 'a=b', "it's"])
def test_any_path_will_do(tmp_path, monkeypatch, capsys, folder):
    """Verified by a relative path; prepared through a link, by the command that is printed, pasted elsewhere."""
    raw = write_nnunet(tmp_path / folder / 'disk' / folder, cases=3)
    link = tmp_path / folder / f'{folder} link'
    link.symlink_to(raw)
    monkeypatch.chdir(tmp_path)
    assert call_tool('verify_data', f'{folder}/disk/{folder}/', '--layout', 'nnunet', '--workers', 1) == 0
    assert (tmp_path / 'work_dirs/verify' / folder.lower() / 'report.json').is_file()
    out = Path(folder) / 'prepared, too' / f'{folder}.1'
    with pytest.raises(UserError) as error:
        read_index(out)
    command = re.search(r'run: (.*) \(with', str(error.value))[1].replace('FOLDER', shlex.quote(str(link)))
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    _, script, *arguments = shlex.split(command.replace('--layout msd', '--layout nnunet'))
    assert script == str(REPO / 'tools/prepare_data.py')
    assert call_tool('prepare_data', *arguments, '--workers', 1) == 0
    assert read_index(tmp_path / out)['dataset'] == f'{folder}.1' and not list(Path().iterdir())
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / out)


def test_a_missing_dataset_comes_with_its_command(tmp_path, monkeypatch):
    tool = shlex.quote(f'{REPO}/tools/prepare_data.py')
    monkeypatch.chdir(tmp_path)
    for name, raw in (('bcv', 'BCV'), ('phantom', 'phantom'), ('layout', None)):
        places = (f'--raw {tmp_path}/data/{raw} ' if raw else '') + f'--out {tmp_path}/p/{name}'
        with pytest.raises(UserError, match=re.escape(f'{tool} {name} {places}')):
            read_index(f'p/{name}')


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
    hidden = raw.rename(tmp_path / '.hidden')
    raw.symlink_to(hidden)
    for options, message in (([], "the catalogue has a dataset 'hippocampus' already"),
                             (['--name', 'BCV'], "the catalogue has a dataset 'bcv' already"),
                             (['--name', 'knees', '--raw', raw], 'leave --raw out'),
                             (['--name', 'knees', '--workers', '-1'], 'at least 1'),
                             (['--name', 'knees', '--workers', '0'], 'at least 1')):
        with pytest.raises(UserError, match=message):
            call_tool('prepare_data', raw, '--layout', 'nnunet', *options)
    with pytest.raises(UserError, match="choose another with --name"):
        call_tool('prepare_data', hidden, '--layout', 'nnunet')
    with pytest.raises(UserError, match='--workers: layout is drawn'):
        call_tool('prepare_data', 'layout', '--workers', 3)
    (tmp_path / 'file').write_text('')
    with pytest.raises(FileExistsError):
        call_tool('verify_data', raw, '--layout', 'nnunet', '--name', 'knees', '--out', tmp_path / 'file')
    for tool in ('verify_data', 'prepare_data'):
        assert call_tool(tool, hidden, '--layout', 'nnunet', '--name', 'knees', '--out', tmp_path / tool) == 0
    assert read_index(tmp_path / 'prepare_data')['dataset'] == 'knees'
