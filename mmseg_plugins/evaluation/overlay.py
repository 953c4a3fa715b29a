"""A picture to look at: slices of a volume with the outlines of its labels."""

from pathlib import Path

import numpy as np

from ..datasets.volumes import Volume

# Okabe and Ito's, then paler ones: BCV's 13 organs all differ
COLOURS = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7', '#FFFFFF', '#8DD3C7',
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
    low, high = ((0, np.percentile(volume.image[:, 0], 99.5)) if index['intensity'] == 'max'
                 else index['intensity'])
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches='tight', metadata={'Software': None})
    plt.close(figure)
