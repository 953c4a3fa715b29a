"""Loading windows side by side: python benchmarks/speed/loader.py [--image FILE --label FILE] [--size N]

Every way gives windows of one CT, augmented as the paper does it (Table 6): zoom 0.5 to 2, crop or pad, flips,
rotation, intensity shift, at the CT's own size. Batches of 16 are held, as a loader holds them. Ours leaves the
scaling of intensities to the training device; one row adds it on the CPU.
"""

import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed import common  # noqa: E402
from mmseg_plugins.datasets import WindowDataset, read_index, window_indices  # noqa: E402
from mmseg_plugins.datasets.intensity import CT_RANGE  # noqa: E402
from mmseg_plugins.datasets.layouts import describe_folder  # noqa: E402
from mmseg_plugins.datasets.prepare import prepare_dataset  # noqa: E402
from mmseg_plugins.datasets.volumes import Volume, read_volume, write_nifti  # noqa: E402
from mmseg_plugins.errors import run_main  # noqa: E402
from mmseg_plugins.files import write_json  # noqa: E402
from mmseg_plugins.models.preprocessor import WindowPreProcessor  # noqa: E402

KEYS, BATCH = ('image', 'label'), 16
PAPER = 'the paper\'s: a .nii.gz per window, MONAI transforms'
SLICES, PERSISTENT = 'a .nii.gz per slice, MONAI transforms', 'MONAI PersistentDataset of the windows'
OURS, MAPPED = 'ours, compressed', 'ours, memory-mapped'


def monai_transforms(size: tuple[int, int], slices: int = 5) -> tuple[list, list, list]:
    """The paper's order as MONAI transforms: loading, resizing, and what is random."""
    from monai import transforms as T

    roi, modes = (*size, slices), ('area', 'nearest')
    load = [T.LoadImaged(KEYS, reader='NibabelReader'), T.EnsureChannelFirstd(KEYS)]
    resize = [T.Resized(KEYS, roi, mode=modes)]
    augment = [T.RandZoomd(KEYS, prob=1, min_zoom=0.5, max_zoom=2, mode=modes, keep_size=False),
               T.RandSpatialCropd(KEYS, roi, random_size=False),
               T.ScaleIntensityRanged('image', *CT_RANGE, -1, 1, clip=True),
               *(T.RandFlipd(KEYS, 0.1, axis) for axis in range(3)), T.RandRotate90d(KEYS, 0.1, 3),
               T.RandShiftIntensityd('image', 0.1, prob=0.5), T.SpatialPadd(KEYS, roi)]
    return load, resize, augment


def write_files(volume: Volume, folder: Path, indices: list[list[int]]) -> list[dict[str, str]]:
    """A .nii.gz of image and label for each list of slices."""
    items = []
    for number, chosen in enumerate(indices):
        items.append({key: str(folder / f'{key}{number}.nii.gz') for key in KEYS})
        for key, array in zip(KEYS, (volume.image[chosen, 0], volume.label[chosen]), strict=True):
            write_nifti(items[-1][key], np.ascontiguousarray(array.transpose(2, 1, 0)), np.eye(4))
    return items


def write_dataset(image: Path, label: Path, labels: int, raw: Path) -> Path:
    """The case alone as a dataset in the Decathlon's layout."""
    for kind, path in (('imagesTr', image), ('labelsTr', label)):
        (raw / kind).mkdir(parents=True)
        shutil.copy(path, raw / kind / 'case.nii.gz')
    write_json(raw / 'dataset.json', dict(
        modality={'0': 'CT'}, labels={str(k): f'label {k}' if k else 'background' for k in range(labels)},
        training=[dict(image='imagesTr/case.nii.gz', label='labelsTr/case.nii.gz')]))
    return raw


def store(raw: Path, folder: Path, mapped: bool) -> Callable[[int], WindowDataset]:
    """Our store of the case, as tools/prepare_data.py makes it; returns what makes its dataset for S slices."""
    name, info = describe_folder(raw, 'msd')
    prepare_dataset(name, raw, folder, info=info, workers=1, mapped=mapped)
    index = read_index(folder)
    size = index['cases']['case']['shape'][2:]
    [split] = [split for split, cases in index['split'].items() if cases]
    return lambda slices: WindowDataset(str(folder), split, slices, pipeline=[
        dict(type='LoadWindow'), dict(type='RandomZoomCrop', size=size, zoom=(0.5, 2.0), enlarge='area'),
        dict(type='RandomWindowFlip', prob=0.1), dict(type='RandomRotate90', prob=0.1),
        dict(type='RandomIntensityShift', offset=0.2, prob=0.5), dict(type='PackWindow')])


