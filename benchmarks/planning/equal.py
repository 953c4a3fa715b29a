"""`equal: seconds` of a grid file: each cell gets as many steps as take the time of its dataset's first cell."""

from pathlib import Path

from mmseg_plugins.errors import UserError

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..runs.agenda import make_agenda, make_run
from .estimate import Device
from .work import list_kinds


def equal_steps(grid: Grid, weights_root: Path, device: Device, to_calibrate: str) -> dict[Cell, int]:
    """Steps of every cell that is a config; the first one's are those that it has anyway.

    Args:
        device: whose calibrations say how long a step takes.
        to_calibrate: the command that makes them.

    Raises:
        UserError: a kind of the grid's runs is not calibrated there.
    """
    runs = {cell: make_run(grid, cell, grid.seeds[0], weights_root, None)
            for cell in grid.cells_to_run() if not cell.without_config}
    agenda = make_agenda(grid, list(runs.values()), weights_root, [], retry_failed=False)
    estimates = {}
    for kind in (kind for kind in list_kinds(agenda, []) if kind.run):
        one = device.estimate(kind)
        if one is None or one.scaled:
            raise UserError(f'equal seconds of grid {grid.name}: {kind.what} is not calibrated on {device.name}; '
                            f'run on that machine: {to_calibrate}')
        estimates |= dict.fromkeys(kind.to_do, one)
    first, steps = {}, {}
    for cell, run in runs.items():
        seconds = first.setdefault(cell.dataset, estimates[run.name].kind.steps * estimates[run.name].step)
        steps[cell] = max(round(seconds / estimates[run.name].step), 1)
    return steps
