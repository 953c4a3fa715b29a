"""Photographs in class folders as a 2D source task: torchvision's ImageFolder, or a .tar of one, read as it is.

The class of a photograph is the folder that it lies in, at any depth below. Each is scaled and cut to a square of
one size. As in layout_images.py, a pile of images is a prepared case of that many slices; the label of every pixel
is its image's class, from 1 on, so that augmentation may bring background in.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError, some
from ..parallel import map_items
from ..untrusted import check_name
from .intensity import PROTOCOLS
from .statistics import describe_volume
from .store import MOST_CLASSES, preparing, read_meta, write_case, write_index
from .volumes import Volume

CHANNELS = 3
READER = 2  # raised when files are read otherwise than before
SIZE = 64  # pixels along each side, where nothing else is asked for
PILE = 1000  # photographs that are read as one piece of work, and stored as two cases
HELD_OUT = 10  # one photograph of so many is for evaluation
FORMATS = ('JPEG', 'PNG', 'BMP', 'PPM', 'TIFF', 'WEBP')
ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')  # torchvision's
LARGEST = 2**28  # bytes of a file that is read
PARTS = ('train', 'val', 'test', 'training', 'validation', 'testing')  # folders that are no classes
ARCHIVE = 'caltech101_64.tar'  # that the embedded sources are made of, below the data root
ORIGIN = (f'{ARCHIVE}, Caltech-101 (Fei-Fei, Fergus, Perona 2004, CC-BY 4.0, doi:10.22002/D1.20086) in '
          f'class folders, shorter side {SIZE}, centre crop')


@dataclass(frozen=True)
class Photograph:
    """An image file: its path below the archive, its class's number from 1 on, and where its bytes are."""
    path: str
    label: int
    start: int  # in the .tar; 0 of a file of its own
    size: int
    time: float


def prepare_photographs(archive: Path, folder: Path, size: int = SIZE, workers: int | None = None,
                        progress: Callable[[int, int, str], None] = lambda *_: None) -> list[str]:
    """Store a folder of class folders, or a .tar of one, as a prepared dataset; piles that did not change stay.

    Which photographs are held out for evaluation (`val`, a tenth) is told by a hash of each one's bytes, so that
    the same photograph twice is on one side.

    Args:
        archive: the folder, or the .tar; nothing of it is unpacked.
        folder: the prepared dataset's.
        size: height and width in pixels.
        workers: processes that read.
        progress: called with (piles done, piles, pile).

    Returns:
        A line for each file that could not be read and was left out.

    Raises:
        UserError: no such archive, no classes in it, or the folder holds another dataset.
    """
    classes, photographs = list_photographs(archive)
    labels = ['background', *classes]
    piles = {f'{number:04d}': photographs[start:start + PILE]
             for number, start in enumerate(range(0, len(photographs), PILE))}

    def prepare(item: tuple[str, list[Photograph]]) -> tuple[dict[str, dict], list[str]]:
        name, pile = item
        listing = [[each.path, each.label, each.start, each.size, each.time] for each in pile]
        made_from = dict(size=size, classes=len(classes), held_out=HELD_OUT, reader=READER,
                         listing=hashlib.sha256(repr(listing).encode()).hexdigest())
        metas = {part: read_meta(folder, f'{part}-{name}') for part in ('train', 'val')}
        known = metas['train'] or metas['val']
        if known and known['made_from'] == made_from and all(metas[part] for part in known['parts']):
            return {f'{part}-{name}': metas[part] for part in known['parts']}, known['faults']
        images, faults = _read_pile(archive, pile, size)
        parts = {part: [each for each in images if each[0] == part] for part in ('train', 'val')}
        facts = dict(made_from=made_from, parts=[part for part, its in parts.items() if its], faults=faults)
        stored = {}
        for part in facts['parts']:
            numbers = np.array([label for _, label, _ in parts[part]], np.min_scalar_type(len(classes)))
            label = np.broadcast_to(numbers[:, None, None], (len(numbers), size, size)).copy()
            image = np.stack([image for *_, image in parts[part]])
            volume = Volume(image, label, np.eye(4), (2, 1, 0), (False,) * 3)
            stored[f'{part}-{name}'] = write_case(
                folder, f'{part}-{name}', volume, describe_volume(volume, len(labels)) | facts)
        return stored, faults

    with preparing(folder, 'photographs', archive.name):
        done = map_items(prepare, {name: (name, pile) for name, pile in piles.items()}, workers, progress)
        cases = {case: meta for stored, _ in done.values() for case, meta in sorted(stored.items())}
        split = {part: [case for case in cases if case.startswith(part)] for part in ('train', 'val')}
        if not all(split.values()):
            raise UserError(f'{archive}: {len(photographs)} photographs are too few to hold some out, or none of '
                            'them could be read; give more')
        content = repr([(case, meta['sha256']) for case, meta in cases.items()])
        write_index(folder, dict(
            dataset='photographs', folder=archive.name, labels=labels, headline=list(range(1, len(labels))),
            channels=CHANNELS, intensity=dict.fromkeys(PROTOCOLS, (0, 255)), input_size=size, evaluate='val',
            nominal_spacing=True, split=split, split_hash=hashlib.sha256(content.encode()).hexdigest()[:12],
            cases=cases))
    return [fault for _, faults in done.values() for fault in faults]


