import json
import pickle
import shutil
from dataclasses import replace

import blosc2
import cv2
import nibabel as nib
import numpy as np
import pytest
import torch
from children import CONFIG
from conftest import write_msd, write_nifti
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from torch.utils.data import DataLoader

from mmseg_plugins.datasets import Store, WindowDataset, read_index, window_indices
from mmseg_plugins.datasets import store as store_module
from mmseg_plugins.datasets.catalogue import CATALOGUE, dataset_info
from mmseg_plugins.datasets.phantom import make_phantom
from mmseg_plugins.datasets.planes import resize_planes
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.splits import MSD_COUNTS, msd_split
from mmseg_plugins.datasets.store import write_case
from mmseg_plugins.datasets.transforms import (
    RandomRotate90,
    RandomTranslate,
    RandomWindowFlip,
    RandomWindowRotFlip,
    RandomZoomCrop,
    ResizeWindow,
)
from mmseg_plugins.datasets.volumes import Volume, read_volume, write_label
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config

init_default_scope('mmseg')


@pytest.mark.parametrize('centre, slices, stride, wanted', [
    (0, 5, 1, [0, 0, 0, 1, 2]), (9, 5, 1, [7, 8, 9, 9, 9]), (4, 5, 2, [0, 2, 4, 6, 8]),
    (0, 5, 3, [0, 0, 0, 3, 6]), (7, 5, 0, [7] * 5), (9, 4, 1, [7, 8, 9, 9]), (3, 1, 1, [3]),
    (1, 21, 1, [0] * 10 + list(range(1, 10)) + [9] * 2)])
def test_window_indices_clamp_at_the_ends(centre, slices, stride, wanted):
    assert window_indices(centre, 10, slices, stride) == wanted


@pytest.fixture(scope='module')
def mapped(msd_raw, tmp_path_factory):
    """`prepared`, in the uncompressed form."""
    folder = tmp_path_factory.mktemp('mapped') / 'hippocampus'
    prepare_dataset('hippocampus', msd_raw, folder, mapped=True)
    return folder


@pytest.mark.parametrize('slices, stride', [(1, 1), (5, 1), (5, 0), (5, 3), (21, 1), (4, 2)])
def test_store_returns_the_files_own_slices(msd_raw, prepared, mapped, slices, stride):
    case = 'case_003'
    volume = read_volume(msd_raw / 'imagesTr' / f'{case}.nii.gz', msd_raw / 'labelsTr' / f'{case}.nii.gz')
    for store in Store(prepared), Store(mapped):
        for z in range(6):
            indices = window_indices(z, 6, slices, stride)
            window = store.window(case, indices)
            assert window.dtype == volume.image.dtype and window.shape == (slices, *volume.image.shape[2:])
            np.testing.assert_array_equal(window, volume.image[indices, 0])
            np.testing.assert_array_equal(store.label(case, indices), volume.label[indices])


def _write_as_before(array, path):
    blosc2.asarray(array, urlpath=str(path), mode='w', chunks=(1, *array.shape[1:]), blocks=(1, *array.shape[1:]),
                   cparams=dict(codec=blosc2.Codec.ZSTD, clevel=3, filters=[blosc2.Filter.SHUFFLE]))


