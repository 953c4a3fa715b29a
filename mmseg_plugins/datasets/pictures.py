"""Pictures to look at: slices of a volume with outlined labels, and a contact sheet of a dataset's cases."""

import io
from pathlib import Path

import cv2
import numpy as np

from ..files import write_atomic
from .intensity import channel_statistics, intensity_ranges
from .volumes import Volume

# Okabe and Ito's, the darker blue late, as over grey both look alike; then paler ones: BCV's 13 organs all differ
COLOURS = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#D55E00', '#CC79A7', '#0072B2', '#8A2BE2', '#8DD3C7',
           '#FB8072', '#B3DE69', '#BC80BD', '#FCCDE5', '#A6761D')


def draw_overlay(path: Path, volume: Volume, label: np.ndarray, index: dict, slices: int = 5) -> None:
    """Draw evenly spaced labelled slices: prediction outlines, and the reference below where there is one.

    Args:
        path: PNG to write.
        volume: image, and the reference in `volume.label` if known.
        label: prediction (D, H, W).
        index: the prepared dataset's (label names, intensity rule).
        slices: how many.
    """
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    rows = {'prediction': label} | ({} if volume.label is None else {'reference': volume.label})
    shown = np.flatnonzero(np.any([array.any((1, 2)) for array in rows.values()], axis=0))
    shown = shown if len(shown) else np.arange(len(label))
    # from within: the first and the last labelled slice hold a few voxels at most
    places = np.linspace(0, len(shown) - 1, min(slices, len(shown)) + 2)[1:-1]
    chosen = shown[places.round().astype(int)]
    low, high = intensity_ranges(index, 'sound', channel_statistics(volume.image[:, :1]))[0]
    figure, panels = plt.subplots(len(rows), len(chosen), squeeze=False,
                                  figsize=(2.2 * len(chosen), 2.4 * len(rows)))
    aspect = volume.spacing[1] / volume.spacing[2]
    present = [i for i in range(1, len(index['labels'])) if any((a == i).any() for a in rows.values())]
    for line, (name, array) in zip(panels, rows.items(), strict=True):
        for axes, z in zip(line, chosen, strict=True):
            axes.imshow(volume.image[z, 0], cmap='gray', vmin=low, vmax=high, aspect=aspect)
            for organ in present:
                if (array[z] == organ).any():
                    axes.contour(array[z] == organ, [0.5], colors=[COLOURS[organ % len(COLOURS)]],
                                 linewidths=1.3)
            axes.set_title(f'{name}, slice {z}', fontsize=7)
            axes.axis('off')
    handles = [plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], label=index['labels'][i]) for i in present]
    figure.legend(handles=handles, loc='lower center', ncols=min(len(handles), 7) or 1, frameon=False,
                  fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, bbox_inches='tight', metadata={'Software': None})
    plt.close(figure)
    write_atomic(path, picture.getvalue())


def draw_contact_sheet(path: Path, pictures: dict[str, tuple[np.ndarray, np.ndarray] | None], width: int = 2400
                       ) -> None:
    """Draw one small picture per case, label outlined; a case without one (a bad file) is an empty red frame.

    Args:
        path: PNG to write.
        pictures: case -> image (H, W) uint8 and label (H, W), or None.
        width: of the sheet in pixels.
    """
    columns = int(np.clip(np.ceil(np.sqrt(len(pictures) * 1.3)), 4, 16))
    side, caption, gap = width // columns - 6, 18, 6
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (side + caption + gap), columns * (side + gap), 3), 255, np.uint8)
    for number, (case, picture) in enumerate(pictures.items()):
        top, left = number // columns * (side + caption + gap), number % columns * (side + gap)
        tile = sheet[top + caption:top + caption + side, left:left + side]
        if picture is None:
            tile[:] = 235
            cv2.rectangle(tile, (1, 1), (side - 2, side - 2), (60, 60, 200), 3)
        else:
            tile[:] = _tile(*picture, side)
        letters = max(int(side / 7.2), 4)  # that fit above a picture
        name = case if len(case) <= letters else '..' + case[-letters + 2:]
        cv2.putText(sheet, name, (left + 1, top + caption - 5),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.38, (40, 40, 40), 1, cv2.LINE_AA)
    write_atomic(path, cv2.imencode('.png', sheet)[1].tobytes())


def _tile(image: np.ndarray, label: np.ndarray, side: int) -> np.ndarray:
    """A square of `side` pixels, BGR, on black."""
    scale = side / max(image.shape)
    size = tuple(max(round(n * scale), 1) for n in image.shape[::-1])
    large = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR),
                         cv2.COLOR_GRAY2BGR)
    for organ in np.unique(label[label > 0]):
        mask = cv2.resize((label == organ).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outline, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        red, green, blue = bytes.fromhex(COLOURS[organ % len(COLOURS)][1:])
        cv2.drawContours(large, outline, -1, (blue, green, red), 1, cv2.LINE_AA)
    tile = np.zeros((side, side, 3), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    tile[top:top + size[1], left:left + size[0]] = large
    return tile
