"""One case: NIfTI files -> a verified, oriented volume, and label maps back to NIfTI."""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from ..errors import UserError
from ..files import write_atomic

# Headers of one case that differ by less are roundings of the same geometry (qform quaternions are float32).
TOLERANCES = dict(spacing=(1e-3, ' mm'), direction=(1e-3, ''), origin=(1e-2, ' mm'))
NIFTI2 = (b'\x1c\x02\x00\x00', b'\x00\x00\x02\x1c')  # the header's size, 540, in either byte order
FARTHEST = 1e6  # mm: of a kilometre, none of it is anatomy
MOST_VOXELS = 2**31  # a CT of 512 x 512 x 8192; a gzip of zeros may ask for a thousand times its size
MOST_SURPLUS = 2**20  # bytes before the voxels (extensions) or behind them
DEFLATE = 1032  # bytes that one of gzip can stand for, at most


@dataclass
class Volume:
    """A 3D image as slices: `image` (D, C, H, W), `label` (D, H, W) uint8 or None, and geometry.

    Depth is the file's third axis, as the paper has it. `axes` and `flips` lead from the file's
    (x, y, z) to (D, H, W); `affine` is the file's own, so that label maps lie on the original exactly.
    `stored` are the dtypes in the files (image, label), `notes` what was accepted though unusual.
    """
    image: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    stored: tuple[str, str | None] = ('', None)
    notes: Sequence[str] = ()

    @property
    def orientation(self) -> str:
        """Where the file's x, y and z run to, as in `RAS`: right, front, head."""
        return ''.join(nib.aff2axcodes(self.affine))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (D, H, W)."""
        size = np.linalg.norm(self.affine[:3, :3], axis=0)
        return tuple(float(size[axis]) for axis in self.axes)


def slice_layout(affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """(axes, flips) from a file's (x, y, z) to (D, H, W) with every slice shown upright.

    Columns run to the patient's left (or back), rows to the back (or feet), as radiology shows them
    and as images of standing things are; depth keeps the file's third axis.
    """
    world, direction = nib.io_orientation(affine).T
    world = np.where(np.isnan(world), np.arange(3), world)
    column, row = sorted((0, 1), key=lambda axis: world[axis])
    # io_orientation: +1 runs to the right, the front, the head.
    flips = (bool(direction[2] < 0), bool(direction[row] > 0), bool(direction[column] > 0))
    return (2, row, column), flips


def read_array(path: str | Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Read a NIfTI file, the whole of it, in the smallest dtype that is exact (float32 for what is not).

    No more memory is taken than the header asks for, once it is known that the file can hold that.

    Returns:
        Array (X, Y, Z) or (X, Y, Z, C) of uint8, int16, uint16 or float32; the 4x4 affine; the dtype that
        the file declares.

    Raises:
        UserError: missing, not allowed to be read, truncated, not NIfTI, not 3D or 4D, or not finite.
    """
    path = Path(path)
    remedy = 'fetch the case again or remove it from the list'
    if path.exists() and not path.is_file():  # a device would be read for ever
        raise UserError(f'{path}: not a file; {remedy}')
    try:
        size = path.stat().st_size
        with gzip.open(path) if path.name.endswith('.gz') else open(path, 'rb') as file:
            if not size:
                raise UserError(f'{path}: empty file; fetch it again')
            image, dtype = _read_image(file, path, size)
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
    return array[..., 0] if array.shape[3:] == (1,) else array, np.asarray(image.affine, float), dtype


def _read_image(file: BinaryIO, path: Path, size: int) -> tuple[nib.Nifti1Image, str]:
    """A file's content and dtype, its header checked before the voxels are read.

    Args:
        file: what `path` holds, decompressed as it is read.
        size: of the file as it is on the disk, in bytes.
    """
    start = file.read(540)
    kind = nib.Nifti2Image if start[:4] in NIFTI2 else nib.Nifti1Image
    length = kind.header_class.template_dtype.itemsize
    header = kind.header_class(start[:length], check=False)  # nibabel would mend it, a spacing of zero to 1 mm
    with np.errstate(all='ignore'):
        shape, dtype, affine = header.get_data_shape(), header.get_data_dtype(), header.get_best_affine()
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
        return kind.from_bytes(content), str(dtype)


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