@pytest.mark.parametrize('dtype', ['uint8', 'int16', 'uint16', 'float32'])
@pytest.mark.parametrize('form', ['compressed', 'mapped', 'earlier'])
def test_a_part_of_a_window_is_what_reading_all_and_resizing_gives(tmp_path, monkeypatch, form, dtype):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (4, 2, 190, 201)).astype(dtype)  # planes of more than one block, and of one
    label = rng.integers(0, 5, (4, 190, 201)).astype(np.uint8)
    if form == 'earlier':
        monkeypatch.setattr(store_module, '_compress', _write_as_before)
    write_case(tmp_path, 'a', Volume(image, label, np.eye(4), (2, 1, 0), (False,) * 3), {}, form == 'mapped')
    indices, store = [0, 0, 0, 1, 3, 3], Store(tmp_path)
    for region, size in ((np.s_[50:150, 3:200], (190, 201)), (np.s_[:, :], (101, 99)), (np.s_[0:1, 7:9], (3, 1)),
                         (np.s_[:, 60:], (300, 20)), (np.s_[5:69, 100:164], (64, 64))):
        every = image[indices].swapaxes(0, 1).reshape(-1, 190, 201)
        for planes, stored, nearest in ((every, store.window('a', indices), False),
                                        (label[indices], store.label('a', indices), True)):
            crop = planes[:, region[0], region[1]]
            shrinks = size[0] < crop.shape[1] or size[1] < crop.shape[2]
            how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            wanted = np.stack([cv2.resize(plane, size[::-1], interpolation=how) for plane in crop.copy()])
            for source in planes, stored:
                got = resize_planes(source, size, nearest, region)
                assert got.dtype == planes.dtype
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize('dtype', ['uint8', 'int16', 'uint16', 'float32'])
@pytest.mark.parametrize('region, size', [(np.s_[:, :], (64, 64)), (np.s_[3:20, 5:40], (34, 36)),
                                          (np.s_[7:8, :], (5, 61)), (np.s_[:, 9:10], (50, 1))])
def test_enlarging_by_area_is_torchs(dtype, region, size):
    planes = np.random.default_rng(0).integers(0, 200, (3, 31, 47)).astype(dtype)
    got = resize_planes(planes, size, region=region, enlarge='area')
    crop = torch.from_numpy(planes[:, region[0], region[1]].astype(np.float32))
    wanted = torch.nn.functional.interpolate(crop[None], size=size, mode='area')[0].numpy()
    assert got.dtype == dtype
    np.testing.assert_allclose(got, wanted, atol=1e-4 if dtype == 'float32' else 1.0)  # rounded twice
    assert abs(got.astype(float).mean() - wanted.mean()) < 0.1
    assert (got != resize_planes(planes, size, region=region)).any()


@pytest.mark.parametrize('make', [
    lambda **how: ResizeWindow((40, 48), **how),
    lambda **how: RandomZoomCrop((40, 48), (1.5, 1.5), **how),
    lambda **how: RandomZoomCrop((40, 48), (0.9, 0.9), **how)])  # a slice of 20 x 24 grows all the same
def test_a_transform_enlarges_as_it_is_told(make):
    found = {}
    for how in ('area', 'bilinear', None):
        np.random.seed(0)
        found[how] = make(**({'enlarge': how} if how else {})).transform(_sample())
    assert (found['area']['window'] != found['bilinear']['window']).any()
    np.testing.assert_array_equal(found[None]['window'], found['bilinear']['window'])
    np.testing.assert_array_equal(found['area']['planes'], found['bilinear']['planes'])
    with pytest.raises(ValueError, match="enlarge 'cubic': must be 'area' or 'bilinear'"):
        make(enlarge='cubic')


def test_workers_read_what_one_process_reads(prepared, mapped):
    for folder in prepared, mapped:
        dataset = WindowDataset(str(folder), 'train', 5, pipeline=[
            dict(type='LoadWindow'), dict(type='ResizeWindow', size=(32, 32)), dict(type='PackWindow')])
        here = [sample['inputs'] for sample in dataset]  # opens files that forked workers inherit
        for copy in dataset, pickle.loads(pickle.dumps(dataset)):  # the latter is what spawned workers get
            loader = DataLoader(copy, batch_size=None, num_workers=2, multiprocessing_context='fork')
            for wanted, sample in zip(here, loader, strict=True):
                assert torch.equal(sample['inputs'], wanted)


def test_few_files_are_open_at_a_time(prepared, mapped, monkeypatch):
    monkeypatch.setattr(store_module, 'OPEN_ARRAYS', 3)
    for store in Store(prepared), Store(mapped):
        for number in range(10):
            np.asarray(store.window(f'case_{number:03d}', [0]))
            np.asarray(store.label(f'case_{number:03d}', [0]))
        assert len(store._open) == 3


