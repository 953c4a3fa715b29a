"""Records as files: checked on reading, sealed against edits, tidy as a frame, watched while they come."""

import functools
import io
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from operator import getitem

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO, documentation
from made_records import failed, record, write
from rich.console import Console

from benchmarks import results
from benchmarks.executors import watch as watching
from benchmarks.executors.watch import RunState, show, take_snapshot, watch
from benchmarks.grid.axes import AXES, Cell
from benchmarks.grid.reader import load_grid
from benchmarks.rendering.frame import Measured
from benchmarks.rendering.prediction_figure import draw_predictions
from benchmarks.runs.execute import choose_shown
from benchmarks.runs.records import (
    predictions_path,
    read_record,
    read_records,
    read_summaries,
    record_path,
    write_arrays,
    write_summary,
)
from benchmarks.runs.run import Run
from mmseg_plugins.datasets import WindowDataset
from mmseg_plugins.errors import UserError
from mmseg_plugins.faults import TrainingMemory


@pytest.fixture
def grid():
    return replace(load_grid('phantom', slices=[1, 5], seeds=[1, 2]), tune={})


def finish(folder, cell, seed, digest='abcd1234'):
    """Write the record of a finished run with two organs, the second absent from the second case."""
    return write(folder, record(
        cell, seed, [99.0, 80.0, 60.0], ['background', 'liver', 'aorta'],
        per_case=[[99.0, 78.0, 60.0], [99.0, 80.0, None]], digest=digest, scores=dict(cases=['x', 'y']),
        figures=dict(hd95=[[None, 2.0, 3.0], [None, 4.0, None]], nsd=[[None, 90.0, 91.0]] * 2)))


def fail(folder, cell, seed):
    return write(folder, failed(cell, seed))


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def age(path, change=lambda record: None):
    """Make it a record of version 1, which nothing sealed and whose figures had keys of their own; change it."""
    def older(record):
        record.pop('checksum')
        record['version'] = 1
        if figures := record.get('scores', {}).pop('figures', None):
            record['scores'] |= dict(pooled=figures['dsc_pooled'], case=figures['dsc_pooled'],
                                     per_case=figures['dsc'], hd95_per_case=figures['hd95'],
                                     nsd_per_case=figures['nsd'])
        change(record)
    edit(path, older)


def put(*keys_and_value):
    """A change of a record: what it holds under these keys is replaced by the value."""
    *keys, last, value = keys_and_value
    return lambda record: functools.reduce(getitem, keys, record).__setitem__(last, value)


def drop(*keys):
    *keys, last = keys
    return lambda record: functools.reduce(getitem, keys, record).pop(last)


def leaves_out(folder, good, bad, reason):
    records, left_out = read_records(folder)
    assert [record['run'] for record in records] == [good.stem]
    assert list(left_out) == [bad.name] and reason in left_out[bad.name]
    assert read_record(bad) is None and read_record(good)['run'] == good.stem


@pytest.mark.parametrize('spoil, reason', [
    (lambda path: path.write_text(path.read_text()[:-9]), 'not whole'),
    (lambda path: path.write_bytes(b'\xff\xfe'), 'decode'), (lambda path: path.write_text('[]'), 'not a record'),
    (lambda path: edit(path, put('scores', 'figures', 'dsc_pooled', 1, 80.0001)), 'edited'),
    (lambda path: edit(path, put('version', 4)), 'of version 4, this code knows 1 to 3'),
    (lambda path: edit(path, put('version', True)), 'of version True'),
    (lambda path: edit(path, drop('checksum')), 'edited'),
    (lambda path: path.write_text(path.read_text().replace('"seed"', '"seed": 7, "seed"')), 'stands twice'),
    (lambda path: edit(path, put('version', 1)), 'edited'),
    (lambda path: path.write_text(path.read_text().replace('80.0', 'NaN')), 'holds NaN'),
    (lambda path: path.write_text(path.read_text().replace('80.0', '-Infinity')), 'holds -Infinity'),
    (lambda path: (age(path), path.write_text(path.read_text().replace('80.0', '1e999'))), 'cannot be Infinity'),
    (lambda path: path.rename(path.with_name('copy.json')), 'named otherwise than its run phantom-'),
])
def test_what_is_no_record_is_named_and_left_out(grid, tmp_path, spoil, reason):
    good, bad = (finish(tmp_path, grid.cells()[0], seed) for seed in (1, 2))
    spoil(bad)
    [bad] = {*(tmp_path / 'records').iterdir()} - {good}
    leaves_out(tmp_path, good, bad, reason)


