"""One NIfTI file: read by its content, in mm whatever its unit, and label maps that keep what their image says."""

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest
from conftest import write_msd

from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.nifti import GEOMETRY, read_array, write_nifti
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.volumes import read_volume, write_label
from mmseg_plugins.errors import UserError

MM = np.array([[-1.5, 0, 0, 40], [0, -1.25, 0, 50], [0, 0, 3, -60], [0, 0, 0, 1.0]])
TURNED = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ MM


def image(unit='mm', scale=1.0, qform=1, sform=1, kind=nib.Nifti1Image, array=None, affine=MM, time='sec'):
    """An image whose geometry in mm is `affine`, its lengths `scale` times as long in its own unit."""
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5) if array is None else array
    made, own = kind(array, None), np.diag([scale] * 3 + [1]) @ affine
    made.header.set_zooms([*np.linalg.norm(own[:3, :3], axis=0), 2.5][:array.ndim])
    made.set_sform(own, sform)
    made.set_qform(own, qform)
    made.header.set_xyzt_units(unit, time)
    return made


def save(made, path):
    nib.save(made, path)
    return path


UNITS = [('mm', 1), ('micron', 1000), ('meter', 0.001), ('unknown', 1)]


@pytest.mark.parametrize('codes', [(1, 1), (1, 0), (0, 2), (0, 0)])
@pytest.mark.parametrize('unit, scale', UNITS)
def test_geometry_is_in_mm_whatever_unit_a_file_names(tmp_path, unit, scale, codes):
    path = save(image(unit, scale, *codes), tmp_path / 'a.nii.gz')
    volume = read_volume(path)
    assert volume.spacing == pytest.approx((3, 1.25, 1.5)) and volume.stored[0] == 'int16'
    if any(codes):
        np.testing.assert_allclose(volume.affine, MM, atol=1e-4)
        assert not volume.notes
    else:
        assert 'orientation' in volume.notes[0]
    other = save(image('mm', 1, *codes, array=np.ones((3, 4, 5), np.uint8)), tmp_path / 'label.nii')
    assert read_volume(path, other).label.all()


def test_a_label_without_its_images_unit_is_refused_with_both(tmp_path):
    path = save(image('micron', 1000), tmp_path / 'a.nii.gz')
    label = save(image('unknown', 1000, array=np.ones((3, 4, 5), np.uint8)), tmp_path / 'label.nii.gz')
    with pytest.raises(UserError, match=r'label.nii.gz: spacing differs .*no unit.*micrometres'):
        read_volume(path, label)


@pytest.mark.parametrize('unit, scale, size', [('meter', 1, '3000 mm'), ('micron', 1, '0.00125'),
                                               ('mm', 1000, '3000 mm'), ('unknown', 0.001, '0.00125')])
def test_an_implausible_voxel_size_is_said(tmp_path, unit, scale, size):
    [note] = read_volume(save(image(unit, scale), tmp_path / 'a.nii.gz')).notes
    assert size in note and 'correct its unit' in note


def test_axes_that_are_not_at_right_angles_are_said(tmp_path):
    tilted = MM.copy()
    tilted[1, 2] = 1.5  # a gantry's tilt, kept as shear
    said, *_ = read_volume(save(image(affine=tilted), tmp_path / 'a.nii.gz')).notes
    assert 'not at right angles' in said and not read_volume(save(image(), tmp_path / 'b.nii.gz')).notes


def test_preparing_says_which_cases_have_an_implausible_voxel_size(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=3)
    for part in ('imagesTr', 'labelsTr'):
        path = raw / part / 'case_001.nii.gz'
        made = nib.load(path)
        made.header.set_xyzt_units('meter')
        save(nib.Nifti1Image(np.asarray(made.dataobj), made.affine, made.header), path)
    result = prepare_dataset('hippocampus', raw, tmp_path / 'out', workers=1)
    assert any(line.startswith('case_001: voxels are 3000 mm') for line in result.warnings)
    spacing = {case: entry['spacing'] for case, entry in read_index(tmp_path / 'out')['cases'].items()}
    assert spacing['case_000'] == [3, 2, 2] and spacing['case_001'] == [3000, 2000, 2000]


