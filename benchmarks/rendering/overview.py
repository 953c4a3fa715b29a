"""What grids that belong together found, side by side: the first screen of the results.

A grid file says by `overview: <what its data is>` that it has a place there. Shown are the rows of its main table,
and the registered contrasts between them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd

from ..grid.axes import Cell
from ..grid.grid import Grid
from .contrasts import Judged, judge_page
from .frame import Measured
from .plotting import COLOURS, project_style, styled
from .statistics import TOO_FEW, Estimate, estimate
from .tables import main_table

TITLE = 'Overview'
CAPTION = ('Rows: DSC case in percent, over the reported labels. Below them: the contrasts that the grids '
           'registered, in points of DSC case, paired by case. With 95 % intervals (Student\'s t for new seeds '
           'and new cases; below three seeds for new cases alone). Beyond noise, and filled in the figure: p is '
           'below 0.05 after Holm\'s correction over all contrasts that the grid registered.')


class Part(NamedTuple):
    """A grid of the overview: its page's folder, its data, its rows, and what came of its registered contrasts."""
    folder: str
    data: str
    rows: dict[str, Cell]
    effects: dict[str, Judged]
    measured: Measured

    def estimate(self, row: str) -> Estimate | None:
        """DSC case of a row; None where it has too few cases or was not run."""
        return estimate(self.measured.per_patient(self.rows[row])) if row in self.rows else None


def find_parts(grids: Sequence[tuple[Grid, Measured]]) -> list[Part]:
    """Of the grids that have a place in the overview, those with figures; each is in a folder of its name."""
    parts = []
    for grid, measured in grids:
        table = main_table(measured, grid) if grid.overview and len(grid.datasets) == 1 else None
        if table:
            rows = {row: cell for row, cell in table.rows.items() if measured.done(cell)}
            effects = {str(each.contrast): each for each in judge_page(measured, grid)
                       if each.contrast.registered and {*each.contrast.cells} <= {*rows.values()}}
            parts.append(Part(grid.name, grid.overview, rows, effects, measured))
    named = [part.data for part in parts]
    return [part._replace(data=f'{part.data}, {part.folder}') if named.count(part.data) > 1 else part
            for part in parts]


def overview_table(parts: Sequence[Part]) -> pd.DataFrame:
    """A line for each row and for each contrast, a column for each grid's data."""
    return pd.DataFrame([{'DSC case': name, **{part.data: describe(part, name) for part in parts}}
                         for kind, describe in (('rows', _figure), ('effects', _difference))
                         for name in _names(parts, kind)])


def draw_overview(parts: Sequence[Part]):
    """A column of two panels for each grid: DSC of its rows above, the contrasts between them below."""
    rows, effects = _names(parts, 'rows'), _names(parts, 'effects')
    with project_style():
        size = 1.6 + 2.6 * len(parts), 1.5 + 0.3 * len(rows + effects)
        figure, panels = plt.subplots(2, len(parts), figsize=size, sharey='row', squeeze=False,
                                      height_ratios=(len(rows), max(len(effects), 1)))
        for part, above, below in zip(parts, *panels, strict=True):
            for y, row in enumerate(rows):
                if row in part.rows:
                    style = dict(styled(y + 3), ms=6)
                    found = part.estimate(row)
                    middle = found.value if found else part.measured.value(part.rows[row], 'dsc').mean
                    above.plot(middle, y, ls='', **style)
                    _interval(above, found, y, style['color'])
            for y, effect in enumerate(effects):
                if effect in part.effects and (found := part.effects[effect].estimate):
                    filled = COLOURS[3] if part.effects[effect].beyond_noise else 'white'
                    _interval(below, found, y, COLOURS[3])
                    below.plot(found.value, y, 'D', color=COLOURS[3], mfc=filled, ms=6)
            below.axvline(0, color='#333333', lw=0.8)
            units = part.measured.per_patient(next(iter(part.rows.values()))).columns
            above.set_title(f'{part.data}\n{len(units)} {units.name}s', fontsize=9)
            above.set(ylim=(len(rows) - 0.5, -0.5), xlabel='DSC case (%)')
            below.set(ylim=(max(len(effects), 1) - 0.5, -0.5), xlabel='difference (points)')
        for panel, names in zip(panels[:, 0], (rows, effects), strict=True):
            panel.set_yticks(range(len(names)), names)
        figure.tight_layout()
    return figure


def _names(parts: Sequence[Part], kind: str) -> list[str]:
    """Of all parts, in the order of the one that has most."""
    named = sorted((getattr(part, kind) for part in parts), key=len, reverse=True)
    return list(dict.fromkeys(name for names in named for name in names))


def _figure(part: Part, row: str) -> str:
    if row not in part.rows:
        return '—'
    found = part.estimate(row)
    return (f'{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]' if found else
            f'{part.measured.value(part.rows[row], "dsc").mean:.2f} ({TOO_FEW})')


def _difference(part: Part, effect: str) -> str:
    if effect not in part.effects:
        return '—'
    judged = part.effects[effect]
    found = judged.estimate
    verdict = 'beyond noise' if judged.beyond_noise else 'not beyond noise'
    return f'{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}], {verdict}' if found else TOO_FEW


def _interval(axes, found: Estimate | None, y: float, colour: str) -> None:
    if found:
        axes.hlines(y, found.low, found.high, color=colour, lw=1.2)