def list_photographs(archive: Path) -> tuple[list[str], list[Photograph]]:
    """The classes, sorted, and the image files of a folder or .tar, sorted by path.

    Hidden files are passed over, and of a .tar also links and whatever else is no plain file. The folders that
    everything lies in are not counted.

    Raises:
        UserError: it is neither, or not of class folders.
    """
    found = list(_list_tar(archive) if archive.is_file() else _list_folder(archive))
    found = sorted(each for each in found if each[0].lower().endswith(ENDINGS) and not any(
        part.startswith('.') or part == '__MACOSX' for part in PurePosixPath(each[0]).parts))
    places = [PurePosixPath(path).parts for path, *_ in found]
    depth = 0
    while len({place[depth] for place in places}) == 1 and min(map(len, places)) > depth + 1:
        depth += 1
    loose = [path for (path, *_), place in zip(found, places, strict=True) if len(place) < depth + 2]
    classes = sorted({place[depth] for place in places})
    layout = 'give a folder that has a folder of images for each class, or a .tar of one'
    if loose or len(classes) < 2:
        what = f'{some(loose)} in no class folder' if loose else f'images of {len(classes)} classes'
        raise UserError(f'{archive}: {what}; {layout}')
    if {name.lower() for name in classes} <= set(PARTS):
        raise UserError(f'{archive}: its folders {some(classes)} are parts, not classes; name one of them')
    if len(classes) >= MOST_CLASSES:
        raise UserError(f'{archive}: {len(classes)} classes; less than {MOST_CLASSES} are supported')
    for name in classes:
        check_name(name, str(archive))
    number = {name: i for i, name in enumerate(classes, 1)}
    return classes, [Photograph(path, number[place[depth]], *rest)
                     for (path, *rest), place in zip(found, places, strict=True)]


def _list_folder(root: Path) -> Iterable[tuple[str, int, int, float]]:
    if not root.is_dir():
        raise UserError(f'{root}: not found; get {ORIGIN}, or name another folder of class folders, or a .tar of '
                        'one, with --raw')
    for folder, _, names in os.walk(root, followlinks=True):  # classes are often links to those of a larger set
        for path in (Path(folder) / name for name in names):
            if path.is_file():
                stat = path.stat()
                yield path.relative_to(root).as_posix(), 0, stat.st_size, stat.st_mtime


def _list_tar(path: Path) -> Iterable[tuple[str, int, int, float]]:
    try:
        with tarfile.open(path, 'r:') as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    yield member.name, member.offset_data, member.size, member.mtime
                tar.members.clear()  # of a million photographs each would be kept
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise UserError(f'{path}: no whole .tar ({error}); fetch it again, and decompress it first where it is '
                        'compressed') from error


def _read_pile(archive: Path, pile: list[Photograph], size: int
               ) -> tuple[list[tuple[str, int, np.ndarray]], list[str]]:
    """Part, class and image (3, size, size) uint8 of each that can be read; a line for each other."""
    images, faults, tar = [], [], archive.open('rb') if archive.is_file() else None
    for each in pile:
        try:
            if not 0 < each.size <= LARGEST:
                raise ValueError(f'{each.size} bytes')
            if tar:
                tar.seek(each.start)
                content = tar.read(each.size)
            else:
                content = (archive / each.path).read_bytes()
            image = read_photograph(content, size)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            reason = ' '.join(str(error).split())[:100]
            faults.append(f'{archive}: {each.path[-100:]!r} is no image that can be read ({reason}); left out')
            continue
        held_out = int(hashlib.sha256(content).hexdigest()[:8], 16) % HELD_OUT == 0
        images.append(('val' if held_out else 'train', each.label, image))
    if tar:
        tar.close()
    return images, faults


def read_photograph(content: bytes, size: int) -> np.ndarray:
    """An image file's bytes as (3, size, size) uint8: upright, in RGB, scaled and cut to its centre.

    Raises:
        OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError: as PIL finds it.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.mode[0] in 'IF':  # PIL would clip them at 255
            raise ValueError(f'pixels of mode {image.mode}; convert it to 8 bits a channel')
        image.draft('RGB', (size, size))  # a large JPEG is decoded at half, a quarter or an eighth of its size
        upright = ImageOps.exif_transpose(image).convert('RGB')
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
