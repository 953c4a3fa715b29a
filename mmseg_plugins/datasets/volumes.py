"""One case: NIfTI files -> a verified, oriented volume, and label maps back to NIfTI."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import UserError
from .nifti import check_same_geometry, describe_doubts, read_affine, read_array, write_nifti


@dataclass
class Volume:
    """A 3D image as slices: `image` (D, C, H, W), `label` (D, H, W) uint8 or None, and geometry.

    Depth is the file's third axis, as the paper has it. `axes` and `flips` lead from the file's
    (x, y, z) to (D, H, W); `affine` is the file's own in mm, `header` the file's (the first channel's), so that
    label maps lie on the original exactly. `stored` are the dtypes in the files (image, label), `notes` what was
    accepted though unusual.
    """
    image: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    stored: tuple[str, str | None] = ('', None)
    notes: Sequence[str] = ()
    header: nib.Nifti1Header | None = None

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


def to_slices(array: np.ndarray, axes: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
    """A file's array (X, Y, Z, ...) as (D, H, W, ...), by what `slice_layout` gives."""
    array = array.transpose(*axes, *range(3, array.ndim))
    return np.flip(array, [axis for axis in range(3) if flips[axis]])


def from_slices(array: np.ndarray, axes: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
    """(D, H, W, ...) as in the file, (X, Y, Z, ...)."""
    array = np.flip(array, [axis for axis in range(3) if flips[axis]])
    return np.ascontiguousarray(array.transpose(*np.argsort(axes), *range(3, array.ndim)))


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
    first, header = read[0]
    affine = read_affine(header)
    for path, (array, other) in zip(images[1:], read[1:], strict=True):
        if array.shape != first.shape or array.ndim != 3:
            raise UserError(f'{path}: shape {array.shape}, the first channel has {first.shape}; export all '
                            'channels alike, in 3D')
        check_same_geometry(path, other, header, 'the first channel')
    image = np.stack([array for array, _ in read], 3) if len(images) > 1 else first
    if image.dtype == np.int32:  # of int16 and uint16 together; OpenCV cannot resize it
        image = image.astype(np.float32)
    image = image[..., None] if image.ndim == 3 else image
    if channels and image.shape[3] != channels:
        declared = '3D' if channels == 1 else f'4D with {channels} channels'
        raise UserError(f'{images[0]}: {"3D" if first.ndim == 3 else f"4D with {image.shape[3]} channels"}, '
                        f'{declared} is declared; correct the file, or the number of channels in dataset.json')
    axes, flips = slice_layout(affine)
    label, notes, dtype = None, describe_doubts(header), None
    if label_path is not None:
        label, label_header = read_array(label_path)
        dtype = str(label_header.get_data_dtype())
        if label.shape != image.shape[:3]:
            raise UserError(f'{label_path}: shape {label.shape}, its image has {image.shape[:3]}; '
                            'use the label that belongs to it')
        check_same_geometry(label_path, label_header, header, 'its image')
        if label.dtype.kind == 'f':
            raise UserError(f'{label_path}: label values are not integers; export it as a label map')
        for value in (int(label.min()), int(label.max())):
            if not 0 <= value < (classes or 256):
                raise UserError(f'{label_path}: label {value} outside 0..{(classes or 256) - 1}; correct the '
                                'label or the label list')
        notes += [f'label: {doubt}' for doubt in describe_doubts(label_header) if doubt not in notes]
        if label_header.get_data_dtype().kind == 'f':
            notes.append(f'label stored as {dtype}; all its values are integers, taken as such')
        label = np.ascontiguousarray(to_slices(label, axes, flips), dtype=np.uint8)
    image = np.ascontiguousarray(to_slices(image, axes, flips).transpose(0, 3, 1, 2))
    return Volume(image, label, affine, axes, flips, stored=(str(header.get_data_dtype()), dtype), notes=notes,
                  header=header)


def write_label(path: str | Path, label: np.ndarray, volume: Volume) -> None:
    """Write a label map (D, H, W) as NIfTI, uint8, in the geometry of the file that `volume` came from."""
    array = from_slices(label.astype(np.uint8), volume.axes, volume.flips)
    write_nifti(path, array, volume.affine if volume.header is None else volume.header)