@pytest.mark.parametrize('change, said', [
    (lambda made: made.set_qform(MM @ np.diag([1, 1, 1.1, 1]), 1, update_affine=False), 'qform and sform differ'),
    (lambda made: made.header.__setitem__('qoffset_z', 30), 'qform and sform differ'),
    (lambda made: made.header.__setitem__('quatern_b', 7), 'qform and sform differ'),
    (lambda made: (made.set_qform(None, 0), made.header.set_zooms((1.5, 1.25, 5))), 'voxel sizes'),
    (lambda made: made.header.__setitem__('pixdim', [0, *made.header['pixdim'][1:]]), None)])
def test_forms_that_disagree_are_said_and_the_sform_is_taken(tmp_path, change, said):
    made = image(affine=TURNED)
    change(made)
    volume = read_volume(save(made, tmp_path / 'a.nii'))
    np.testing.assert_allclose(volume.affine, TURNED, atol=1e-4)
    assert (said in volume.notes[0] and 'sform is taken' in volume.notes[0]) if said else not volume.notes


def test_a_quaternion_is_one_though_its_handedness_is_left_out(tmp_path):
    """0 stands for 1."""
    content = bytearray(image(sform=0, affine=np.diag([2, 2, 3, 1.0])).to_bytes())
    content[76:80] = bytes(4)  # pixdim[0]
    path = tmp_path / 'a.nii'
    path.write_bytes(content)
    np.testing.assert_allclose(read_volume(path).affine, np.diag([2, 2, 3, 1]))


HEADERS = {
    'micrometres, both forms': image('micron', 1000, 1, 4, affine=TURNED), 'qform alone': image(sform=0, qform=2),
    'sform alone': image(qform=0, sform=3), 'no form': image(qform=0, sform=0),
    'metres': image('meter', 0.001, 2, 0), 'left-handed': image(sform=0, affine=MM @ np.diag([-1, 1, 1, 1])),
    'milliseconds': image(time='msec'), 'no unit': image('unknown', time='unknown'),
    'NIfTI-2': image('micron', 1000, 1, 2, nib.Nifti2Image, affine=TURNED),
    '4D of one volume': image(array=np.ones((3, 4, 5, 1), np.float32)), '4D': image(array=np.ones((3, 4, 5, 2))),
    'big-endian': nib.Nifti1Image(np.ones((3, 4, 5), '>i2'), MM, image('micron', 1000).header.as_byteswapped('>'))}


