"""One NIfTI file: its voxels and header, checked before they are believed, and files written.

A file is what its content says, whatever it is called. Geometry is in millimetres, whatever unit the header names.
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from ..errors import UserError
from ..files import write_atomic

# Headers of one geometry that differ by less are roundings of it (qform quaternions are float32).
TOLERANCES = dict(spacing=(1e-3, ' mm'), direction=(1e-3, ''), origin=(1e-2, ' mm'))
GZIP = b'\x1f\x8b'
NIFTI2 = (b'\x1c\x02\x00\x00', b'\x00\x00\x02\x1c')  # the header's size, 540, in either byte order
UNITS = {1: ('metres', 1000.0), 2: ('millimetres', 1.0), 3: ('micrometres', 0.001)}  # by xyzt_units, 1 in mm
UNKNOWN = ('no unit, taken as millimetres', 1.0)
PLAUSIBLE = (0.01, 50.0)  # mm between voxels: of a specimen's micro-CT, of a scout's thickest slices
FARTHEST = 1e6  # mm: of a kilometre, none of it is anatomy
MOST_VOXELS = 2**31  # a CT of 512 x 512 x 8192; a gzip of zeros may ask for a thousand times its size
MOST_SURPLUS = 2**20  # bytes before the voxels (extensions) or behind them
DEFLATE = 1032  # bytes that one of gzip can stand for, at most
# What lies under the name of a NIfTI file now and then, by how it begins, and what to do.
FOREIGN = [(re.compile(start, re.DOTALL), what) for start, what in (
    (rb'version https://git-lfs', 'a pointer of Git LFS; get what it stands for: git lfs pull'),
    (rb'.{0,200}/annex/objects/', 'a pointer of git-annex; get what it stands for: git annex get'),
    (rb'.{128}DICM|\x08\0[\0\x05]\0', 'DICOM; convert the series, for example with dcm2niix'),
    (rb'(\xef\xbb\xbf)?\s*<', 'a web page or XML, which a server sent in its place; fetch it again, logged in'),
    (rb'(\xef\xbb\xbf)?\s*[{\[]', 'JSON, which a server may have sent in its place; fetch it again'),
    (rb'\x89PNG|\xff\xd8\xff|GIF8|BM|II\*\0|MM\0\*', 'a picture; export the volume as NIfTI'),
    (rb'NRRD', 'NRRD; convert it, for example with SimpleITK or 3D Slicer'),
    (rb'(ObjectType|NDims|Comment)\s*=', 'MetaImage (.mha); convert it, for example with SimpleITK or 3D Slicer'),
    (rb'\0\0\0\x01\0\0', 'FreeSurfer\'s MGH; convert it: mri_convert'),
    (rb'\x89HDF', 'HDF5; export the volume as NIfTI'),
    (rb'\x93NUMPY', 'a NumPy array; store it as NIfTI, with its affine'),
    (rb'.{257}ustar|PK\x03\x04|7z\xbc\xaf\x27|Rar!', 'an archive of files; unpack it'),
    (rb'\x1f\x8b', 'compressed twice; gunzip it once'),
    (rb'BZh|\xfd7zXZ|\x28\xb5\x2f\xfd', 'compressed otherwise than by gzip; unpack it'),
    (rb'.{344}ni1', 'the header of a .hdr/.img pair; convert both into one .nii.gz'))]
# What a label map has from its image's header: lengths with their units, and both ways to the world.
GEOMETRY = ('pixdim', 'xyzt_units', 'qform_code', 'sform_code', 'quatern_b', 'quatern_c', 'quatern_d', 'qoffset_x',
            'qoffset_y', 'qoffset_z', 'srow_x', 'srow_y', 'srow_z')


def read_array(path: str | Path) -> tuple[np.ndarray, nib.Nifti1Header]:
    """Read a NIfTI file, the whole of it, in the smallest dtype that is exact (float32 for what is not).

    No more memory is taken than the header asks for, once it is known that the file can hold that.

    Returns:
        Array (X, Y, Z) or (X, Y, Z, C) of uint8, int16, uint16 or float32; the header (NIfTI-1's or 2's), whose
        geometry `read_affine` gives in mm.

    Raises:
        UserError: missing, not allowed to be read, truncated, not NIfTI, not 3D or 4D, or not finite.
    """
    path = Path(path)
    remedy = 'fetch the case again or remove it from the list'
    if path.exists() and not path.is_file():  # a device would be read for ever
        raise UserError(f'{path}: not a file; {remedy}')
    try:
        size = path.stat().st_size
        if not size:
            raise UserError(f'{path}: empty file; fetch it again')
        with open(path, 'rb') as raw:
            packed = raw.read(len(GZIP)) == GZIP
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as file:
                image = _read_image(file, path, size)
        with np.errstate(all='ignore'):
            array = np.asanyarray(image.dataobj)
    except PermissionError:
        raise UserError(f'{path}: no permission to read it; allow it: chmod u+r') from None
    except FileNotFoundError:
        raise UserError(f'{path}: file not found; {remedy}') from None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, struct.error, MemoryError,
            OverflowError, nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError,
            nib.wrapstruct.WrapStructError) as error:  # nibabel's, for a torn header
        raise UserError(f'{path}: not a whole NIfTI file ({_reason(error)}); fetch it again') from error
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
        raise UserError(f'{path}: holds NaN or infinite voxels; export it again')
    array = smallest_dtype(array)
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
        raise UserError(f'{path}: holds values beyond 3.4e38; export it in another unit')
    return array[..., 0] if array.shape[3:] == (1,) else array, image.header


def _read_image(file: BinaryIO, path: Path, size: int) -> nib.Nifti1Image:
    """A file's content, its header checked before the voxels are read.

    Args:
        file: what `path` holds, decompressed as it is read.
        size: of the file as it is on the disk, in bytes.
    """
    start = file.read(540)
    kind = nib.Nifti2Image if start[:4] in NIFTI2 else nib.Nifti1Image
    length = kind.header_class.template_dtype.itemsize
    if kind is nib.Nifti1Image and start[344:348] != b'n+1\0':
        what = next((what for pattern, what in FOREIGN if pattern.match(start)),
                    f'it begins with {start[:12]!r}; fetch it again, or export it as NIfTI')
        raise UserError(f'{path}: not NIfTI: {what}')
    header = kind.header_class(start[:length], check=False)  # nibabel would mend it, a spacing of zero to 1 mm
    if header['pixdim'][0] == 0:
        header['pixdim'][0] = 1  # as the standard has it; nibabel would not compute the qform
    with np.errstate(all='ignore'):
        shape, dtype, affine = header.get_data_shape(), header.get_data_dtype(), read_affine(header)
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise UserError(f'{path}: shape {shape} is neither 3D nor 4D (x, y, z, channel); '
                        'export it as one volume')
    if dtype.kind not in 'biuf':
        raise UserError(f'{path}: voxels of type {dtype} are not numbers; export it as a scalar image')
    spacing = header['pixdim'][1:4]
    if not (np.isfinite(spacing).all() and spacing.all() and np.isfinite(affine).all()
            and 1e-9 < abs(np.linalg.det(affine[:3, :3])) and np.abs(affine).max() < FARTHEST):
        raise UserError(f'{path}: its affine is no geometry (zero, infinite or absurd voxel size); '
                        'export it again')
    offset = int(header['vox_offset'])
    end = offset + math.prod(shape) * dtype.itemsize
    if not length <= offset <= MOST_SURPLUS or end > size * (DEFLATE if isinstance(file, gzip.GzipFile) else 1):
        raise UserError(f'{path}: shape {shape} of {dtype} does not fit into its {size} bytes; fetch it again')
    if math.prod(shape) > MOST_VOXELS:
        raise UserError(f'{path}: {math.prod(shape)} voxels, more than {MOST_VOXELS}; crop or resample it')
    content = start + file.read(max(end - len(start), 0))
    if len(content) < end:
        raise EOFError(f'it ends after {len(content)} of {end} bytes')
    behind = len(content) - end + len(file.read(MOST_SURPLUS))  # to the end, where gzip has its checksum
    if behind >= MOST_SURPLUS:
        raise UserError(f'{path}: goes on behind the {end} bytes that its header declares; fetch it again')
    with nib.imageglobals.LoggingOutputSuppressor():  # what is left for it to mend does no harm
        return kind.from_bytes(content)


def _reason(error: Exception) -> str:
    return ' '.join((str(error).splitlines() or [''])[0].split()) or type(error).__name__


def smallest_dtype(array: np.ndarray) -> np.ndarray:
    """The same values as uint8, int16 or uint16 where they are integers that fit, else rounded to float32."""
    low, high = array.min(), array.max()
    for dtype in (np.uint8, np.int16, np.uint16):
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            narrow = array.astype(dtype)
            if array.dtype.kind in 'biu' or np.array_equal(narrow, array):
                return narrow
    with np.errstate(over='ignore'):
        return array.astype(np.float32)


def _unit(header: nib.Nifti1Header) -> tuple[str, float]:
    """The unit of a header's lengths, in words and in mm."""
    return UNITS.get(int(header['xyzt_units']) & 7, UNKNOWN)