def test_preparing_in_the_other_form_replaces_it(tmp_path, msd_raw):
    indices = []
    for form in (False, True, False):
        prepare_dataset('hippocampus', msd_raw, tmp_path, mapped=form)
        assert {path.name for path in (tmp_path / 'cases' / 'case_000').iterdir()} == {'meta.json'} | (
            {'image.npy', 'label.npy'} if form else {'image.b2nd', 'label.b2nd'})
        indices.append(read_index(tmp_path))
    assert indices[0] == indices[1] == indices[2]  # the content is the same: so are the runs on it


@pytest.mark.parametrize('directions', ['RAS', 'LPS', 'LAS', 'PIR', 'ASR', 'SRA'])
def test_label_maps_lie_on_the_original_whatever_its_orientation(tmp_path, directions):
    array = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    ras = nib.Nifti1Image(array, np.diag([2, 3, 4, 1.0]))
    turned = ras.as_reoriented(nib.orientations.ornt_transform(
        nib.io_orientation(ras.affine), nib.orientations.axcodes2ornt(directions)))
    nib.save(turned, tmp_path / 'in.nii.gz')
    volume = read_volume(tmp_path / 'in.nii.gz', tmp_path / 'in.nii.gz')
    write_label(tmp_path / 'out.nii.gz', volume.label, volume)
    out = nib.load(tmp_path / 'out.nii.gz')
    np.testing.assert_array_equal(np.asarray(out.dataobj), np.asarray(turned.dataobj))
    np.testing.assert_allclose(out.affine, turned.affine)
    size = dict(zip(nib.aff2axcodes(turned.affine), turned.header.get_zooms(), strict=True))
    assert sorted(volume.spacing) == pytest.approx(sorted(size.values()))


def test_axial_slices_are_upright(tmp_path):
    """Row 0 is the front, column 0 the patient's right, whatever way the file is stored."""
    array = np.zeros((4, 5, 3), np.uint8)
    array[3, 4, :] = 1  # R, A corner of an RAS file
    for flip in (False, True):
        stored = array[::-1] if flip else array
        affine = np.diag([-1 if flip else 1, 1, 1, 1.0])
        path = write_nifti(tmp_path / f'{flip}.nii.gz', np.ascontiguousarray(stored), affine)
        assert read_volume(path).image[0, 0, 0, 0] == 1


def test_dtypes_stay_exact_and_small(tmp_path):
    for values, dtype in (([0, 255], 'uint8'), ([-1024, 3071], 'int16'), ([0, 60000], 'uint16'),
                          ([0.5, 2], 'float32')):
        path = write_nifti(tmp_path / 'a.nii.gz', np.resize(np.array(values, np.float64), (3, 4, 5)))
        assert str(read_volume(path).image.dtype) == dtype


def test_splits_have_the_papers_counts():
    counts = {task: tuple(len(part) for part in msd_split(task, list(map(str, range(n)))).values())
              for task, n in MSD_COUNTS.items()}
    assert list(counts.values()) == [(387, 72, 25), (16, 3, 1), (104, 20, 7), (208, 39, 13), (25, 5, 2),
                                     (50, 9, 4), (224, 42, 15), (242, 45, 16), (32, 6, 3), (100, 19, 7)]


def test_one_task_alone_gets_the_split_it_has_among_all_ten():
    import random

    generator, lists = random.Random(1234), {}
    for task, count in MSD_COUNTS.items():
        lists[task] = [str(i) for i in range(count)]
        generator.shuffle(lists[task])
    split = msd_split('Task04_Hippocampus', [str(i) for i in range(260)])
    assert split['train'] + split['val'] + split['test'] == lists['Task04_Hippocampus']


def _sample(slices=5, size=(20, 24), seed=0):
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, 4, (1, *size)).astype(np.uint8)
    window = np.repeat(planes, slices, 0).astype(np.int16) * 100  # the image tells its own label
    return dict(window=window, planes=planes, slices=slices, intensity_range=[(-175.0, 250.0)])


@pytest.mark.parametrize('transform', [RandomWindowFlip(0.5), RandomRotate90(1.0), RandomTranslate(5),
                                       RandomWindowRotFlip(), RandomWindowRotFlip(flip_prob=0, rotate_prob=1)])
def test_image_and_label_move_together(transform):
    np.random.seed(0)
    for seed in range(20):
        out = transform.transform(_sample(seed=seed))
        inside = out['planes'][0] > 0
        for plane in out['window']:
            np.testing.assert_array_equal(plane[inside], out['planes'][0][inside].astype(int) * 100)