@pytest.mark.parametrize('end', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('made', HEADERS.values(), ids=HEADERS)
def test_a_label_map_keeps_the_geometry_and_nothing_else_of_its_images_header(tmp_path, made, end):
    made.header.set_intent('t test', (3,), name='stale')
    made.header['descrip'], made.header['cal_max'] = 'of the image', 700
    made.header.set_slope_inter(2, -1024)
    volume = read_volume(save(made, tmp_path / f'in{end}'))
    label = np.random.default_rng(0).integers(0, 3, volume.image[:, 0].shape).astype(np.uint8)
    write_label(tmp_path / f'out{end}', label, volume)
    image, written = nib.load(tmp_path / f'in{end}'), nib.load(tmp_path / f'out{end}')
    for field in GEOMETRY:
        kept = slice(4) if field == 'pixdim' else ...  # of the axes that there are
        np.testing.assert_array_equal(written.header[field][kept], image.header[field][kept], field)
    assert type(written) is type(image) and written.shape == image.shape[:3]
    assert written.header.get_zooms() == image.header.get_zooms()[:3]
    np.testing.assert_array_equal(written.affine, image.affine)
    assert written.get_data_dtype() == np.uint8 and written.dataobj.slope == 1 and written.dataobj.inter == 0
    assert written.header['cal_max'] == 0 and not written.header['descrip'].item().strip(b'\0')
    assert written.header.get_intent()[0] == 'none' and not written.header['intent_name'].item()
    again = read_volume(tmp_path / f'in{end}', tmp_path / f'out{end}')
    np.testing.assert_array_equal(again.label, label)


@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
def test_a_file_is_what_it_holds_whatever_it_is_called(tmp_path, kind):
    plain = save(image(kind=kind), tmp_path / 'a.nii')
    packed = save(image(kind=kind), tmp_path / 'b.nii.gz')
    wanted = read_array(plain)[0]
    for path, name in ((plain, 'c.nii.gz'), (packed, 'd.nii'), (packed, 'e')):
        shutil.copy(path, tmp_path / name)
        np.testing.assert_array_equal(read_array(tmp_path / name)[0], wanted)


VOLUME = image().to_bytes()
MISNAMED = {
    'Git LFS': (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2145\nsize 8125\n', 'git lfs pull'),
    'git-annex': (b'/annex/objects/SHA256E-s812--4d7a.nii.gz\n', 'git annex get'),
    'a web page': (b'\n<!DOCTYPE html><html><body>Please log in</body></html>', 'web page'),
    'an error in XML': (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', 'fetch it again'),
    'an error in JSON': (b'{"message": "Not found"}', 'JSON'),
    'DICOM': (bytes(128) + b'DICM\x02\x00\x00\x00UL' + bytes(400), 'dcm2niix'),
    'PNG': (b'\x89PNG\r\n\x1a\n' + bytes(500), 'a picture'),
    'JPEG': (b'\xff\xd8\xff\xe0' + bytes(500), 'a picture'),
    'NRRD': (b'NRRD0004\n# Complete NRRD file format\n', 'NRRD'),
    'MHA': (b'ObjectType = Image\nNDims = 3\n' + bytes(500), 'MetaImage'),
    'MGZ': (gzip.compress(b'\0\0\0\1\0\0\1\0' + bytes(500)), 'mri_convert'),
    'HDF5': (b'\x89HDF\r\n\x1a\n' + bytes(500), 'HDF5'), 'zip': (b'PK\x03\x04' + bytes(500), 'unpack it'),
    'tar.gz': (gzip.compress(b'imagesTr/' + bytes(248) + b'ustar\x0000' + bytes(300)), 'unpack it'),
    'compressed twice': (gzip.compress(gzip.compress(VOLUME)), 'gunzip it once'),
    'bzip2': (b'BZh91AY&SY' + bytes(500), 'unpack it'),
    'a pair\'s header': (image().header.structarr.tobytes().replace(b'n+1', b'ni1') + bytes(4), '.hdr/.img pair'),
    'anything': (b'\1\2\3 binary' * 100, 'begins with'), 'nothing': (b'', 'empty file'),
    'truncated': (gzip.compress(VOLUME)[:-20], 'not a whole NIfTI file'),
    'truncated, plain': (VOLUME[:-20], 'does not fit into')}


@pytest.mark.parametrize('end', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('content, text', MISNAMED.values(), ids=MISNAMED)
def test_what_only_is_called_nifti_is_named(tmp_path, content, text, end):
    path = tmp_path / f'a{end}'
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_volume(path)
    line = str(caught.value)
    assert line.isprintable() and line.startswith(f'{path}: ') and text in line


def test_what_is_made_here_says_that_it_is_in_mm(tmp_path):
    write_nifti(tmp_path / 'a.nii.gz', np.ones((3, 4, 5), np.uint8), MM)
    assert nib.load(tmp_path / 'a.nii.gz').header.get_xyzt_units()[0] == 'mm'
    np.testing.assert_array_equal(read_volume(tmp_path / 'a.nii.gz').affine, MM)
