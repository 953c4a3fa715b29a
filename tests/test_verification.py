"""Bad files and bad datasets: each fault one line with a remedy, the good cases prepared."""

import gzip
import json
import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import call_tool, write_msd, write_nifti
from test_export import make_checkpoint

from mmseg_plugins.datasets import Store, dataset_info, read_index
from mmseg_plugins.datasets.intensity import (
    PERCENTILES,
    STATISTICS,
    channel_statistics,
    doubt_modality,
    intensity_ranges,
)
from mmseg_plugins.datasets.layouts import find_cases
from mmseg_plugins.datasets.phantom import make_phantom
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.statistics import label_statistics
from mmseg_plugins.datasets.verification import verify_dataset
from mmseg_plugins.datasets.volumes import read_volume
from mmseg_plugins.errors import UserError

IMAGE, LABEL = 'imagesTr/case_001.nii.gz', 'labelsTr/case_001.nii.gz'


def _bytes(name, change):
    def spoil(raw):
        path = raw / name
        path.write_bytes(change(path.read_bytes()))
        return path
    return spoil


def _array(name, change):
    def spoil(raw):
        path = raw / name
        file = nib.load(path)
        return write_nifti(path, *change(np.array(file.dataobj), file.affine.copy()))
    return spoil


def _without_x(content):
    header = bytearray(gzip.decompress(content))
    header[254:256], header[280:296] = b'\x01\x00', bytes(16)  # sform_code, srow_x
    return gzip.compress(header)


def _huge(content):
    header = bytearray(gzip.decompress(content))
    header[42:48] = b'\xff\x7f' * 3  # dim 1 to 3
    return gzip.compress(header)


def _missing(raw):
    path = raw / LABEL
    path.unlink()
    return path


def _moved(array, affine):
    affine[0, 3] += 5
    return array, affine


def _tilted(array, affine):
    affine[0, 1] = 0.02
    return array, affine


BAD = {
    'empty file': (_bytes(IMAGE, lambda b: b''), 'empty file; fetch it again'),
    'truncated gzip': (_bytes(IMAGE, lambda b: b[:-300]), 'fetch it again'),
    'a gzip without its checksum': (_bytes(IMAGE, lambda b: b[:-8]), 'fetch it again'),
    'a flipped bit': (_bytes(LABEL, lambda b: b[:-8] + bytes([b[-8] ^ 1]) + b[-7:]), 'fetch it again'),
    'text named .nii.gz': (_bytes(IMAGE, lambda b: b'this is no volume\n' * 40), 'fetch it again'),
    'gzipped text': (_bytes(IMAGE, lambda b: gzip.compress(b'this is no volume\n' * 40)), 'fetch it again'),
    'a short gzipped text': (_bytes(IMAGE, lambda b: gzip.compress(b'this is no volume\n')), 'fetch it again'),
    'wrong shape': (_array(LABEL, lambda a, m: (a[:-1], m)), 'use the label that belongs to it'),
    'shifted affine': (_array(LABEL, _moved), 'origin differs from that of its image by up to 5 mm'),
    'other spacing': (_array(LABEL, lambda a, m: (a, m @ np.diag([1, 1, 1.1, 1]))), 'spacing differs'),
    'other direction': (_array(LABEL, _tilted), 'direction differs'),
    'NaN': (_array(IMAGE, lambda a, m: (np.full_like(a, np.nan), m)), 'export it again'),
    'label 255': (_array(LABEL, lambda a, m: (np.where(a == 1, 255, a).astype(np.uint8), m)), '255 outside 0..2'),
    'negative label': (_array(LABEL, lambda a, m: (a.astype(np.int16) - 1, m)), '-1 outside 0..2'),
    'fractional labels': (_array(LABEL, lambda a, m: (a + np.float32(0.25), m)), 'not integers'),
    '4D where 3D is declared': (_array(IMAGE, lambda a, m: (np.stack([a] * 2, 3), m)),
                                '4D with 2 channels, 3D is declared'),
    'two dimensions': (_array(IMAGE, lambda a, m: (a[..., 0], m)), 'neither 3D nor 4D'),
    'no geometry': (_bytes(IMAGE, _without_x), 'no geometry'),
    'values beyond float32': (_array(IMAGE, lambda a, m: (a.astype(np.float64) * 1e300, m)), 'another unit'),
    'a header that asks for everything': (_bytes(IMAGE, _huge), 'fetch it again'),
    'missing label': (_missing, 'file not found; fetch the case again'),
}


