"""The sources: one declarative table of published 2D and video checkpoints, and of embedded ones.

A source of one's own is one entry here, or one in a grid file. Files stand below the weights root under
the names their authors gave them.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


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
        needs: name of the embedded source that has to be made before.
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


_BEIT = ('github.com/microsoft/unilm, beit', 'MIT', 'Bao et al., ICLR 2022')
_OURS = ('tools/pretrain.py', 'Apache-2.0', 'this project')

SOURCES: dict[str, Source] = {
    'beit': Source('beit', 'beit_base_patch16_224_pt22k_ft22k.pth', 'SSL+SL', 'NI (IN22K)', *_BEIT),
    'beit_ssl': Source('beit', 'beit_base_patch16_224_pt22k.pth', 'SSL', 'NI (IN22K)', *_BEIT),
    'dino': Source('dino', 'dino_vitbase16_pretrain.pth', 'SSL', 'NI (IN1K)',
                   'https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth',
                   'Apache-2.0', 'Caron et al., ICCV 2021'),
    'swin': Source('swin', 'swin_base_patch4_window7_224_22k.pth', 'SL', 'NI (IN22K)',
                   'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
                   'swin_base_patch4_window7_224_22k.pth', 'MIT', 'Liu et al., ICCV 2021'),
    'videoswin': Source('videoswin', 'swin_base_patch244_window877_kinetics600_22k.pth', 'SL', 'NV (K600)',
                        'github.com/SwinTransformer/Video-Swin-Transformer', 'Apache-2.0',
                        'Liu et al., CVPR 2022'),
    'ct_dino': Source('dino', 'ct_dino_vitbase16.pth', 'SSL', 'MI (CT slices)',
                      'never released; tools/pretrain.py configs/dino_vitbase16_ct.py', 'of the CT data',
                      "Zhang et al., ML4H 2022 (DINO's recipe)"),
    'layout': Source('beit', 'mini_beit_layout.pth', 'SL', 'procedural images', *_OURS,
                     made_by='configs/mini_beit_layout.py'),
    'dino_phantom': Source('beit', 'mini_beit_dino_phantom.pth', 'SSL', 'phantom CT slices', *_OURS,
                           made_by='configs/mini_beit_dino_phantom.py'),
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


@cache
def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
