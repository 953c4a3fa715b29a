"""The plan of a grid: schedules, scaling, the paper's own time, and a calibration that is really run."""

import itertools
import json
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from test_grid import grid_file

from benchmarks import run_grid
from benchmarks.executors.local import DebugExecutor
from benchmarks.grid.axes import Cell
from benchmarks.grid.reader import load_grid
from benchmarks.planning import estimate, text
from benchmarks.planning.calibration import calibrate
from benchmarks.planning.equal import equal_steps
from benchmarks.planning.estimate import PUBLISHED, Device, Pace, choose_device, device_folder, read_pace, schedule
from benchmarks.planning.text import show_estimate
from benchmarks.planning.work import Kind, list_kinds
from benchmarks.runs.agenda import list_runs, make_agenda
from benchmarks.runs.records import open_record, seal
from mmseg_plugins.datasets import CATALOGUE, DatasetInfo
from mmseg_plugins.errors import UserError
from mmseg_plugins.files import write_json
from mmseg_plugins.progress import Progress


def test_schedules_known_by_hand():
    assert schedule({}, {}, 3) == 0
    assert schedule(dict.fromkeys('abcdefgh', 2.0), {}, 1) == 16
    assert schedule(dict.fromkeys('abcdefgh', 2.0), {}, 3) == 6
    assert schedule(dict.fromkeys('abcdefgh', 2.0), {}, 64) == 2
    assert schedule(dict(a=3.0, b=3.0, c=2.0, d=2.0, e=2.0), {}, 2) == 7  # the best is 6
    # a source before its two runs; what does not wait for it goes meanwhile
    assert schedule(dict(source=5.0, a=1.0, b=1.0, free=4.0), dict(a='source', b='source'), 2) == 6
    assert schedule(dict(s=1.0, t=2.0, a=3.0), dict(t='s', a='t', s='made long ago'), 9) == 6


def test_schedules_against_every_assignment():
    """Longest first is at most 4/3 - 1/(3 m) of the best (Graham 1969), and the best is found by trying all."""
    for seconds in ((7, 6, 5, 4, 3, 2), (9, 1, 1, 1, 1), (3, 3, 2, 2, 2), (5, 5, 4, 4, 3, 3)):
        for slots in (1, 2, 3):
            best = min(max(sum(s for s, on in zip(seconds, where, strict=True) if on == slot)
                           for slot in range(slots))
                       for where in itertools.product(range(slots), repeat=len(seconds)))
            found = schedule({str(i): float(s) for i, s in enumerate(seconds)}, {}, slots)
            assert best <= found <= best * (4 / 3 - 1 / (3 * slots)) + 1e-9


def work_of(grid, folder: Path, max_iters=None):
    """A grid's agenda and kinds."""
    runs = list_runs(grid, folder / 'weights', max_iters)
    agenda = make_agenda(grid, runs, folder / 'weights', [folder / 'out'], False)
    return agenda, list_kinds(agenda, [folder / 'out'])


def shown(works, device) -> str:
    out = StringIO()
    show_estimate(works, device, Console(file=out, width=124))
    return out.getvalue()


def test_the_nearest_record_is_scaled_by_flops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, [kind] = work_of(load_grid(str(grid_file(tmp_path, axes=dict(slices=[3])))), tmp_path, 1000)
    parameters, flops = kind.counts
    near = Pace('near', 2 * parameters, flops // 2, 4, step_seconds=3.0, start_seconds=7.0, checkpoint_seconds=2.0,
                window_seconds=0.5)
    far = replace(near, kind='far', flops=flops * 90)
    found = estimate.estimate(kind, [far, near])
    assert found.pace is near and found.scaled and found.memory is None
    assert found.step == 3.0  # twice the FLOPs of half the windows
    assert found.seconds == 7 + 1000 * 3 + kind.windows * 0.5 * 2 + kind.checkpoints * 2 / 2
    # of its own kind the longest timed, of these the middle one
    own = [replace(near, kind=kind.what, flops=flops, batch=2, step_seconds=step, steps=steps, peak_memory_mib=9.0)
           for step, steps in ((1.0, 5), (2.0, 50), (8.0, 50), (4.0, 50))]
    searched = replace(own[0], steps=5000, dsc_alone=True)  # whose windows took less
    found = estimate.estimate(kind, [near, searched, *own])
    assert found.pace is own[3] and not found.scaled and found.memory == 9.0


