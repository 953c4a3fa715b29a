"""The picture of the idea: python docs/figures/idea.py draws idea.png beside it, with the methods themselves."""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.rendering.plotting import UNDATED, plt, project_style  # noqa: E402
from mmseg_plugins.inflation import inflate_kernel  # noqa: E402

SLICES = 5
METHODS = {'centering': 'starts as the 2D model\non the centre slice',
           'average': 'starts as the 2D model\non the mean slice'}


def kernel_2d(side: int = 16) -> torch.Tensor:
    """A patch kernel as ViTs learn them, (1, 3, side, side): an edge of one orientation."""
    y, x = np.mgrid[-1:1:side * 1j, -1:1:side * 1j]
    edge = np.exp(-2.5 * (x**2 + y**2)) * np.sin(4 * (x + 0.6 * y))
    return torch.from_numpy(edge / 3).float().expand(1, 3, side, side)


def main() -> None:
    flat = kernel_2d()
    reach = float(flat.sum(1).abs().max())
    with project_style():
        figure = plt.figure(figsize=(9, 3.1))
        grid = figure.add_gridspec(2, SLICES + 4, width_ratios=[1.5, 1, *[1] * SLICES, 0.1, 2.4], wspace=0.12)

        def show(axes, image, title=''):
            axes.imshow(image, cmap='RdBu_r', vmin=-reach, vmax=reach)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.set_title(title, fontsize=9)
            for side in axes.spines.values():
                side.set_visible(True)

        source = figure.add_subplot(grid[:, 0])
        show(source, flat.sum(1)[0])
        source.set_xlabel('kernel of the\n2D model, summed\nover colour')
        for row, (method, says) in enumerate(METHODS.items()):
            arrow = figure.add_subplot(grid[row, 1])
            arrow.axis('off')
            arrow.annotate('', (1, 0.5), (0.1, 0.5), xycoords='axes fraction',
                           arrowprops=dict(arrowstyle='-|>', lw=1.4))
            arrow.text(0.5, 0.62, method, ha='center', va='bottom', transform=arrow.transAxes)
            inflated = inflate_kernel(flat, SLICES, 1, method)[0, 0]
            for number in range(SLICES):
                offset = number - SLICES // 2
                show(figure.add_subplot(grid[row, 2 + number]), inflated[number],
                     ('centre slice' if not offset else f'slice {offset:+d}') if row == 0 else '')
            words = figure.add_subplot(grid[row, -1])
            words.axis('off')
            words.text(0, 0.5, says, va='center', transform=words.transAxes)
        figure.savefig(Path(__file__).with_name('idea.png'), bbox_inches='tight', metadata=UNDATED['png'])
    print(Path(__file__).with_name('idea.png'))


if __name__ == '__main__':
    main()