def test_turn_and_flip_else_rotation_else_nothing():
    np.random.seed(0)
    _, rows, columns = np.mgrid[:1, :64, :64]
    disc = ((rows - 31.5) ** 2 + (columns - 48) ** 2 < 36).astype(np.uint8)
    angles, kinds = [], []
    for _ in range(200):
        out = RandomWindowRotFlip().transform(dict(window=disc * np.int16(200), planes=disc, slices=1,
                                                   intensity_range=[(-175.0, 250.0)]))
        row, column = np.argwhere(out['planes'][0]).mean(0) - 31.5
        angles.append(np.degrees(np.arctan2(row, column)))
        kinds.append('rotated' if (out['window'] == -175).any() else 'same' if (out['planes'] == disc).all() else
                     'turned')
    rotated = [angle for angle, kind in zip(angles, kinds, strict=True) if kind == 'rotated']
    assert 15 < max(rotated) < 21 and -21 < min(rotated) < -15
    # of 200: turned or flipped to another place 3/4 of a half, rotated a quarter
    assert 60 < kinds.count('turned') < 90 and 35 < len(rotated) < 65


@pytest.mark.parametrize('zoom', [(0.5, 0.5), (0.7, 0.9), (1.0, 1.0), (1.5, 2.0)])
def test_zoom_keeps_size_dtype_and_alignment(zoom):
    np.random.seed(0)
    rows, columns = np.mgrid[:40, :48]
    disc = ((rows - 20) ** 2 + (columns - 24) ** 2 < 150).astype(np.uint8)
    sample = dict(window=np.stack([disc.astype(np.int16) * 200] * 3), planes=disc[None], slices=3,
                  intensity_range=[(-175.0, 250.0)])
    out = RandomZoomCrop((40, 48), zoom).transform(sample)
    assert out['window'].shape == (3, 40, 48) and out['window'].dtype == np.int16
    assert ((out['window'][1] > 100) != (out['planes'][0] > 0)).mean() < 0.03
    if zoom[1] < 1:
        assert out['window'][0, 0, 0] == -175 and out['planes'][0, 0, 0] == 0


def test_depth_flip_leaves_an_even_windows_centre_alone():
    np.random.seed(0)
    sample = dict(window=np.arange(4)[:, None, None] * np.ones((1, 2, 2)), planes=np.ones((1, 2, 2), np.uint8),
                  slices=4, intensity_range=[(0, 1)])
    for _ in range(20):
        assert RandomWindowFlip(0.9).transform(dict(sample))['window'][2, 0, 0] == 2


def test_dataset_gives_every_slice_with_its_own_range(prepared):
    dataset = WindowDataset(str(prepared), 'train', 3, pipeline=[dict(type='LoadWindow'), dict(type='PackWindow')])
    index = read_index(prepared)
    assert len(dataset) == 6 * len(index['split']['train'])
    sample = dataset[0]['data_samples']
    entry = index['cases'][sample.case]
    assert sample.intensity_range == [(entry['low'][0], entry['high'][0])]
    paper = WindowDataset(str(prepared), 'train', 3, protocol='paper', pipeline=dataset.pipeline.transforms)
    assert paper[0]['data_samples'].intensity_range == [(0.0, entry['maximum'][0])]


def test_a_datasets_tolerance_is_in_its_index_and_of_the_catalogue_where_an_earlier_version_left_it_out(
        msd_raw, tmp_path, monkeypatch):
    entry = replace(dataset_info('hippocampus'), nsd_tolerance=0.75)
    monkeypatch.setitem(CATALOGUE, 'knee', entry)
    prepare_dataset('knee', msd_raw, tmp_path, workers=1)
    index = tmp_path / 'index.json'
    assert json.loads(index.read_text())['nsd_tolerance'] == 0.75
    assert WindowDataset(str(tmp_path), 'train', 1).metainfo['nsd_tolerance'] == 0.75
    content = json.loads(index.read_text())
    for value, message in ((0, "its nsd_tolerance is '0', no number of mm above 0"), ('2', "is '2', no number")):
        index.write_text(json.dumps(content | dict(nsd_tolerance=value)))
        with pytest.raises(UserError, match=message):
            read_index(tmp_path)
    del content['nsd_tolerance']
    index.write_text(json.dumps(content))
    assert read_index(tmp_path)['nsd_tolerance'] == 0.75
    monkeypatch.delitem(CATALOGUE, 'knee')
    assert read_index(tmp_path)['nsd_tolerance'] == 2.0
    with pytest.raises(UserError, match='nsd_tolerance 0 is no number of mm above 0; correct its DatasetInfo'):
        replace(entry, nsd_tolerance=0)


