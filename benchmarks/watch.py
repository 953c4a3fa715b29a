"""A grid while it runs: the state of each run, its loss, and the time left, from what the runs write."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .cells import Grid
from .records import read_records

QUIET = 120.0  # seconds without a sign after which a run counts as stopped
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


def take_snapshot(grid: Grid, folder: Path, work: Path, now: float) -> list[RunState]:
    """Every run of a grid.

    Args:
        folder: the grid's results, with records/.
        work: where its runs work, `work_dirs/grids/<grid>`.
        now: seconds since the epoch.
    """
    records = {(str(_cell_name(record)), record['seed']): record for record in read_records(folder)[0]}
    states = []
    for cell in grid.cells():
        for seed in grid.seeds:
            name = f'{cell}-seed{seed}'
            record = records.get((str(cell), seed))
            if record:
                curve = record.get('training', {})
                states.append(RunState(name, record['state'], curve.get('steps'), curve.get('steps'),
                                       curve.get('last_loss')))
            else:
                states.append(_look_at(name, work, now))
    return states


def _cell_name(record: dict) -> str:
    return record['run'].rsplit('-seed', 1)[0]


def _look_at(name: str, work: Path, now: float) -> RunState:
    """A run without a record, by its newest work folder."""
    logs = sorted((work / 'runs').glob(f'{name}-*/*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime)
    folders = list((work / 'runs').glob(f'{name}-*'))
    if not folders:
        return RunState(name, 'waiting')
    seen = max(path.stat().st_mtime for path in (*folders, *logs))
    state = 'running' if now - seen < QUIET else 'stopped'
    lines = [json.loads(line) for line in logs[-1].read_text().splitlines() if line.endswith('}')] if logs else []
    trained = [line for line in lines if 'loss' in line]
    if not trained:
        return RunState(name, state)
    last = trained[-1]
    return RunState(name, state, last['step'], _steps(logs[-1].parents[2]), last['loss'], last.get('time'))


def _steps(folder: Path) -> int | None:
    """Of the config that mmengine wrote beside the run's logs."""
    for path in folder.glob('*.py'):
        return Config.fromfile(path, import_custom_modules=False).train_cfg.max_iters
    return None


def show(states: list[RunState], title: str) -> Table:
    """The states as a table, running ones first, and a line of sums below."""
    counts = {state: sum(run.state == state for run in states) for state in STATES}
    lefts = [run.left for run in states if run.left is not None]
    longest = f'; running ones end in {max(lefts) / 60:.1f} min' if lefts else ''
    table = Table(title=title, caption=', '.join(f'{count} {state}' for state, count in counts.items() if count)
                  + longest, caption_justify='left')
    for heading in ('run', 'state', 'step', 'loss', 'min left'):
        table.add_column(heading, justify='left' if heading in ('run', 'state') else 'right')
    for run in sorted(states, key=lambda run: list(STATES).index(run.state)):
        step = '' if run.step is None else f'{run.step}/{run.steps or "?"}'
        table.add_row(run.name, run.state, step, '' if run.loss is None else f'{run.loss:.4f}',
                      '' if run.left is None else f'{run.left / 60:.1f}', style=STATES[run.state])
    return table


def watch(grid: Grid, folder: Path, work: Path, seconds: float = 5.0) -> None:
    """Show the grid until none of its runs is running or waiting; where there is no terminal, once."""
    console = Console()

    def look() -> list[RunState]:
        return take_snapshot(grid, folder, work, time.time())

    states = look()
    if not console.is_terminal:
        console.print(show(states, grid.title))
        return
    with Live(show(states, grid.title), console=console) as live:
        while any(run.state in ('running', 'waiting') for run in states):
            time.sleep(seconds)
            states = look()
            live.update(show(states, grid.title))