@pytest.mark.parametrize('change, reason', [
    (put('state', 'odd'), "state is 'odd'"),
    (drop('scores', 'per_case', 1), 'scores.figures.dsc is not of 2 cases x 3 labels'),
    (drop('scores', 'hd95_per_case', 1, 0), 'not of 2 cases x 3 labels'),
    (drop('scores', 'pooled', 0), 'scores.figures.dsc_pooled is not of 3 labels'),
    (drop('scores', 'per_case'), "scores.figures has no 'dsc'"),
    (put('scores', 'headline', [1, 3]), 'headline names labels that are not there'),
    (put('cell', 'depth', 3), "an unknown axis, 'depth'"),
    (drop('cell', 'dataset'), "cell has no 'dataset'"),
    (put('cell', 'slices', [5]), 'its cell: slices is [5]; it must be a whole number'),
    (drop('cost'), "the record has no 'cost'"), (drop('cost', 'encoder_flops'), "cost has no 'encoder_flops'"),
    (put('cost', 'seconds', '9'), 'cost.seconds cannot be "9"'), (put('cost', 'flops', True), 'cost.flops cannot'),
    (put('cost', []), 'cost cannot be []'), (put('training', 'curve', [1.0, None]), 'training.curve[1] cannot'),
    (drop('training', 'last_loss'), "training has no 'last_loss'"),
    (drop('hardware', 'gpu'), "hardware has no 'gpu'"),
    (put('hardware', 'cpu', None), 'hardware.cpu cannot be null'),
    (put('scores', 'pooled', 1, 'high'), 'scores.figures.dsc_pooled[1] cannot'),
    (put('scores', 'nsd_per_case', 'high'), 'scores.figures.nsd cannot'),
    (put('scores', 'per_case', 1, 2, {}), 'scores.figures.dsc[1][2] cannot'),
    (put('scores', 'hd95_per_case', 0, 1, 'far'), 'scores.figures.hd95[0][1] cannot'),
    (put('scores', 'nsd_per_case', 0, 3.0), 'scores.figures.nsd[0] cannot'),
    (put('data', dict(dataset='phantom')), "data has no 'split_hash'"),
])
def test_a_record_of_another_make_is_left_out(grid, tmp_path, change, reason):
    good, bad = (finish(tmp_path, grid.cells()[0], seed) for seed in (1, 2))
    age(bad)
    assert read_record(bad)['seed'] == 2  # so what follows is the change's doing
    edit(bad, change)
    leaves_out(tmp_path, good, bad, reason)


@pytest.mark.parametrize('axis', AXES)
def test_a_record_from_before_an_axis_has_its_neutral_value(grid, tmp_path, axis):
    cell = Cell('phantom', **{name: line.neutral for name, line in AXES.items()})
    path = finish(tmp_path, cell, 1)
    age(path, drop('cell', axis))
    [record] = read_records(tmp_path)[0]
    frame = results.load(tmp_path)
    assert axis not in record['cell'] and Cell(**record['cell']) == cell
    assert {value if value == value else None for value in frame[axis]} == {AXES[axis].neutral}


def test_a_failed_run_needs_its_reason_alone(grid, tmp_path):
    path = fail(tmp_path, grid.cells()[0], 1)
    assert read_record(path)['state'] == 'failed' and 'cost' not in read_record(path)
    age(path, drop('reason'))
    assert read_records(tmp_path) == ([], {path.name: "the record has no 'reason'"})


def test_a_seed_counts_once(grid, tmp_path):
    first, second = (finish(tmp_path, grid.cells()[0], 1, digest) for digest in ('aaaa1111', 'bbbb2222'))
    finish(tmp_path, grid.cells()[1], 1)
    records, left_out = read_records(tmp_path)
    assert [record['identity'] for record in records] == ['aaaa1111', 'abcd1234']
    assert left_out == {second.name: 'a second record of this cell and seed; keep one'}
    first.unlink()
    assert len(read_records(tmp_path)[0]) == 2 and not read_records(tmp_path)[1]


