"""The one style of all plots: colour-blind safe, the same bytes for the same data, texts that keep apart."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.patheffects import withStroke  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

STYLE = {'font.family': 'DejaVu Sans', 'font.size': 9, 'axes.labelsize': 9, 'axes.titlesize': 9,
         'legend.fontsize': 8, 'axes.spines.top': False, 'axes.spines.right': False,
         'axes.grid': True, 'grid.color': '#dddddd', 'axes.axisbelow': True, 'legend.frameon': False,
         'text.parse_math': False, 'figure.dpi': 150, 'savefig.dpi': 150, 'pdf.fonttype': 42}
# Okabe and Ito's; with a marker each, so that they differ in grey as well
COLOURS = ('#999999', '#56B4E9', '#E69F00', '#0072B2', '#009E73', '#CC79A7', '#D55E00', '#000000')
MARKERS = 'osD^vPX*'
PLACES = ((6, 0, 'left', 'center'), (-6, 0, 'right', 'center'), (0, 6, 'center', 'bottom'),
          (0, -6, 'center', 'top'), (5, 5, 'left', 'bottom'), (-5, 5, 'right', 'bottom'), (5, -5, 'left', 'top'),
          (-5, -5, 'right', 'top'))  # of a text about its point, best first
BELOW = dict(loc='upper center', bbox_to_anchor=(0.5, 0))  # a figure's legend
BESIDE = dict(loc='upper left', bbox_to_anchor=(1, 1))  # a panel's
UNDATED = dict(png={'Software': None}, pdf={'CreationDate': None, 'Creator': None, 'Producer': None})


@contextmanager
def project_style() -> Iterator[None]:
    """Figures that are drawn within look alike, whatever a user's own matplotlibrc says."""
    with plt.rc_context():
        plt.rcdefaults()
        plt.rcParams.update(STYLE)
        yield


def styled(number: int) -> dict:
    """Colour and marker of a figure's rows, by number."""
    again = number // len(COLOURS)  # a colour comes back with another marker
    return dict(color=COLOURS[number % len(COLOURS)], marker=MARKERS[(number + again) % len(MARKERS)])


def save(figure, path: Path) -> Path:
    """Write PNG and PDF without anything that changes from day to day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in UNDATED.items():
        figure.savefig(path.with_suffix(f'.{suffix}'), metadata=metadata, bbox_inches='tight')
    plt.close(figure)
    return path


def put_title(figure, title: str) -> None:
    """Write a title above all that a figure holds, from its left end."""
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    figure.text(box.x0 / width, (box.y1 + 0.1) / height, title, va='bottom', fontsize=10, fontweight='bold')


def place_texts(axes, points: Sequence[tuple[float, float]], texts: Sequence[str],
                dots: Sequence[tuple[float, float]] = ()) -> None:
    """Write each text beside its point, where it covers least of other points and texts.

    Args:
        points: of the texts, in the data's coordinates.
        dots: further points to keep free.
    """
    axes.figure.canvas.draw()
    renderer, inside = axes.figure.canvas.get_renderer(), axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in axes.transData.transform([*points, *dots])]
    for point, text in zip(points, texts, strict=True):
        tried = []
        for dx, dy, across, up in PLACES:
            note = axes.annotate(text, point, (dx, dy), textcoords='offset points', ha=across, va=up, fontsize=7,
                                 path_effects=[withStroke(linewidth=2, foreground='white')])  # lines run below
            box = note.get_window_extent(renderer)
            outside = box.x0 < inside.x0 or box.x1 > inside.x1
            tried.append((sum(map(box.overlaps, taken)) + 3 * outside, note, box))
        best = min(tried, key=lambda each: each[0])
        for other in tried:
            if other is not best:
                other[1].remove()
        taken.append(best[2])