@pytest.mark.parametrize('spoil, remedy', BAD.values(), ids=BAD)
def test_a_bad_case_is_one_line_and_the_others_are_prepared(tmp_path, spoil, remedy):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=3)
    path = spoil(raw)
    result = prepare_dataset('hippocampus', raw, tmp_path / 'out', workers=1)
    assert result.cases == 2 and result.left_out == len(result.faults) == 1
    assert path.name in result.faults[0] and remedy in result.faults[0] and '\n' not in result.faults[0]
    assert sorted(p.name for p in (tmp_path / 'out' / 'cases').iterdir()) == ['case_000', 'case_002']


def test_a_file_that_may_not_be_read_is_named():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        os.chmod(folder, 0o755)
        path = write_nifti(Path(folder) / 'a.nii.gz', np.ones((3, 4, 5), np.uint8))
        path.chmod(0)
        root = os.geteuid() == 0  # whom no permission stops
        try:
            if root:
                os.seteuid(65534)
            with pytest.raises(UserError, match='no permission to read it; allow it: chmod'):
                read_volume(path)
        finally:
            if root:
                os.seteuid(0)


def test_float_labels_that_are_integers_are_accepted_and_said(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=3)
    _array(LABEL, lambda a, m: (a.astype(np.float64), m))(raw)
    result = prepare_dataset('hippocampus', raw, tmp_path / 'out', workers=1)
    assert result.cases == 3 and not result.faults
    assert any('case_001: label stored as float64' in line for line in result.warnings)


def verified(raw):
    return verify_dataset(find_cases(dataset_info('hippocampus'), raw), workers=1)


def test_cases_are_compared_with_each_other(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=12)
    split = find_cases(dataset_info('hippocampus'), raw).split
    (leaked, twin, empty, bright), other = split['train'][:4], split['val'][0]
    images = raw / 'imagesTr'
    for copy, original in ((other, leaked), (twin, empty)):
        (images / f'{copy}.nii.gz').write_bytes((images / f'{original}.nii.gz').read_bytes())
    _array(f'labelsTr/{empty}.nii.gz', lambda a, m: (a * 0, m))(raw)
    _array(f'imagesTr/{bright}.nii.gz', lambda a, m: (a * 1e4, m))(raw)
    (images / 'stray.nii.gz').write_bytes(b'')
    found = verified(raw)
    [line] = found.lines
    assert leaked in line and other in line and 'the same image in train and val' in line
    result = prepare_dataset('hippocampus', raw, tmp_path / 'out', workers=1)
    assert result.faults == [line] and result.left_out == 0
    parts = read_index(tmp_path / 'out')['split']
    assert leaked not in parts['train'] and other in parts['val']
    assert len(parts['train']) == len(split['train']) - 1
    for case, text in ((twin, 'the same image, all in train'), (empty, 'label empty'),
                       (bright, 'far from the other'), ('stray.nii.gz', 'not listed')):
        assert any(case in warning and text in warning for warning in found.warnings), (text, found.warnings)