def test_version_1_is_brought_to_this_one(grid, tmp_path):
    path = finish(tmp_path, grid.cells()[0], 1)
    whole = read_record(path)
    age(path)
    assert json.loads(path.read_text()) != whole and read_record(path) == whole
    edit(path, drop('scores', 'hd95_per_case'))  # as the first records were
    assert read_record(path)['scores']['figures'].keys() == whole['scores']['figures'].keys() - {'hd95'}


@pytest.mark.parametrize('spoil', [lambda summary: summary.pop('variation'), lambda summary: summary.clear(),
                                   lambda summary: summary.update(size='large'),
                                   lambda summary: summary.update(size=[float('nan')])])
def test_a_summary_that_lacks_what_tables_read_is_named(tmp_path, spoil):
    [path] = (REPO / 'results/phantom/datasets').glob('*.json')
    summary = json.loads(path.read_text())
    write_summary(tmp_path, 'whole', summary)
    spoilt = json.loads(path.read_text())
    spoil(spoilt)
    (tmp_path / 'datasets/spoilt.json').write_text(json.dumps(spoilt))
    (tmp_path / 'datasets/torn.json').write_text(path.read_text()[:-9])
    found, left_out = read_summaries(tmp_path)
    assert found == dict(whole=summary) and left_out.keys() == {'spoilt.json', 'torn.json'}


def test_every_committed_record_counts():
    folders = list((REPO / 'results').glob('*/records'))
    assert folders
    for folder in folders:
        records, left_out = read_records(folder.parent)
        assert records and not left_out


def test_all_records_are_one_tidy_frame(grid, tmp_path):
    finish(tmp_path, grid.cells()[0], 1)
    finish(tmp_path, grid.cells()[1], 2)
    fail(tmp_path, grid.cells()[1], 1)
    frame = results.load(tmp_path)
    assert len(frame) == 2 * 3 * 2 and frame.groupby(['slices', 'seed']).size().to_dict() == {(1, 1): 6, (5, 2): 6}
    liver = frame[(frame.label == 'liver') & (frame.slices == 5)]
    assert liver.dsc.tolist() == [78, 80] and liver.hd95.tolist() == [2, 4]
    assert liver.dsc_pooled.tolist() == [80, 80]
    assert np.isnan(frame[(frame.label == 'aorta') & (frame.case == 'y')].dsc).all() and frame.headline.sum() == 8
    with pytest.raises(UserError, match='no records'):
        results.load(tmp_path / 'elsewhere')


def test_failed_runs_alone_are_an_empty_frame(grid, tmp_path):
    fail(tmp_path / 'failed', grid.cells()[0], 1)
    finish(tmp_path / 'done', grid.cells()[0], 1)
    nothing, done = (results.load(tmp_path / name) for name in ('failed', 'done'))
    assert nothing.empty and not done.empty and list(nothing) == list(done)
    assert {*AXES, 'run', 'seed', 'dsc', 'hd95', 'nsd', 'dsc_pooled'} <= {*nothing}
    assert nothing.groupby('label').dsc.mean().empty


LOG = '{"loss": 1.5, "time": 0.5, "step": 50}\n{"loss": 1.25, "time": %s, "step": 100}\n{"DSC po'


def begin(work, cell, seed, when, log=LOG % 0.5, digest='abcd1234'):
    """The work folder of a run that gave its last sign then; returns it."""
    run = work / 'runs' / f'{cell}-seed{seed}-{digest}'
    path = run / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    (run / 'config.py').write_text('train_cfg = dict(max_iters=150)\n')
    if log:
        path.write_text(log)
        os.utime(path, (when, when))
    os.utime(run, (when, when))
    return run


def test_a_running_grid_is_watched(grid, tmp_path):
    first, second = grid.cells()
    folder, root, now = tmp_path / 'out', tmp_path / 'grids', 1e9
    finish(folder, first, 1)
    fail(folder, first, 2)
    begin(root / 'phantom', second, 1, now - 10)
    begin(root / 'phantom', second, 12, now - 10)  # not of the grid, and no sign of seed 1
    states = take_snapshot(grid, folder, root, now)
    assert [state.state for state in states] == ['done', 'failed', 'running', 'waiting']
    running = states[2]
    assert running.name == f'{second}-seed1'
    assert (running.step, running.steps, running.loss, running.left) == (100, 150, 1.25, 25.0)
    table, narrow = show(states, 'a grid'), Console(width=50, file=io.StringIO())
    assert '1 running, 1 waiting, 1 done, 1 failed; running ones end in 0.4 min' in table.caption
    narrow.print(table)
    assert '…' not in narrow.file.getvalue()