def read_volume(images: str | Path | Sequence[Path], label_path: str | Path | None = None,
                channels: int | None = None, classes: int | None = None) -> Volume:
    """Read and verify one case.

    Args:
        images: 3D image, or 4D with channels last; or one 3D image per channel.
        label_path: integer label map of the same shape and geometry, or None.
        channels: the number of channels the dataset declares; None accepts any.
        classes: K with background; a label >= K is an error.

    Raises:
        UserError: one line that names the file, the fault and the remedy.
    """
    images = [images] if isinstance(images, str | Path) else list(images)
    read = [read_array(path) for path in images]
    affine, first = read[0][1], read[0][0]
    for path, (array, other, _) in zip(images[1:], read[1:], strict=True):
        if array.shape != first.shape or array.ndim != 3:
            raise UserError(f'{path}: shape {array.shape}, the first channel has {first.shape}; export all '
                            'channels alike, in 3D')
        _check_geometry(path, other, affine, 'the first channel')
    image = np.stack([array for array, *_ in read], 3) if len(images) > 1 else first
    image = image[..., None] if image.ndim == 3 else image
    if channels and image.shape[3] != channels:
        declared = '3D' if channels == 1 else f'4D with {channels} channels'
        raise UserError(f'{images[0]}: {"3D" if first.ndim == 3 else f"4D with {image.shape[3]} channels"}, '
                        f'{declared} is declared; correct the file, or the number of channels in dataset.json')
    axes, flips = slice_layout(affine)

    def to_slices(array):
        array = array.transpose(*axes, *range(3, array.ndim))
        return np.flip(array, [axis for axis in range(3) if flips[axis]])

    label, notes, dtype = None, [], None
    if label_path is not None:
        label, label_affine, dtype = read_array(label_path)
        if label.shape != image.shape[:3]:
            raise UserError(f'{label_path}: shape {label.shape}, its image has {image.shape[:3]}; '
                            'use the label that belongs to it')
        _check_geometry(label_path, label_affine, affine, 'its image')
        if label.dtype.kind == 'f':
            raise UserError(f'{label_path}: label values are not integers; export it as a label map')
        for value in (int(label.min()), int(label.max())):
            if not 0 <= value < (classes or 256):
                raise UserError(f'{label_path}: label {value} outside 0..{(classes or 256) - 1}; correct the '
                                'label or the label list')
        if np.dtype(dtype).kind == 'f':
            notes.append(f'label stored as {dtype}; all its values are integers, taken as such')
        label = np.ascontiguousarray(to_slices(label), dtype=np.uint8)
    return Volume(np.ascontiguousarray(to_slices(image).transpose(0, 3, 1, 2)), label, affine, axes, flips,
                  stored=(read[0][2], dtype), notes=notes)


def _check_geometry(path: str | Path, affine: np.ndarray, reference: np.ndarray, whose: str) -> None:
    """Spacing, direction and origin of two files of one case, within the tolerances above."""
    def parts(matrix):
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        return dict(spacing=spacing, direction=matrix[:3, :3] / spacing, origin=matrix[:3, 3])

    mine, theirs = parts(affine), parts(reference)
    for part, (tolerance, unit) in TOLERANCES.items():
        difference = np.abs(mine[part] - theirs[part]).max()
        if difference > tolerance:
            raise UserError(f'{path}: {part} differs from that of {whose} by up to {difference:.3g}{unit} '
                            f'(allowed {tolerance:g}); resample it onto the image, or correct the header')


def write_label(path: str | Path, label: np.ndarray, volume: Volume) -> None:
    """Write a label map (D, H, W) as NIfTI in the geometry of the file that `volume` came from."""
    array = np.flip(label, [axis for axis in range(3) if volume.flips[axis]])
    array = np.ascontiguousarray(array.transpose(np.argsort(volume.axes)).astype(np.uint8))
    write_nifti(path, array, volume.affine)


def write_nifti(path: str | Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an array (X, Y, Z) in its own dtype as .nii or .nii.gz: the same bytes for the same array."""
    data = nib.Nifti1Image(array, affine).to_bytes()
    write_atomic(path, gzip.compress(data, 6, mtime=0) if str(path).endswith('.gz') else data)