def _in_mm(affine: np.ndarray, header: nib.Nifti1Header) -> np.ndarray:
    return np.diag([*[_unit(header)[1]] * 3, 1.0]) @ affine


def read_affine(header: nib.Nifti1Header) -> np.ndarray:
    """From a file's voxels to the world in mm, 4x4: its sform, else its qform, else its voxel sizes alone."""
    return _in_mm(header.get_best_affine(), header)


def find_difference(affine: np.ndarray, other: np.ndarray) -> str | None:
    """In what two geometries (mm) differ by more than roundings, and by how much; None: in nothing."""
    def parts(matrix):
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        return dict(spacing=spacing, direction=matrix[:3, :3] / spacing, origin=matrix[:3, 3])

    mine, theirs = parts(affine), parts(other)
    for part, (tolerance, unit) in TOLERANCES.items():
        difference = np.abs(mine[part] - theirs[part]).max()
        if not difference <= tolerance:
            return f'{part} by up to {difference:.3g}{unit} (allowed {tolerance:g})'
    return None


def check_same_geometry(path: str | Path, header: nib.Nifti1Header, other: nib.Nifti1Header, whose: str) -> None:
    """Spacing, direction and origin of two files of one case are the same, whatever their units.

    Raises:
        UserError: begins with `path`.
    """
    if difference := find_difference(read_affine(header), read_affine(other)):
        part, _, size = difference.partition(' ')
        unit, theirs = _unit(header)[0], _unit(other)[0]
        units = f'; its header has {unit}, the other {theirs}' if unit != theirs else ''
        raise UserError(f'{path}: {part} differs from that of {whose} {size}{units}; resample it onto the image, '
                        'or correct the header')