@pytest.mark.parametrize('steps', [None, 60])
def test_the_search_of_a_grid_is_watched(tmp_path, steps):
    """It comes first: of three settings two are recorded, one has begun; the other cell's wait."""
    (tmp_path / 'mine.yaml').write_text(f'search_steps: {steps}\n' * bool(steps) +
        'dataset: phantom\nconfigs: {beit: configs/beit_centering_phantom.py}\nsource: layout\nseeds: [3, 4]\n'
        'tune: {lr: [1e-3, 2e-3, 3e-3]}\ntables: {mine: {rows: {one: {slices: 1}, five: {}}, against: one}}\n')
    grid, folder, now = load_grid(str(tmp_path / 'mine.yaml')), tmp_path / 'out', 1e9
    first, _ = grid.cells()
    searched = replace(first, steps=steps)
    finish(folder / 'search', searched, 3)
    finish(folder / 'search', searched, 3, digest='dcba4321')
    begin(tmp_path / 'grids' / 'mine' / 'search', searched, 3, now - 10, digest='0123cdef')
    begin(tmp_path / 'grids' / 'mine', first, 4, now - 10)
    states = take_snapshot(grid, folder, tmp_path / 'grids', now)
    assert [state.state for state in states] == ['done', 'done', 'running'] + ['waiting'] * 3 + [
        'waiting', 'running', 'waiting', 'waiting']
    assert [state.name.startswith('search: ') for state in states] == [True] * 6 + [False] * 4


@pytest.mark.parametrize('pace, quiet', [(0.5, 300), (4.0, 600)])
def test_a_slow_run_is_not_taken_for_a_stopped_one(grid, tmp_path, pace, quiet):
    begin(tmp_path / 'phantom', grid.cells()[0], 1, 1e9, LOG % pace)

    def state(after):
        return take_snapshot(grid, tmp_path / 'out', tmp_path, 1e9 + after)[0].state

    assert (state(quiet - 5), state(quiet + 5)) == ('running', 'stopped')


def test_a_run_that_has_not_logged_yet(grid, tmp_path):
    run = begin(tmp_path / 'phantom', grid.cells()[0], 1, 1e9, log='')
    state = take_snapshot(grid, tmp_path / 'out', tmp_path, 1e9 + 200)[0]
    assert (state.state, state.step, state.loss, state.left) == ('running', None, None, None)
    assert take_snapshot(grid, tmp_path / 'out', tmp_path, 1e9 + 400)[0].state == 'stopped'
    log = run / '20260101_000000' / '20260101_000000.log'  # evaluation logs here alone
    log.write_text('')
    os.utime(log, (1e9 + 350, 1e9 + 350))
    assert take_snapshot(grid, tmp_path / 'out', tmp_path, 1e9 + 400)[0].state == 'running'


def test_runs_are_found_wherever_the_grid_worked(grid, tmp_path):
    """The newest sign wins, of whatever identity and below whatever grid's name."""
    cell, now = grid.cells()[0], 1e9
    begin(tmp_path / 'phantom', cell, 1, now - 9000, '{"loss": 9.0, "time": 0.5, "step": 10}')
    begin(tmp_path / 'a-copy', cell, 1, now - 10, '{"loss": 2.0, "time": 0.5, "step": 20}')
    begin(tmp_path / 'phantom', cell, 1, now - 500, '{"loss": 3.0, "time": 0.5, "step": 30}', 'ffff0000')
    state = take_snapshot(grid, tmp_path / 'elsewhere', tmp_path, now)[0]
    assert (state.state, state.step, state.loss) == ('running', 20, 2.0)
    shutil.rmtree(tmp_path / 'a-copy')
    state = take_snapshot(grid, tmp_path / 'elsewhere', tmp_path, now)[0]
    assert (state.state, state.step, state.loss) == ('stopped', 30, 3.0)


