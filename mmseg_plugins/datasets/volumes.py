"""One case: NIfTI files -> a verified, oriented volume, and label maps back to NIfTI."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import UserError
from ..files import write_atomic

AFFINE_TOLERANCE = 1e-3  # mm: headers that differ by less are rounding of the same geometry


@dataclass
class Volume:
    """A 3D image as slices: `image` (D, C, H, W), `label` (D, H, W) uint8 or None, and geometry.

    Depth is the file's third axis, as the paper has it. `axes` and `flips` lead from the file's
    (x, y, z) to (D, H, W); `affine` is the file's own, so that label maps lie on the original exactly.
    """
    image: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

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


def read_array(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file in its own dtype where that is exact.

    Returns:
        Array (X, Y, Z) or (X, Y, Z, C) of uint8, int16, uint16 or float32, and the 4x4 affine.

    Raises:
        UserError: missing, truncated, not NIfTI, not 3D or 4D, or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path}: file not found; fetch the case again or remove it from the list')
    try:
        file = nib.load(path)
        array = np.asanyarray(file.dataobj)
    except (OSError, EOFError, zlib.error, nib.filebasedimages.ImageFileError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f'{path}: not a readable NIfTI file ({reason}); fetch it again') from error
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise UserError(f'{path}: shape {array.shape} is neither 3D nor 4D (x, y, z, channel); '
                        'export it as one volume')
    if array.dtype.kind not in 'biuf':
        raise UserError(f'{path}: voxels of type {array.dtype} are not numbers; '
                        'export it as a scalar image')
    if not np.isfinite(array).all():
        raise UserError(f'{path}: holds NaN or infinite voxels; export it again')
    return smallest_dtype(array), np.asarray(file.affine, float)


def smallest_dtype(array: np.ndarray) -> np.ndarray:
    """The same values as uint8, int16 or uint16 where they are integers that fit, else float32."""
    low, high = array.min(), array.max()
    for dtype in (np.uint8, np.int16, np.uint16):
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            narrow = array.astype(dtype)
            if array.dtype.kind in 'biu' or np.array_equal(narrow, array):
                return narrow
    return array.astype(np.float32)


def read_volume(image_path: str | Path, label_path: str | Path | None = None,
                channels: int | None = None, classes: int | None = None) -> Volume:
    """Read and verify one case.

    Args:
        image_path: 3D image, or 4D with channels last.
        label_path: integer label map of the same shape and geometry, or None.
        channels: the number of channels the dataset declares; None accepts any.
        classes: K with background; a label >= K is an error.

    Raises:
        UserError: one line that names the file, the fault and the remedy.
    """
    image, affine = read_array(image_path)
    image = image[..., None] if image.ndim == 3 else image
    if channels and image.shape[3] != channels:
        raise UserError(f'{image_path}: {image.shape[3]} channels, the dataset declares {channels}; '
                        'correct the file or the dataset\'s `modality`')
    axes, flips = slice_layout(affine)

    def to_slices(array):
        array = array.transpose(*axes, *range(3, array.ndim))
        return np.flip(array, [axis for axis in range(3) if flips[axis]])

    label = None
    if label_path is not None:
        label, label_affine = read_array(label_path)
        if label.shape != image.shape[:3]:
            raise UserError(f'{label_path}: shape {label.shape}, its image has {image.shape[:3]}; '
                            'use the label that belongs to it')
        if not np.allclose(affine, label_affine, atol=AFFINE_TOLERANCE):
            raise UserError(f'{label_path}: affine differs from its image\'s by up to '
                            f'{np.abs(affine - label_affine).max():.3g} mm; resample the label onto it')
        if label.dtype.kind == 'f':
            raise UserError(f'{label_path}: label values are not integers; export it as a label map')
        if label.min() < 0 or label.max() >= (classes or 256):
            raise UserError(f'{label_path}: label {int(label.max() if label.max() > 0 else label.min())}'
                            f' outside 0..{(classes or 256) - 1}; correct the label or the label list')
        label = np.ascontiguousarray(to_slices(label), dtype=np.uint8)
    return Volume(np.ascontiguousarray(to_slices(image).transpose(0, 3, 1, 2)), label, affine, axes,
                  flips)


def write_label(path: str | Path, label: np.ndarray, volume: Volume) -> None:
    """Write a label map (D, H, W) as NIfTI in the geometry of the file that `volume` came from."""
    array = np.flip(label, [axis for axis in range(3) if volume.flips[axis]])
    array = np.ascontiguousarray(array.transpose(np.argsort(volume.axes)).astype(np.uint8))
    write_nifti(path, array, volume.affine)


def write_nifti(path: str | Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an array (X, Y, Z) in its own dtype as .nii or .nii.gz: the same bytes for the same array."""
    data = nib.Nifti1Image(array, affine).to_bytes()
    write_atomic(path, gzip.compress(data, 6, mtime=0) if str(path).endswith('.gz') else data)