def describe_doubts(header: nib.Nifti1Header) -> list[str]:
    """What of a header's geometry is taken as it is, but may not be meant: one text each."""
    affine, doubts = read_affine(header), []
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    size = spacing.max() if spacing.max() > PLAUSIBLE[1] else spacing.min()
    if not PLAUSIBLE[0] <= size <= PLAUSIBLE[1]:
        doubts.append(f'voxels are {size:g} mm apart, which no scanner makes (the header has '
                      f'{_unit(header)[0]}); correct its unit or its voxel size')
    axes = affine[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        doubts.append('its axes are not at right angles to each other, as of a tilted gantry; distances are taken '
                      'as if they were')
    if header['sform_code'] > 0:
        try:
            with np.errstate(all='ignore'):
                qform = _in_mm(header.get_qform(), header)
            difference = find_difference(qform, affine) if header['qform_code'] > 0 else None
        except (ValueError, nib.spatialimages.HeaderDataError):  # its quaternion is no rotation
            difference = 'all' if header['qform_code'] > 0 else None
        if difference:
            doubts.append(f'qform and sform differ ({difference}); the sform is taken')
        elif not np.allclose(np.abs(header['pixdim'][1:4]) * _unit(header)[1], spacing, rtol=0,
                             atol=TOLERANCES['spacing'][0]):
            doubts.append('voxel sizes (pixdim) and sform differ; the sform is taken')
    elif header['qform_code'] <= 0:
        doubts.append('the header says nothing of orientation (qform and sform codes are 0); its axes are taken '
                      'as left, front and head')
    return doubts


def write_nifti(path: str | Path, array: np.ndarray, geometry: np.ndarray | nib.Nifti1Header) -> None:
    """Write an array (X, Y, Z) in its own dtype as .nii or .nii.gz: the same bytes for the same array.

    Args:
        geometry: affine in mm; or an image's header, whose units, voxel sizes, forms and version (NIfTI-1 or 2)
            the file has then, and nothing else of it.
    """
    if isinstance(geometry, np.ndarray):
        image = nib.Nifti1Image(array, geometry)
        image.header.set_xyzt_units('mm')
    else:
        header = type(geometry)()
        for field in GEOMETRY:
            header[field] = geometry[field]
        header.set_data_dtype(array.dtype)
        kind = nib.Nifti2Image if isinstance(geometry, nib.Nifti2Header) else nib.Nifti1Image
        image = kind(array, None, header)
    data = image.to_bytes()
    write_atomic(path, gzip.compress(data, 6, mtime=0) if str(path).endswith('.gz') else data)