def test_equal_seconds_are_more_steps_of_what_is_faster(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = load_grid(str(grid_file(tmp_path, axes=dict(slices=[3, 1, 5]), equal='seconds')))
    kinds = {kind.run.cell.slices: kind for kind in work_of(grid, tmp_path)[1]}
    paces = {slices: Pace(kind.what, *kind.counts, kind.batch, step_seconds=step)
             for (slices, kind), step in zip(kinds.items(), (2.0, 0.5, 4.0), strict=True)}
    device = Device('abacus', 'by hand', list(paces.values()))
    steps = equal_steps(grid, Path('weights'), device, '')
    assert {cell.slices: number for cell, number in steps.items()} == {3: 1000, 1: 4000, 5: 500}
    grid.steps = steps
    runs = list_runs(grid, Path('weights'), None)
    assert [run.options['experiment.steps'] for run in runs] == [1000, 4000, 500]
    with pytest.raises(UserError, match='5x64x64.* is not calibrated on abacus; run on that machine: calibrate!'):
        equal_steps(grid, Path('weights'), replace(device, calibrated=[paces[1], paces[3]]), 'calibrate!')
    with pytest.raises(UserError, match='experiment.steps is set by equal'):
        load_grid(str(grid_file(tmp_path, equal='seconds', options={'experiment.steps': 9})))
    with pytest.raises(UserError, match="unknown equal 'second'; did you mean 'seconds'"):
        load_grid(str(grid_file(tmp_path, equal='second')))


def test_steps_that_a_folder_has_counted_stay_whatever_is_measured_later(tmp_path, monkeypatch):
    grid = load_grid(str(grid_file(tmp_path, axes=dict(slices=[3, 1, 5]), equal='seconds')))
    first, second, third = grid.cells()
    monkeypatch.setattr('benchmarks.planning.estimate.choose_device', lambda *_: None)
    monkeypatch.setattr(sys, 'argv', ['run_grid.py', '--out', str(tmp_path / 'out')])
    args = run_grid.parse_args()

    def counted(*steps):
        found = dict(zip(grid.cells(), steps, strict=True))
        monkeypatch.setattr('benchmarks.planning.equal.equal_steps', lambda *_: found)
        run_grid.make_equal(grid, args, DebugExecutor())
        return [grid.steps[cell] for cell in grid.cells()]
    assert counted(1000, 4000, 500) == [1000, 4000, 500]  # nothing is written where nothing is run
    kept = {name: grid.steps[cell] for cell, name in run_grid.name_steps(grid.steps).items() if cell != third}
    write_json(tmp_path / 'out' / run_grid.STEPS, kept)
    assert counted(1000, 3990, 510) == [1000, 4000, 510]
    assert counted(2000, 7980, 1020) == [2000, 7980, 1020]  # the first trains for longer, and all with it


def test_records_from_before_they_kept_seconds_of_steps_count_by_all_their_seconds():
    record = dict(state='done', settings=dict(batch_size='16'), training=dict(steps=150),
                  scores=dict(figures=dict(dsc=[], dsc_pooled=[], hd95=[])),
                  cost=dict(parameters=9, flops=8, seconds=30.0, peak_memory_mib=5, resumed_from=0))
    assert read_pace(record, 'a kind') == Pace('a kind', 9, 8, 16, 0.2, steps=150, peak_memory_mib=5)
    resumed = record | dict(cost=record['cost'] | dict(resumed_from=100))
    assert read_pace(resumed) is None
    timed = resumed | dict(cost=resumed['cost'] | dict(kind='own', step_seconds=0.1, window_seconds=2.0))
    assert read_pace(timed, 'other') == Pace('own', 9, 8, 16, 0.1, window_seconds=2.0, steps=150,
                                             peak_memory_mib=5)
    assert read_pace(timed | dict(cost=timed['cost'] | dict(processes=2))) is None
    assert read_pace(dict(state='failed')) is None


def test_the_published_time_is_64_gpu_hours_of_the_papers_best(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    works = [work_of(grid, tmp_path)
             for grid in (load_grid('bcv', ['2b', '3', '4a', '4b', '4c', '4d']),
                          load_grid('generalization', datasets=['brain', 'heart']))]
    device = choose_device(PUBLISHED, works, '')
    hours = {run: device.estimate(kind).seconds / 3600
             for _, kinds in works for kind in kinds for run in kind.to_do}

    def hours_of(cell: Cell) -> float:
        return next(hours[run.name] for agenda, _ in works for run in agenda.runs if run.cell == cell)

    assert hours_of(Cell('bcv')) == pytest.approx(64)
    # a tenth of a percent less for the one slice, as the paper counts FLOPs; ten times the steps for Brain
    assert 63.8 < hours_of(Cell('bcv', slices=1)) < 64
    heart = hours_of(Cell('heart'))
    assert heart == pytest.approx(64 * (320 / 512)**2, rel=0.05) and hours_of(Cell('brain')) > 5 * heart
    text = shown(works, device)
    assert 'published, not measured here' in text and '24 trainings to do' in text
    assert f'{sum(hours.values()):,.1f} GPU-hours' in text and 'warning' not in text
    assert 'warning: that is more than the 2.0 GiB there are' in shown(works, replace(device, memory=2048))


@pytest.fixture(scope='module')
def calibrated(prepared, tmp_path_factory):
    """A calibration of a kind on prepared data and of one on random values: its folders, the device, the grids."""
    folder = tmp_path_factory.mktemp('calibrated')
    with pytest.MonkeyPatch.context() as patch, Progress(shown=False) as progress:
        patch.chdir(folder)
        patch.setattr(estimate, 'CALIBRATIONS', folder / 'calibrations')
        patch.setattr('benchmarks.planning.calibration.STEPS', (3, 3))
        (folder / 'data/prepared').mkdir(parents=True)
        (folder / 'data/prepared/hippocampus').symlink_to(prepared)
        works = [work_of(load_grid(str(grid_file(folder, axes=dict(slices=[3]), dataset=dataset))), folder)
                 for dataset in ('hippocampus', 'prostate')]
        before = sorted(folder.rglob('*'))
        name = calibrate(works, DebugExecutor(), 1, progress, 'this test')
        left = set(folder.rglob('*')) - set(before) - {folder / 'calibrations'}
        assert all(path.is_relative_to(device_folder(name)) for path in left)
    return folder, name


@pytest.fixture
def there(calibrated, monkeypatch):
    folder, name = calibrated
    monkeypatch.chdir(folder)
    monkeypatch.setattr(estimate, 'CALIBRATIONS', folder / 'calibrations')
    return folder, name


def test_a_calibration_is_run_as_any_run_is_and_the_plan_follows_it(there):
    folder, name = there
    files = sorted(device_folder(name).iterdir())
    records = [open_record(path.read_text()) for path in files]
    assert [record['data']['cases']['train'] for record in records] == [2, 1]  # of prepared cases a few
    for record in records:
        cost = record['cost']
        assert record['command'] == 'this test' and record['training']['steps'] == 3
        assert min(cost[f'{part}_seconds'] for part in ('step', 'window', 'checkpoint')) > 0
        assert cost['step_seconds'] * 2 + cost['start_seconds'] < cost['seconds']
    work = work_of(load_grid(str(grid_file(folder, axes=dict(slices=[3, 5])))), folder, 1000)
    device = choose_device(device_folder(name).name, [work], '')
    assert device.name == name and len(device.calibrated) == 2
    three, five = (device.estimate(kind) for kind in work[1])
    assert five.scaled and not three.scaled and three.step == records[0]['cost']['step_seconds']
    text = shown([work], device)
    assert 'scaled: not recorded there, but by FLOPs from' in text and '2 trainings to do' in text
    busy = shown([work], replace(device, calibrated=[replace(pace, cpu_share=0.5) for pace in device.calibrated]))
    assert 'runs had 50% of their cores; on a quiet machine all takes down to x 0.50' in busy
    far = shown([work], replace(device, calibrated=[replace(pace, flops=pace.flops // 1000)
                                                    for pace in device.calibrated]))
    assert far.count('left out of all sums; --calibrate measures it') == 2 and '0 trainings to do' in far


def test_a_damaged_calibration_is_named(there, tmp_path, monkeypatch):
    folder, name = there
    [path, _] = sorted(device_folder(name).iterdir())
    monkeypatch.setattr(estimate, 'CALIBRATIONS', tmp_path)
    write_json(tmp_path / path.parent.name / path.name, json.loads(path.read_text()) | dict(seed=9))
    with pytest.raises(UserError, match='not a calibration .*edited.*; delete it and run: again'):
        choose_device(name, [], 'again')


def test_finished_runs_count_and_show_how_far_the_estimate_was_off(there):
    folder, name = there
    agenda, [kind] = work_of(load_grid(str(grid_file(folder, axes=dict(slices=[3]), seeds=[1, 2, 3, 4]))), folder,
                             1000)
    device = choose_device(name, [], '')
    seconds = device.estimate(kind).seconds
    record = open_record(sorted(device_folder(name).iterdir())[0].read_text())
    cost = {key: value for key, value in record['cost'].items() if not key.endswith('_seconds')}
    record['training']['steps'] = 1000
    records = [record | dict(cost=cost | dict(seconds=seconds * times), hardware=record['hardware'] | changes)
               for times, changes in ((0.5, {}), (2.0, {}), (1.0, dict(cpu='abacus')))]
    for record in records:
        run = next(iter(kind.to_do))
        kind.finished[run] = seal(record)
        del kind.to_do[run]
    begun = [(agenda, [kind])]
    device = choose_device(name, begun, '')
    text = shown(begun, device)
    assert 'by 2 calibrations and 2 finished runs' in text and '1 trainings to do' in text
    assert '2 finished runs: recorded' in text and 'by the calibrations' in text and 'at most +100 %' in text
    assert '1 finished runs left out of that comparison: recorded on abacus' in text
    # each by the other, a quarter or four times of it
    text = shown(begun, replace(device, calibrated=[]))
    assert 'by each other' in text and '(+0 %)' in text and 'at most +300 %' in text


@pytest.mark.parametrize('arguments, message', [
    (['--plan', '--device', 'abacus', '--data-root', 'my data'],
     "calibration of 'abacus'; known: .*titan-rtx-paper.* --data-root '/.*/my data' --plan --calibrate"),
    (['--plan', '--device', 'abacus', '--dataset', 'hippocampus', '--slices', '7'],
     'run_grid.py --grid phantom --slices 7 --dataset hippocampus --data-root .* --plan --calibrate'),
    (['--plan', '--dry-run'], '--dry-run and --plan exclude each other'),
    (['--plan', '--halve-on-oom'], '--halve-on-oom and --plan exclude each other'),
    (['--plan', '--calibrate', '--device', 'abacus'], 'leave --device out'),
    (['--calibrate'], '--calibrate and --device go with --plan'),
    (['--grid', 'bcv', 'phantom'], 'one grid at a time'),
    (['--grid', 'bcv', 'phantom', '--plan', '--out', 'x'], '--out is of one grid')])
def test_a_plan_that_cannot_be_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['run_grid.py', *arguments])
    with pytest.raises(UserError, match=message):
        run_grid.main()
    assert not list(tmp_path.iterdir())


def test_a_plan_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['run_grid.py', '--plan', '--seeds', '1', '--device', PUBLISHED, '--grid',
                                      'phantom', 'phantom-sources'])
    assert run_grid.main() == 0
    text = capsys.readouterr().out
    assert 'search: 44 runs, 0 finished, 44 to do, 1 sources to make' in text
    assert 'mini BEiT): 11 runs, 0 finished, 11 to do\n' in text  # from the source that the search has made
    for line in ('too far from it to tell', 'GPUs do not help', 'disk: ', 'memory: not published',
                 '! source dino_layout, ', 'its time cannot be told: left out of all sums'):
        assert line in text
    assert not list(tmp_path.iterdir())


def test_of_a_users_own_dataset_nothing_need_be_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(CATALOGUE, 'spine', DatasetInfo('msd', 'Task99_Spine', 'CT', 'our hospital', 'none'))
    _, [kind] = work_of(load_grid(str(grid_file(tmp_path, axes=dict(slices=[3]), dataset='spine'))), tmp_path)
    assert ', 2 labels, ' in kind.what and 'nothing known of its cases' in kind.assumed and kind.windows == 0


def test_the_evaluation_after_the_last_step_counts():
    options = {'experiment.source': None, 'experiment.steps': 5}
    once, twice = (Kind('configs/beit_centering_phantom.py', options | {'experiment.val_interval': every}, '')
                   for every in (5, 3))
    assert twice.windows == 2 * once.windows > 0


def test_runs_that_cost_the_same_are_one_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def kinds_of(name: str) -> set[tuple]:
        return {(kind.what, kind.counts) for kind in work_of(load_grid(name), tmp_path)[1] if kind.run}

    phantom, bf16 = kinds_of('phantom'), kinds_of('phantom-bf16')
    assert len(phantom) == 5  # 1, 5, 11 and 21 slices to the centre, 5 to all
    assert all(what.endswith(', bf16') for what, _ in bf16) and not bf16 & phantom
    grid = load_grid('phantom-lifting')  # frozen or not, FLOPs are the same
    assert len({what for what, _ in kinds_of(grid.name)}) == len({
        (cell.slices, cell.lifting, cell.tuning) for cell in grid.cells_to_run()}) == 20


def test_runs_wait_for_their_search_and_grids_for_one_another():
    """Even on as many devices as there are trainings, and where two grids have a run of one name."""
    def phase(**seconds):
        return [SimpleNamespace(seconds=value, kind=SimpleNamespace(to_do={name: None}))
                for name, value in seconds.items()]
    device = Device('a GPU', 'measured', [])
    first, table, last = text._describe_sums([phase(a=3600, b=7200), phase(c=3600), [], phase(c=3600)], device)
    assert first == '\n4 trainings to do: 5.0 GPU-hours'
    assert [[*column.cells] for column in table.columns] == [['1', '8', '64'], ['5.0 h', '4.0 h', '4.0 h']]
    assert 'searches before runs, and one grid after another; more than 2 GPUs do not help' in last
