"""The paper's Figure 2: consecutive slices of one case, and what each row predicts of them."""

import zipfile
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

from mmseg_plugins.datasets.pictures import COLOURS

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..runs.records import predictions_path
from .folds import split_merged
from .frame import Measured


def draw_predictions(rows: dict[str, Cell], measured: Measured, grid: Grid, results: Path):
    """Image, label and what each row predicts, slice by slice; None where nothing is kept of them.

    Args:
        results: holds predictions/, what `choose_shown` chose of the dataset and runs predicted of it.
    """
    kept = _read_arrays(predictions_path(results, grid.dataset), 'case', 'image', 'label', 'slices', 'spacing')
    predicted = {label: found for label, cell in rows.items() if (found := _first(measured.done(cell), results))}
    if kept is None or not predicted:
        return None
    case, image, label = str(kept['case']), kept['image'], kept['label']
    lines = {'image': None, 'reference': label}
    for name, (record, prediction) in predicted.items():
        lines[f'{name}\n{_case_score(measured, record["run"], case)}'] = prediction
    names = measured.scores(grid.dataset)['labels']
    aspect = float(kept['spacing'][1] / kept['spacing'][2])
    height, width = image.shape[1] * aspect, image.shape[2]
    side = 1.35
    figure, panels = plt.subplots(len(lines), len(image), squeeze=False,
                                  figsize=(side * len(image), side * height / width * len(lines)))
    figure.subplots_adjust(wspace=0.03, hspace=0.03)
    for panel_line, (name, maps) in zip(panels, lines.items(), strict=True):
        for axes, slice_image, place, z in zip(panel_line, image, range(len(image)), kept['slices'], strict=True):
            axes.imshow(paint(slice_image, None if maps is None else maps[place]), aspect=aspect,
                        interpolation='nearest')
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if maps is None:
                axes.set_title(f'slice {z}', fontsize=8, pad=3)
        panel_line[0].set_ylabel(name, rotation=0, ha='right', va='center', fontsize=8)
    present = [i for i in range(1, len(names)) if any((maps == i).any() for maps in lines.values()
                                                      if maps is not None)]
    handles = [plt.Line2D([], [], ls='', marker='s', ms=7, mec='#333333', mew=0.4, label=names[i],
                          color=COLOURS[i % len(COLOURS)]) for i in present]
    figure.legend(handles=handles, loc='upper center', bbox_to_anchor=(0.5, 0.1), ncols=4,
                  title=f'case {case}', title_fontsize=8, handletextpad=0.2)
    return figure


def paint(image: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """An image (H, W) uint8 as RGB (H, W, 3), labelled pixels in their colour and the others dimmed."""
    grey = np.repeat(image[..., None], 3, -1) / 255
    if label is None:
        return grey
    colours = np.array([to_rgb(colour) for colour in COLOURS])[label % len(COLOURS)]
    return np.where((label > 0)[..., None], 0.35 * grey + 0.65 * colours, 0.7 * grey)


def _first(runs: list[dict], results: Path) -> tuple[dict, np.ndarray] | None:
    """The record and the prediction of the lowest seed that has one."""
    for record in sorted(runs, key=lambda record: record['seed']):
        for fold in split_merged(record):  # one of them evaluated the case that is shown
            if kept := _read_arrays(predictions_path(results, fold['run']), 'prediction'):
                return record, kept['prediction']
    return None


def _read_arrays(path: Path, *names: str) -> dict[str, np.ndarray] | None:
    """Arrays of an .npz; None where the file is absent, torn or lacks one of them."""
    try:
        with np.load(path) as kept:
            return {name: kept[name] for name in names}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None


def _case_score(measured: Measured, run: str, case: str) -> str:
    frame = measured.frame
    score = frame.loc[(frame['run'] == run) & (frame['case'] == case) & frame['headline'], 'dsc'].mean()
    return '' if np.isnan(score) else f'DSC {score:.1f}'
