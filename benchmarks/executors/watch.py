"""A grid while it runs: the state of each run, its loss, and the time left, from what the runs write."""

import glob
import json
import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from mmseg_plugins.commands import REPO

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..runs.records import read_record, read_records
from ..runs.run import name_part
from ..runs.search import searched_cell

WORK = Path('work_dirs/grids')  # where run_grid.py lets runs work, in a folder per grid
# a run counts as stopped after so many seconds without a sign, or as many of its own steps: it logs every 50,
# and reading data or evaluating takes its time
QUIET, QUIET_STEPS = 300.0, 150
STATES = {'running': 'bold', 'stopped': 'yellow', 'waiting': 'dim', 'done': 'green', 'failed': 'red'}


@dataclass(frozen=True)
class RunState:
    """A run as it stands: `step` of `steps`, its last logged `loss`, seconds per step; None: not known."""
    name: str
    state: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    pace: float | None = None

    @property
    def left(self) -> float | None:
        """Seconds of training left."""
        known = None not in (self.step, self.steps, self.pace)
        return (self.steps - self.step) * self.pace if known and self.state == 'running' else None


def take_snapshot(grid: Grid, folder: Path, root: Path, now: float) -> list[RunState]:
    """Every run of a grid, those of its search first.

    Args:
        folder: the grid's results, with records/ (and search/records/).
        root: holds the work folders of all grids. A result folder may be called otherwise than the grid that its
            runs worked for (`--out`, `--max-iters`), so runs are looked for in all of them.
        now: seconds since the epoch.
    """
    records = {name_part(Cell(**record['cell']), record['seed'], record.get('fold')): record
               for record in read_records(folder)[0]}
    states = _look_at_search(grid, folder, root, now) if grid.tune else []
    for name in [name_part(cell, *part) for cell in grid.cells() for part in grid.seeds_and_folds]:
        if record := records.get(name):
            states.append(_recorded(name, record))
        else:
            newest = max(_work_folders(name, root.glob('*/runs')), key=_last_sign, default=None)
            states.append(_look_at(name, newest, now) if newest else RunState(name, 'waiting'))
    return states


def _look_at_search(grid: Grid, folder: Path, root: Path, now: float) -> list[RunState]:
    """Runs of a cell's search have one name but for what they are known by: what is not found is waiting.

    What the committed search has is not run again, and comes last, as it may be of another config.
    """
    tried = math.prod(map(len, grid.tune.values())) * (grid.folds or 1)
    own, committed = ({path.stem: record for path in sorted((place / 'search' / 'records').glob('*.json'))
                       if (record := read_record(path))} for place in (folder, REPO / 'results' / grid.name))
    states = []
    limit = next(map(int, grid.given('--max-iters')), None)
    cells = [searched_cell(grid, cell, limit) for cell in grid.cells_to_run() if not cell.without_config]
    for cell in dict.fromkeys(cells):
        name = name_part(cell, grid.search_seed, None)
        begun = sorted(_work_folders(name, root.glob('*/search/runs')), key=_last_sign, reverse=True)
        found = [_recorded(run, own[run]) for run in own if _is_named(run, name)]
        found += [_look_at(path.name, path, now) for path in begun if path.name not in own | committed]
        found += [_recorded(run, committed[run]) for run in committed if run not in own and _is_named(run, name)]
        found += [RunState(name, 'waiting')] * tried
        states += [replace(state, name=f'search: {state.name}') for state in found[:tried]]
    return states


def _recorded(name: str, record: dict) -> RunState:
    curve = record.get('training', {})
    return RunState(name, record['state'], curve.get('steps'), curve.get('steps'), curve.get('last_loss'))


def _work_folders(name: str, folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders for path in folder.glob(f'{glob.escape(name)}-*')
            if _is_named(path.name, name)]


def _is_named(run: str, name: str) -> bool:
    """Behind a name is the identity alone: a fold is another run."""
    return run.rpartition('-')[0] == name


def _look_at(name: str, folder: Path, now: float) -> RunState:
    """A run without a record, by its work folder."""
    last = read_last_line(folder)
    quiet = max(QUIET, QUIET_STEPS * last.get('time', 0))
    return RunState(name, 'running' if now - _last_sign(folder) < quiet else 'stopped', last.get('step'),
                    _steps(folder) if last else None, last.get('loss'), last.get('time'))


def read_last_line(folder: Path) -> dict:
    """What the training in a work folder logged last of a step: its number, loss, seconds; empty before that."""
    logs = sorted(folder.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime)
    lines = reversed(logs[-1].read_text().splitlines()) if logs else ()
    rows = (json.loads(line) for line in lines if line.endswith('}'))
    return next((row for row in rows if 'loss' in row), {})


def _last_sign(folder: Path) -> float:
    """When a run last wrote a log line or a checkpoint."""
    logs = (path for pattern in ('*/vis_data/scalars.json', '*/*.log') for path in folder.glob(pattern))
    return max(path.stat().st_mtime for path in (folder, *logs))


def _steps(folder: Path) -> int | None:
    """By the config that mmengine wrote beside the run's logs; None while it is not whole."""
    found = [re.search(r'max_iters=(\d+)\W', path.read_text()) for path in folder.glob('*.py')]
    return int(found[0][1]) if found and found[0] else None


def show(states: list[RunState], title: str) -> Table:
    """The states as a table, running ones first, and a line of sums below."""
    counts = {state: sum(run.state == state for run in states) for state in STATES}
    ends = ('; nothing is running, so this watch ends' if not counts['running'] else
            f'; running ones end in {max(lefts) / 60:.1f} min'
            if (lefts := [run.left for run in states if run.left is not None]) else '')
    columns = [Column(name, justify='right') for name in ('step', 'loss', 'min left')]
    table = Table(Column('run', overflow='fold'), 'state', *columns,  # names differ at their ends
                  title=title, caption_justify='left',
                  caption=', '.join(f'{count} {state}' for state, count in counts.items() if count) + ends)
    for run in sorted(states, key=lambda run: list(STATES).index(run.state)):
        table.add_row(run.name, run.state, '' if run.step is None else f'{run.step}/{run.steps or "?"}',
                      '' if run.loss is None else f'{run.loss:.4f}',
                      '' if run.left is None else f'{run.left / 60:.1f}', style=STATES[run.state])
    return table


def watch(grid: Grid, folder: Path, root: Path = WORK, seconds: float = 5.0) -> None:
    """Show the grid until none of its runs is running; where there is no terminal, once.

    Waiting runs do not hold it up: the folder's grid.yaml may name more than were asked for. It looks twice
    before it ends, as a worker pauses between one run and the next.
    """
    console, idle = Console(), 0
    with Live(console=console) as live:
        while True:
            states = take_snapshot(grid, folder, root, time.time())
            live.update(show(states, grid.title))
            idle = 0 if any(run.state == 'running' for run in states) else idle + 1
            if idle == 2 or not console.is_terminal:
                return
            time.sleep(seconds)