def test_phantom_has_all_13_organs_and_is_repeatable():
    hu, label = make_phantom((1, 2))
    assert hu.dtype == np.int16 and hu.shape == label.shape == (16, 64, 64)
    again = make_phantom((1, 2))
    np.testing.assert_array_equal(hu, again[0])
    organs = set().union(*(np.unique(make_phantom((1, n))[1]) for n in range(4)))
    assert organs == set(range(14))


@pytest.mark.parametrize('name, folder, channels, labels', [
    ('prostate', 'Task05_Prostate', 2, 3), ('brain', 'Task01_BrainTumour', 4, 4)])
def test_channels_are_kept(tmp_path, name, folder, channels, labels):
    raw = write_msd(tmp_path / folder, cases=4, channels=channels, labels=labels)
    prepare_dataset(name, raw, tmp_path / 'out')
    assert len(Store(tmp_path / 'out').window('case_000', [0, 1, 2])) == channels * 3


def test_a_path_out_of_the_archive_is_refused(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=2)
    listing = json.loads((raw / 'dataset.json').read_text())
    listing['training'][0]['image'] = '../elsewhere.nii.gz'
    (raw / 'dataset.json').write_text(json.dumps(listing))
    with pytest.raises(UserError, match='outside'):
        prepare_dataset('hippocampus', raw, tmp_path / 'out')


def test_preparing_again_keeps_what_did_not_change(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=3)
    prepare_dataset('hippocampus', raw, tmp_path / 'out')
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / 'out' / 'cases').glob('*/meta.json')}
    before = read_index(tmp_path / 'out')
    write_nifti(raw / 'labelsTr' / 'case_001.nii.gz', np.zeros((18, 21, 6), np.uint8))
    prepare_dataset('hippocampus', raw, tmp_path / 'out')
    changed = [p.parent.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp]
    assert changed == ['case_001']
    assert before != read_index(tmp_path / 'out')  # by content alone: what depends on the data is run again


def test_real_hippocampus_split(real_data):
    from mmseg_plugins.datasets import dataset_info
    from mmseg_plugins.datasets.layouts import find_cases

    dataset = find_cases(dataset_info('hippocampus'), real_data / 'Task04_Hippocampus')
    assert {name: len(cases) for name, cases in dataset.split.items()} == dict(train=208, val=39, test=13)


def test_a_case_that_is_newer_than_the_index_is_not_read(prepared, tmp_path):
    """As where a second preparation was interrupted: spacing, percentiles and splits are the old ones."""
    folder = tmp_path / 'hippocampus'
    shutil.copytree(prepared, folder)
    case = read_index(folder)['split']['train'][0]
    meta = folder / 'cases' / case / 'meta.json'
    before = json.loads(meta.read_text())
    for change in (dict(sha256='another'), dict(spacing=[9.0, 2.0, 2.0])):  # or a corrected header
        meta.write_text(json.dumps(before | change))
        WindowDataset(str(folder), 'test', 3)
        with pytest.raises(UserError, match=f"case '{case}' is newer than index.json"):
            WindowDataset(str(folder), 'train', 3)


def test_augmentation_fills_with_the_low_end_that_the_model_clips_to(prepared):
    """Else what is padded would be tissue: -175 in the usual range of CT is not air in a wider one."""
    cfg = load_config(CONFIG, {'experiment.data_root': str(prepared), 'experiment.source': None,
                               'model.data_preprocessor.clip': [-1000, 400]})
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.get_data_info(0)['intensity_range'] == [[-1000, 400]]
