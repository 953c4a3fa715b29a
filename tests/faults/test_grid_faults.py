"""The runner of grids, its workers, and what is left when they die."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import children
import pytest
import yaml
from children import finish
from conftest import wait_for, write_msd
from test_training import logged, newest, same_weights

from benchmarks.grid.reader import load_grid
from benchmarks.runs.agenda import make_run
from benchmarks.runs.records import read_records
from mmseg_plugins.work_dir import WEIGHTS

STEPS = 120


@pytest.fixture
def place(tmp_path) -> Path:
    write_msd(tmp_path / 'data' / 'Task04_Hippocampus', cases=7)
    spec = dict(dataset='hippocampus', configs=dict(beit=str(children.CONFIG)), source='none',
                axes=dict(slices=[3]), seeds=[1],
                options={'experiment.batch': 2, 'experiment.checkpoint_interval': 5, 'experiment.steps': STEPS})
    (tmp_path / 'tiny.yaml').write_text(yaml.safe_dump(spec))
    return tmp_path


def child_of(pid: int) -> int | None:
    """The process that a process has started last, other than Python's resource tracker."""
    found = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    lines = {int(child): Path(f'/proc/{child}/cmdline').read_bytes() for child in found}  # a zombie's is empty
    workers = [child for child, line in lines.items() if line and b'resource_tracker' not in line]
    return workers[-1] if workers else None


def steps_of(work: Path) -> int:
    return max((row['step'] for row in logged(work)), default=0)


def alive(pid: int) -> bool:
    return Path(f'/proc/{pid}').exists() and ') Z ' not in Path(f'/proc/{pid}/stat').read_text()


def test_runner_and_workers_may_die_at_any_moment(place, monkeypatch):
    # a worker per core, so that each has one thread, as the run alone: sums depend on it
    arguments = ['--grid', 'tiny.yaml', '--workers', os.cpu_count(), '--out', 'out']
    runs = place / 'work_dirs/grids/tiny/runs'

    def work() -> Path:
        return next(runs.iterdir(), runs / 'none') if runs.exists() else runs

    runner = children.start(children.grid, place, arguments)
    # the worker: the runner starts the run again, from its checkpoint
    wait_for(lambda: newest(work()) >= 5, 60, 'the first checkpoint')
    worker = child_of(runner.pid)
    os.kill(worker, signal.SIGKILL)
    left = newest(work())
    wait_for(lambda: newest(work()) > left and runner.is_alive(), 60, 'a checkpoint of the next worker')
    assert 'again  hippocampus-' in (place / 'log').read_text()
    # the runner: its worker keeps the step at hand and ends
    worker = child_of(runner.pid)
    runner.kill()
    runner.join()
    wait_for(lambda: not alive(worker), 20, 'the end of the worker')
    assert newest(work()) < STEPS and not list((place / 'out').glob('records/*'))
    left = newest(work())
    # the next call, told to end: so does it, at once, and its worker too
    runner = children.start(children.grid, place, arguments)
    wait_for(lambda: newest(work()) > left, 60, 'a checkpoint of the next runner')
    worker = child_of(runner.pid)
    os.kill(runner.pid, signal.SIGTERM)
    sent = time.monotonic()
    finish(runner, 128 + signal.SIGTERM)
    assert time.monotonic() - sent < 15 and not alive(worker)
    assert (place / 'log').read_text().splitlines()[-1].startswith('stopped by SIGTERM; ')
    # the last call finishes; all of it equals a run that nothing happened to
    finish(children.start(children.grid, place, arguments))
    [record] = read_records(place / 'out')[0]
    assert record['state'] == 'done' and record['cost']['resumed_from'] > left
    monkeypatch.chdir(place)
    grid = load_grid('tiny.yaml')
    run = make_run(grid, grid.cells()[0], 1, place / 'weights', None)
    run = replace(run, options=run.options | {'experiment.data_root': str(place / 'data/prepared/hippocampus')})
    finish(children.start(children.execute, run, place / 'alone'))
    [alone] = read_records(place / 'alone' / 'out')[0]
    assert alone['scores'] == record['scores'] and alone['training'] == record['training']
    assert same_weights(place / 'alone' / 'work', work(), WEIGHTS)


def test_a_command_ends_with_its_runner_and_is_not_begun_twice(place):
    command = 'echo $$ >> {work}/pids; sleep 300; true {out}'
    spec = dict(dataset='hippocampus', configs=dict(slow=dict(command=command)), axes=dict(encoder=['slow']),
                seeds=[1])
    (place / 'slow.yaml').write_text(yaml.safe_dump(spec))
    arguments, pids = ['--grid', 'slow.yaml', '--workers', '1', '--out', 'out'], []

    def begun(count: int) -> bool:
        pids[:] = [int(line) for path in place.glob('work_dirs/grids/slow/runs/*/command/pids')
                   for line in path.read_text().split()]
        return len(pids) == count

    runner = children.start(children.grid, place, arguments, fork=True)
    wait_for(lambda: begun(1), 60, 'the command')
    os.kill(runner.pid, signal.SIGTERM)
    finish(runner, 128 + signal.SIGTERM)
    assert not alive(pids[0])
    # a worker that is killed takes nothing with it: the next one waits for the command, and leaves it alone
    runner = children.start(children.grid, place, arguments, fork=True)
    wait_for(lambda: begun(2), 60, 'the command')
    os.kill(child_of(runner.pid), signal.SIGKILL)
    wait_for(lambda: 'again  hippocampus-slow' in (place / 'log').read_text(), 20, 'the next worker')
    os.killpg(pids[1], signal.SIGTERM)
    wait_for(lambda: begun(3), 60, 'the command again')
    os.kill(runner.pid, signal.SIGTERM)
    finish(runner, 128 + signal.SIGTERM)
    assert not any(map(alive, pids))
