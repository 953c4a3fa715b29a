"""Records as files: checked on reading, sealed against edits, tidy as a frame, watched while they come."""

import json
import os

import numpy as np
import pytest
from conftest import REPO

from benchmarks import results
from benchmarks.cells import load_grid
from benchmarks.records import Run, read_record, read_records, record_path, write_record
from benchmarks.watch import show, take_snapshot
from mmseg_plugins.errors import UserError


@pytest.fixture
def grid():
    return load_grid('phantom', slices=[1, 5], seeds=[1, 2])


def finish(folder, cell, seed, **changes):
    """Write the record of a finished run with two organs, the second absent from the second case."""
    run = Run(cell, seed, 'configs/a.py', {}, 'abcd1234')
    scores = dict(labels=['background', 'liver', 'aorta'], headline=[1, 2], cases=['x', 'y'],
                  pooled=[99.0, 80.0, 60.0], case=[99.0, 79.0, 60.0],
                  per_case=[[99.0, 78.0, 60.0], [99.0, 80.0, None]],
                  hd95_per_case=[[None, 2.0, 3.0], [None, 4.0, None]], nsd_per_case=[[None, 90.0, 91.0]] * 2)
    body = dict(state='done', scores=scores, training=dict(steps=150, last_loss=0.5), cost={}, code={},
                packages={}, hardware={})
    return write_record(folder, run, body | changes)


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize('spoil, reason', [
    (lambda path: path.write_text(path.read_text()[:-9]), 'not whole'),
    (lambda path: path.write_bytes(b'\xff\xfe'), 'decode'), (lambda path: path.write_text('[]'), 'not a record'),
    (lambda path: edit(path, lambda record: record['scores']['pooled'].__setitem__(1, 80.0001)), 'edited'),
    (lambda path: edit(path, lambda record: record.update(version=3)), 'of version 3, this code knows 1 to 2'),
    (lambda path: edit(path, lambda record: record.pop('checksum')), 'edited'),
    (lambda path: edit(path, lambda record: record.update(version=1, state='odd')), "state is 'odd'"),
    (lambda path: edit(path, lambda record: (record.update(version=1), record['scores']['per_case'].pop())),
     'not of 2 cases x 3 labels'),
    (lambda path: edit(path, lambda record: (record.update(version=1), record['cell'].update(depth=3))), 'depth'),
])
def test_what_is_no_record_is_named_and_left_out(grid, tmp_path, spoil, reason):
    good, bad = (finish(tmp_path, grid.cells()[0], seed) for seed in (1, 2))
    spoil(bad)
    records, left_out = read_records(tmp_path)
    assert [record['seed'] for record in records] == [1]
    assert list(left_out) == [bad.name] and reason in left_out[bad.name]
    assert read_record(bad) is None and read_record(good)['seed'] == 1


def test_version_1_is_brought_to_this_one(grid, tmp_path):
    path = finish(tmp_path, grid.cells()[0], 1)
    whole = read_record(path)
    edit(path, lambda record: (record.pop('checksum'), record.update(version=1)))
    assert read_record(path) == whole


def test_every_committed_record_counts():
    for folder in (REPO / 'results').glob('*/records'):
        records, left_out = read_records(folder.parent)
        assert records and not left_out


def test_all_records_are_one_tidy_frame(grid, tmp_path):
    finish(tmp_path, grid.cells()[0], 1)
    finish(tmp_path, grid.cells()[1], 2)
    finish(tmp_path, grid.cells()[1], 1, state='failed', reason='torn')
    frame = results.load(tmp_path)
    assert len(frame) == 2 * 3 * 2 and frame.groupby(['slices', 'seed']).size().to_dict() == {(1, 1): 6, (5, 2): 6}
    liver = frame[(frame.label == 'liver') & (frame.slices == 5)]
    assert liver.dsc.tolist() == [78, 80] and liver.hd95.tolist() == [2, 4]
    assert liver.dsc_pooled.tolist() == [80, 80]
    assert np.isnan(frame[(frame.label == 'aorta') & (frame.case == 'y')].dsc).all() and frame.headline.sum() == 8
    with pytest.raises(UserError, match='no records'):
        results.load(tmp_path / 'elsewhere')


def test_a_running_grid_is_watched(grid, tmp_path):
    first, second = grid.cells()
    folder, work, now = tmp_path / 'out', tmp_path / 'work', 1e9
    finish(folder, first, 1)
    finish(folder, first, 2, state='failed', reason='torn')
    run = work / 'runs' / f'{second}-seed1-abcd1234'
    log = run / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 1.5, "time": 0.5, "step": 50}\n{"loss": 1.25, "time": 0.5, "step": 100}\n{"DSC po')
    (run / 'config.py').write_text('train_cfg = dict(max_iters=150)\n')
    for path in (run, log):
        os.utime(path, (now - 10, now - 10))
    states = {state.name.rsplit('-', 1)[1] + f' {second}' * (str(second) in state.name): state
              for state in take_snapshot(grid, folder, work, now)}
    assert [state.state for state in states.values()] == ['done', 'failed', 'running', 'waiting']
    running = states[f'seed1 {second}']
    assert (running.step, running.steps, running.loss, running.left) == (100, 150, 1.25, 25.0)
    assert take_snapshot(grid, folder, work, now + 1000)[2].state == 'stopped'
    assert '1 running, 1 waiting, 1 done, 1 failed; running ones end in 0.4 min' in show(
        list(states.values()), 'a grid').caption


def test_a_records_name_is_its_runs(grid, tmp_path):
    path = finish(tmp_path, grid.cells()[0], 1)
    assert path == record_path(tmp_path, Run(grid.cells()[0], 1, 'configs/a.py', {}, 'abcd1234'))