def draw(get: Callable[[int], object], windows: int, depth: int) -> Callable[[], float]:
    """A round's seconds per window: random ones, as many as this way can take; ours all get the same."""
    rounds = itertools.count()

    def work():
        np.random.seed(next(rounds))
        held = []
        for z in np.random.randint(0, depth, windows).tolist():
            held = [*held, get(z)] if len(held) < BATCH else [get(z)]
    return lambda: common.time_second(work) / windows


def main() -> int:
    args = common.parse_case_args('Time the loading of windows.', repeats=9)
    from mmengine.registry import init_default_scope
    from monai.data import PersistentDataset
    from monai.transforms import Compose

    init_default_scope('mmseg')
    with tempfile.TemporaryDirectory() as scratch:
        prepared = {}  # way -> MB on disk and CPU-seconds, as text
        image, label, volume = common.make_case(args, Path(scratch))
        raw = write_dataset(image, label, int(volume.label.max()) + 1, Path(scratch) / 'raw')
        case_bytes = image.stat().st_size + label.stat().st_size
        depth, _, *size = volume.image.shape
        load, resize, augment = monai_transforms(size)
        indices = [window_indices(z, depth, 5, 1) for z in range(depth)]

        def prepare(name: str, make: Callable[[Path], object]):
            """Make what a way reads, in a folder of its own; note time and bytes."""
            place = Path(scratch) / str(len(prepared))
            place.mkdir()
            start = time.process_time()
            made = make(place)
            seconds = time.process_time() - start
            disk = sum(path.stat().st_size for path in place.rglob('*') if path.is_file())
            prepared[name] = [f'{disk / 1e6:.1f}', f'{seconds:.1f}']
            common.CONSOLE.print(f'prepared {name:<54} {seconds:6.1f} s {disk / 1e6:8.1f} MB')
            return made

        def cache(place: Path):
            fill = PersistentDataset(windows, Compose([*load, *resize]), cache_dir=place)
            for z in range(depth):
                fill[z]
            return PersistentDataset(windows, Compose([*load, *resize, *augment]), cache_dir=place)

        windows = prepare(PAPER, lambda place: write_files(read_volume(image, label), place, indices))
        planes = prepare(SLICES, lambda place: write_files(read_volume(image, label), place,
                                                           [[z] for z in range(depth)]))
        persistent = prepare(PERSISTENT, cache)
        compressed = prepare(OURS, lambda place: store(raw, place, mapped=False))
        mapped = prepare(MAPPED, lambda place: store(raw, place, mapped=True))
        whole, rest, random = Compose([*load, *resize, *augment]), Compose([*resize, *augment]), Compose(augment)
        loaded, five, scale = Compose([*load, *resize])(windows[depth // 2]), compressed(5), WindowPreProcessor()

        def from_slices(z: int) -> dict:
            files = {key: [nib.load(planes[i][key]) for i in indices[z]] for key in KEYS}
            return rest({key: torch.from_numpy(np.stack([file.get_fdata(dtype=np.float32)[None, ..., 0]
                                                         for file in files[key]], -1)) for key in KEYS})

        def scaled(z: int) -> dict:
            sample = five[z]
            return scale(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))

        ways = {PAPER: (lambda z: whole(windows[z]), 8),
                'its random part alone, on a window in memory': (lambda z: random(loaded), 8),
                SLICES: (from_slices, 8), PERSISTENT: (persistent.__getitem__, 8),
                OURS: (five.__getitem__, 48), f'{OURS}, scaled on the CPU': (scaled, 48),
                MAPPED: (mapped(5).__getitem__, 48),
                f'{OURS}, 21 slices': (compressed(21).__getitem__, 48),
                f'{MAPPED}, 21 slices': (mapped(21).__getitem__, 48),
                'a copy of the window in memory (the floor)': (lambda z: volume.image[indices[z]], 200)}
        times = common.take_turns({name: draw(*way, depth) for name, way in ways.items()}, args.repeats).median()

    rows = [[name, f'{1 / times[name]:.1f}', f'{times[PAPER] / times[name]:.1f}', *prepared.get(name, ['', ''])]
            for name in ways]
    ratios = ' and '.join(f'{times[f"{name}, 21 slices"] / times[name]:.2f}' for name in (OURS, MAPPED))
    title = f'Loading windows: 5 slices of {size[1]} x {size[0]} x {depth}, {volume.image.dtype}'
    common.write_page(__file__, args, f'# {title}\n\n' + common.table(
        ['way', 'windows per CPU-s', 'x the paper\'s', 'MB on disk', 'preparation, CPU-s'], rows)
        + f'\nThe case itself is {case_bytes / 1e6:.1f} MB as .nii.gz, label included. A window of 21 slices '
          f'costs {ratios} times one of 5 (compressed, memory-mapped).\n',
        ['numpy', 'opencv-python', 'blosc2', 'torch', 'monai', 'nibabel'])
    return 0


if __name__ == '__main__':
    run_main(main)