def test_watching_ends_when_nothing_is_running(grid, tmp_path, monkeypatch, capfd):
    """Runs that wait do not hold it up, and neither does a worker's pause between two runs end it."""
    looks = iter([['running'], ['waiting'], ['running', 'waiting'], ['done', 'waiting'], ['done', 'waiting']])
    monkeypatch.setattr(watching, 'take_snapshot', lambda *_: [RunState('a run', state) for state in next(looks)])
    monkeypatch.setenv('FORCE_COLOR', '1')
    watch(grid, tmp_path, tmp_path, 0.0)
    assert next(looks, None) is None
    assert 'nothing is running' in capfd.readouterr().out


def test_without_a_terminal_a_grid_is_shown_once(grid, tmp_path, capfd):
    finish(tmp_path, grid.cells()[0], 1)
    watch(grid, tmp_path, tmp_path)
    assert capfd.readouterr().out.count('3 waiting, 1 done') == 1


@pytest.mark.parametrize('spoil', [
    lambda path: path.write_bytes(path.read_bytes()[:-40]), lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(b'no archive'), lambda path: path.unlink(),
    lambda path: write_arrays(path, other=np.zeros(3))])
def test_torn_predictions_are_as_if_absent(tmp_path, spoil):
    grid = load_grid('phantom')
    cell = grid.tables['2a'].rows['Ours']
    paths = [finish(tmp_path, cell, seed) for seed in (1, 2)]
    label = np.zeros((5, 16, 12), np.uint8)
    label[:, 4:8] = 1
    slices = predictions_path(tmp_path, 'phantom')
    write_arrays(slices, image=label, label=label, case='x', slices=np.arange(5), spacing=[5.0, 1.0, 1.0])
    kept = [predictions_path(tmp_path, path.stem) for path in paths]
    for path in kept:
        write_arrays(path, prediction=label)
    measured = Measured(read_records(tmp_path)[0])
    spoil(kept[0])
    assert draw_predictions(dict(ours=cell), measured, grid, tmp_path) is not None  # of the other seed
    spoil(kept[1])
    assert draw_predictions(dict(ours=cell), measured, grid, tmp_path) is None
    write_arrays(kept[0], prediction=label)
    assert draw_predictions(dict(ours=cell), measured, grid, tmp_path) is not None
    spoil(slices)
    assert draw_predictions(dict(ours=cell), measured, grid, tmp_path) is None


def test_a_records_name_is_its_runs(grid, tmp_path):
    path = finish(tmp_path, grid.cells()[0], 1)
    assert path == record_path(tmp_path, Run(grid.cells()[0], 1, 'configs/a.py', {}, 'abcd1234'))


def test_the_readmes_frame_gives_the_tables_figures(monkeypatch):
    """A mean over all runs would mix strides, inflations and rates: depth would seem to hurt."""
    monkeypatch.chdir(REPO)
    [code] = re.findall(r'```python\n(from benchmarks import results.*?)```', documentation(), re.DOTALL)
    exec(code, found := {})
    frame = found['frame']
    shown = pd.read_csv('results/phantom/tables/table_2a.csv').set_index('Method')['DSC case']
    by_row = frame[frame.headline].groupby(['row', 'seed', 'label']).dsc.mean().groupby('row').mean()
    assert set(by_row.index) == {'Ours', 'Ours w/o T', 'Ours w/o D', 'Ours w/o T&D'}
    for row, figure in by_row.items():
        assert figure == pytest.approx(float(shown[row].split()[0]), abs=0.006)
    with pytest.raises(UserError, match="no table '2c'"):
        results.load('results/phantom', table='2c')


def test_what_is_shown_is_scaled_as_the_network_sees_it(prepared):
    usual, clipped = (choose_shown(WindowDataset(str(prepared), 'test', 3, clip=clip))['image']
                      for clip in (None, (0, 1)))
    assert {*np.unique(clipped)} <= {0, 255} and len(np.unique(usual)) > 2


@pytest.mark.skipif(sys.platform != 'linux' or torch.cuda.is_available(), reason='of a process on Linux')
def test_memory_is_of_one_training_whatever_its_process_did_before():
    held = TrainingMemory()
    held.look()
    block, larger = torch.ones(2**26), TrainingMemory()  # 256 MiB
    larger.look()
    del block
    again = TrainingMemory()
    again.look()
    assert larger.of == 'training process' and larger.peak - held.peak > 200 * 2**20 > again.peak - held.peak