def test_verification_leaves_a_table_a_json_and_a_contact_sheet_and_ends_with_2(tmp_path, capsys):
    raw, out = write_msd(tmp_path / 'Task04_Hippocampus', cases=5), tmp_path / 'out'
    arguments = ['verify_data', 'hippocampus', '--raw', raw, '--out', out]
    assert call_tool(*arguments) == 0
    shown = capsys.readouterr().out
    assert len([path.stat().st_size for path in out.iterdir()]) == 3
    assert 'spacing (mm)' in shown and '2.00 x 2.00 x 3.00' in shown
    assert shown.strip().splitlines()[-1] == str(out / 'cases.png')
    (raw / IMAGE).write_bytes(b'')
    assert call_tool(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'case_001.nii.gz: empty file' in error
    report = json.loads((out / 'report.json').read_text())
    assert list(report['faults']) == ['case_001'] and len(report['cases']) == 4
    assert 'empty file' in (out / 'cases.csv').read_text()


def test_a_killed_preparation_goes_on_where_it_stopped(tmp_path):
    raw, out = write_msd(tmp_path / 'Task04_Hippocampus', cases=3), tmp_path / 'out'
    prepare_dataset('hippocampus', raw, out, workers=1)
    before = {path: path.stat().st_mtime_ns for path in (out / 'cases').glob('*/meta.json')}
    (out / 'index.json').unlink()
    torn = out / 'cases' / '.case_001.77'
    (out / 'cases' / 'case_001').rename(torn)
    prepare_dataset('hippocampus', raw, out, workers=2)
    kept = [path.parent.name for path, time in before.items() if path.stat().st_mtime_ns == time]
    assert kept == ['case_000', 'case_002'] and not torn.exists() and (out / 'cases' / 'case_001').is_dir()


@pytest.mark.parametrize('damage', [lambda b: b[:-50], lambda b: b''])
def test_a_damaged_store_is_prepared_again(tmp_path, damage):
    raw, out = write_msd(tmp_path / 'Task04_Hippocampus', cases=2), tmp_path / 'out'
    prepare_dataset('hippocampus', raw, out, workers=1)
    path = out / 'cases' / 'case_001' / 'image.b2nd'
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    prepare_dataset('hippocampus', raw, out, workers=1)
    assert len(path.read_bytes()) == len(whole)


def test_a_damaged_slice_is_named(tmp_path):
    raw, out = write_msd(tmp_path / 'Task04_Hippocampus', cases=2), tmp_path / 'out'
    prepare_dataset('hippocampus', raw, out, workers=1)
    path = out / 'cases' / 'case_001' / 'image.b2nd'
    content = bytearray(path.read_bytes())
    content[len(content) // 4:-len(content) // 3] = bytes(len(content[len(content) // 4:-len(content) // 3]))
    path.write_bytes(content)
    with pytest.raises(UserError, match='image.b2nd: (damaged|cannot be read).* prepare the dataset again'):
        np.asarray(Store(out).window('case_001', list(range(6))))


@pytest.mark.parametrize('dtype', [np.uint8, np.int16, np.uint16, np.float32])
def test_percentiles_are_numpys(dtype):
    image = np.abs(np.random.default_rng(0).normal(60, 20, (3, 2, 7, 11))).astype(dtype)
    got = channel_statistics(image)
    for i, name in enumerate(STATISTICS):
        wanted = [np.percentile(image[:, c], PERCENTILES[i], method='nearest') for c in range(2)]
        np.testing.assert_array_equal(got[name], wanted)


def test_ranges_hold_for_any_scale_and_for_flat_images():
    image = np.random.default_rng(0).normal(100, 10, (5, 1, 30, 30))
    index = dict(intensity=dict(sound='percentiles', paper='maximum'))
    ranges = [intensity_ranges(index, 'sound', channel_statistics((image * scale).astype(np.float32)))[0]
              for scale in (1, 1e4)]
    assert np.array(ranges[1]) == pytest.approx(np.array(ranges[0]) * 1e4, rel=1e-5)
    image[0, 0, 0, 0] = 1e9  # one bright voxel
    assert intensity_ranges(index, 'sound', channel_statistics(image))[0][1] < 200
    assert intensity_ranges(index, 'paper', channel_statistics(image)) == [(0.0, 1e9)]
    assert intensity_ranges(index, 'paper', channel_statistics(image * 0 - 3)) == [(-3.0, -3.0)]
    spot = np.zeros((4, 1, 40, 40), np.uint8)
    spot[0, 0, 0, 0] = 9
    assert intensity_ranges(index, 'sound', channel_statistics(spot)) == [(0.0, 9.0)]


@pytest.fixture(scope='module')
def hu():
    return make_phantom((20261, 1))[0].astype(np.float32)


@pytest.mark.parametrize('modality, change, doubt', [
    ('CT', lambda hu: hu, None), ('CT', lambda hu: np.clip(hu, -175, 250), None),
    ('CT', lambda hu: np.where(hu < -1000, -3024, hu), None),
    ('CT', lambda hu: hu * 30, 'far beyond what scanners give'),
    ('CT', lambda hu: hu.clip(-128, 127), 'cut to bytes'),
    ('CT', lambda hu: hu + 1024, 'subtract the offset'), ('CT', lambda hu: hu * 20 + 20480, 'subtract the offset'),
    ('CT', lambda hu: np.clip((hu + 175) / 425, 0, 1), 'no more than 100'),
    ('CT', lambda hu: (hu - hu.mean()) / hu.std(), 'no more than 100'),
    ('CT', lambda hu: np.clip((hu + 175) / 425, 0, 1) * 255, 'windowed to bytes'),
    ('CT', lambda hu: hu * 0, None),  # constant, which is said of any modality
    ('MRI', lambda hu: hu, 'declare it as CT'),
    ('MRI', lambda hu: np.where(hu < -1000, -3024, hu), 'declare it as CT'),
    ('MRI', lambda hu: np.where(hu < -1000, -2000, hu), 'declare it as CT'),
    ('MRI', lambda hu: hu + 1024, None), ('MRI', lambda hu: (hu - hu.mean()) / hu.std(), None),
    ('MRI', lambda hu: np.interp(hu, (-1024, hu.max()), (-4096, 4095)), None),  # a phase
    ('MRI', lambda hu: np.interp(hu, (-1024, hu.max()), (-1000, 9000)), None),  # a subtraction
    ('MRI', lambda hu: hu.clip(-100), None), (None, lambda hu: hu, None)])
def test_intensities_that_cannot_be_the_modalitys_are_doubted(hu, modality, change, doubt):
    statistics = channel_statistics(np.stack([np.zeros_like(hu), change(hu)], 1))
    lines = doubt_modality({f'case_{i}': statistics for i in range(9)}, modality, ('flat', 'this'))
    assert len(lines) == (doubt is not None)
    for line in lines:
        assert line.startswith('case_0, case_1, case_2, case_3, case_4 and 4 more: channel this is declared') \
            and doubt in line and line.endswith('(9 of 9)')


def test_the_modality_is_doubted_wherever_an_image_is_read(tmp_path, prepared, capsys):
    raw = write_msd(tmp_path / 'Task09_Spleen', cases=3, labels=2)
    _array(IMAGE, lambda a, m: (a * 5 - 1000, m))(raw)
    line = ('case_000, case_002: channel CT is declared CT, but its values span no more than 100, so are scaled '
            'already; give the Hounsfield units (2 of 3)')
    assert line in verify_dataset(find_cases(dataset_info('spleen'), raw), workers=1).warnings
    assert line in prepare_dataset('spleen', raw, tmp_path / 'out', workers=1).warnings
    image = write_nifti(tmp_path / 'ct.nii.gz', np.where(np.indices((8, 9, 6))[0] < 4, -1000, 40).astype(np.int16))
    call_tool('predict', make_checkpoint(tmp_path, prepared), image, tmp_path / 'out.nii')
    assert capsys.readouterr().out.startswith(f'warning: {image}: channel MRI is declared MRI, but it has the air')


def test_label_statistics_against_a_slow_reference():
    label = np.random.default_rng(0).integers(0, 4, (6, 5, 4)).astype(np.uint8)
    label[label == 3] = 0
    label[2, 0, 0] = 3
    got = label_statistics(label, 5)
    for organ in range(5):
        mask = label == organ
        pairs = [200 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(mask, mask[1:], strict=False)
                 if a.any() or b.any()]
        assert got['voxels'][organ] == mask.sum() and got['slices'][organ] == mask.any((1, 2)).sum()
        assert got['variation'][organ] == [pytest.approx(sum(pairs), abs=1e-3), len(pairs)]
