"""Folds of a grid: a run each, and of each seed one result in which every case is once, whatever befalls a run."""

import csv
import json
import sys
from collections import Counter

import children
import numpy as np
import pytest
import yaml
from conftest import REPO, call_tool, wait_for, write_msd
from made_records import failed, record, write
from test_extensions import THRESHOLD, write_grid

from benchmarks import report, results, run_grid
from benchmarks.executors.watch import take_snapshot
from benchmarks.grid.axes import Cell
from benchmarks.grid.reader import load_grid
from benchmarks.planning.work import list_kinds
from benchmarks.rendering.folds import merge_folds
from benchmarks.rendering.frame import Measured
from benchmarks.rendering.page import describe_data, index_cells
from benchmarks.runs.agenda import data_digest, list_runs, make_agenda
from benchmarks.runs.records import describe_result, read_records, set_superseded_aside
from benchmarks.runs.run import Run
from mmseg_plugins.datasets.splits import list_folds, split_cases
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation.folder import score_folder
from mmseg_plugins.evaluation.metrics import METRICS, Metric

SCRIPT = [sys.executable, str(REPO / 'benchmarks/run_grid.py'), '--grid', 'mine.yaml', '--executor', 'debug']


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Where a grid of a config and a command in three folds was run, twice by another seed."""
    folder = tmp_path_factory.mktemp('folds')
    write_msd(folder / 'data/Task04_Hippocampus', cases=6)
    write_grid(folder, folds=3, seeds=[1, 2], source='none', axes=dict(encoder=['beit', 'threshold']),
               configs=dict(beit='configs/mini_beit_centering_hippocampus.py', threshold=dict(command=THRESHOLD)),
               options={'experiment.steps': 4, 'experiment.batch': 2, 'experiment.checkpoint_interval': 2})
    run = children.run(SCRIPT, folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_each_case_has_one_figure_per_seed_and_tables_are_of_all(finished):
    out = finished / 'work_dirs/grids/mine'
    frame, index = results.load(out), read_index(finished / 'data/prepared/hippocampus')
    for _, rows in frame.groupby(['encoder', 'seed']):
        assert Counter(rows['case']) == dict.fromkeys(index['cases'], 3)  # labels
    assert frame.groupby('encoder').seed.nunique().to_dict() == dict(beit=2, threshold=2)
    records, left_out = read_records(out)
    assert len(records) == 12 and not left_out
    folds = json.loads((finished / 'data/prepared/hippocampus/folds_3.json').read_text())
    assert folds == list_folds(index, 3)
    for made in records:
        number, count = made['fold']
        assert count == 3 and made['run'].startswith(f'{Cell(**made["cell"])}-seed{made["seed"]}-fold{number}of3-')
        assert made['scores']['cases'] == sorted(folds[number]['val'])
        assert made['data']['evaluated'] == f'all:{number}/3'
        trained = {f'all:-{number}/3': 4} if 'config' in made else {}
        assert made['data']['cases'] == trained | {f'all:{number}/3': 2}
    rows = csv.DictReader(open(out / 'tables/table_free.csv'))
    assert {row['encoder']: row['runs'] for row in rows} == dict.fromkeys(['beit', 'threshold'], '2 x 3 folds')
    page = (out / 'report.html').read_text()
    assert 'out-of-fold, 3 folds' in page and 'Seed 1, fold 2 of 3' in page and '6 in 3 folds' in page
    assert '12 finished runs, 3 folds of each seed,' in page
    assert 'hippocampus: 6 cases evaluated (out-of-fold, 3 folds), 4 trained on' in page
    assert index_cells(Measured(records), report.load_folder(out))[1] == '12 in 3 folds'
    assert (out / 'figures/predictions.png').exists()  # of the one fold that has the case that is shown


def test_what_a_command_leaves_in_folds_is_scored_as_all_at_once(finished, tmp_path):
    """Pooled figures too, to the last digit."""
    prepared, out = finished / 'data/prepared/hippocampus', finished / 'work_dirs/grids/mine'
    work = finished / 'work_dirs/grids/mine/runs'
    for path in work.glob('hippocampus-threshold-seed1-*/label_maps/*'):
        (tmp_path / path.name).symlink_to(path)
    whole = describe_result(score_folder(tmp_path, prepared, 'all').scores, read_index(prepared), 'all')['scores']
    [merged] = [made for made in merge_folds(read_records(out)[0])
                if made['cell']['encoder'] == 'threshold' and made['seed'] == 1]
    assert merged['scores']['cases'] == whole['cases'] and merged['scores']['figures'] == whole['figures']


def test_a_grid_killed_in_a_fold_goes_on_and_gives_the_same(finished, tmp_path):
    for name in ('data', 'threshold.py'):
        (tmp_path / name).symlink_to(finished / name)
    spec = yaml.safe_load((finished / 'mine.yaml').read_text())
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(spec | dict(axes=dict(encoder=['beit']), seeds=[1])))
    process = children.start(children.grid, tmp_path, SCRIPT[2:])
    work = tmp_path / 'work_dirs/grids'
    wait_for(lambda: list(work.glob('mine/runs/*-fold1of3-*/iter_2.pth')), 120,
             'a checkpoint of the second fold')
    process.kill()
    process.join()
    out = work / 'mine'
    [first], _ = read_records(out)
    assert first['fold'] == [0, 3] and Measured([first]).done() == []
    states = take_snapshot(load_grid(str(tmp_path / 'mine.yaml')), out, work, 1e12)
    assert [state.state for state in states] == ['done', 'stopped', 'waiting']
    report.render(out)
    page = (out / 'report.html').read_text()
    assert 'seed 1: 1 of 3 folds done' in page and '<p>1 finished run on hippocampus: 1 cell, seed 1.</p>' in page
    assert 'not all folds' in (out / 'tables/table_free.csv').read_text()
    run = children.run(SCRIPT, tmp_path)
    assert run.returncode == 0 and '3 runs, 1 finished, 2 to do' in run.stdout, run.stdout + run.stderr
    figures = [{(made['seed'], *made['fold']): made['scores'] for made in read_records(folder)[0]
                if 'config' in made} for folder in (out, finished / 'work_dirs/grids/mine')]
    assert figures[0] == {key: scores for key, scores in figures[1].items() if key[0] == 1}


def test_the_folds_of_a_grid_take_the_place_of_its_split_and_back(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call = ['run_grid.py', '--grid', 'hippocampus', '--folds', '5', '--seeds', '1', '--dry-run']
    monkeypatch.setattr(sys, 'argv', call)
    assert run_grid.main() == 0
    text = capsys.readouterr().out
    assert text.count('experiment.split=all:-3/5 experiment.evaluate=all:3/5') == 4
    assert 'seed 1, fold 4 of 5: ' in text and '4 cells, 20 runs, 80 of their search, 5 folds of each seed' in text
    grid = load_grid('hippocampus', seeds=[1], folds=5)
    assert (grid.name, grid.folds) == ('hippocampus-5-folds', 5) and yaml.safe_load(grid.text)['folds'] == 5
    # a run of no fold is what it was, and sets folds aside; a fold sets aside what else is of its seed
    whole, fold = record(cell := Cell('phantom'), digest='11111111'), made((0, 3))
    for kept, put in ((Run(cell, 1, '', {}, '22222222'), [fold]),
                      (Run(cell, 1, '', {}, '33333333', (0, 3)), [whole, fold, made((1, 2))])):
        paths = {write(tmp_path, each) for each in (*put, made((1, 3)))}
        write(tmp_path, record(cell, 11))
        others = 2 if kept.fold is None else 3
        assert set_superseded_aside(tmp_path, [kept]) == others
        assert sum(path.exists() for path in paths) == len(paths) - others
    assert not list((tmp_path / 'records').glob('*-seed1-fold0of3-*'))
    plain = list_runs(load_grid('hippocampus', seeds=[1]), tmp_path, None)
    assert all(run.fold is None and '-fold' not in run.name for run in plain)
    back = load_grid(str(finished / 'mine.yaml'), folds=1)
    assert back.folds is None and back.name == 'mine-as-split' and back.seeds_and_folds == [(1, None), (2, None)]
    agenda = make_agenda(grid, list_runs(grid, tmp_path, None), tmp_path, [tmp_path], False)
    kinds = [kind for kind in list_kinds(agenda, [tmp_path]) if kind.run]
    assert [len(kind.to_do) for kind in kinds] == [10, 10]  # 1 and 5 slices, on two sources each
    assert kinds[0].windows == pytest.approx(260 / 5 * 36)


@pytest.mark.parametrize('changes, message', [
    (dict(folds=0), '0 folds; give at least 2'), (dict(folds='5'), 'folds cannot be "5"; write it as folds: 10'),
    (dict(folds=True), 'folds cannot be true'),
    (dict(folds=5, options={'experiment.evaluate': 'val'}), 'experiment.evaluate is set by folds of the grid')])
def test_folds_that_cannot_be_are_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_grid(str(write_grid(tmp_path, **changes)))


def made(fold, seed=1, cases=('a', 'b'), confusion=((5, 1), (2, 8)), **figures):
    """A finished run of two cases and one organ."""
    return record(Cell('phantom'), seed, [90.0, 80.0], per_case=[[90.0, 80.0]] * len(cases), fold=fold,
                  figures=figures, scores=dict(cases=list(cases), confusion=[list(row) for row in confusion]))


def test_a_figure_is_of_all_folds_or_there_is_none(tmp_path):
    cell, three = Cell('phantom'), [made((k, 3), cases=[f'{k}x', f'{k}y']) for k in range(3)]
    value = Measured(three).value(cell)
    assert value.seeds == {1: pytest.approx(200 * 24 / (24 + 6 + 24 + 3), abs=5e-5)}
    assert value.runs == '1 x 3 folds'
    assert str(Measured(three[:2]).value(cell)) == 'not all folds'
    assert not Measured(three[:2]).done() and Measured(three[:2]).unfinished()[0]['reason'] == '2 of 3 folds done'
    broken = Measured([*three[:2], failed(cell, fold=(2, 3))])
    assert str(broken.value(cell)) == 'failed' and len(broken.failed()) == 1
    twice = Measured([*three[:2], made((2, 3), cases=['2x', '0x'])])
    assert 'a case is in two of its folds' in twice.unfinished()[0]['reason'] and not twice.value(cell).seeds
    [text] = describe_data(Measured(three).done())
    assert text.startswith('phantom: 6 cases evaluated (out-of-fold, 3 folds), 9 trained on; split abcd, ')
    # records of a split and of folds are not mixed, nor is one counted twice
    paths = [write(tmp_path, each) for each in (*three, record(cell, 2), made((0, 2), 3))]
    (tmp_path / 'records/again.json').write_text(paths[0].read_text().replace('abcd1234', 'dcba4321'))
    kept, left_out = read_records(tmp_path)
    assert [each['run'] for each in kept] == [each['run'] for each in three] and len(left_out) == 3
    assert 'of 2 folds, and another record of this cell is of 3 folds' in left_out[paths[4].name]
    assert 'of the data as it is split' in left_out[paths[3].name]


def test_a_users_metric_of_all_cases_is_formed_anew_or_said_to_be_lost(monkeypatch):
    folds = [made((k, 2), cases=[f'{k}x', f'{k}y'], recall=[1.0, 2.0]) for k in range(2)]
    [merged] = merge_folds(folds)
    assert merged['scores']['lost'] == ['recall'] and 'recall' not in merged['scores']['figures']
    monkeypatch.setitem(METRICS, 'recall', Metric(
        'recall', lambda pair: 100 * np.diagonal(pair.confusion) / pair.confusion.sum(1), 'recall', '%',
        higher_is_better=True, per_case=False))
    [merged] = merge_folds(folds)
    assert merged['scores']['figures']['recall'] == [pytest.approx(100 * 5 / 6, abs=1e-4), 80.0]


def test_label_maps_of_folds_are_scored_into_one_figure(finished, tmp_path, monkeypatch, capsys):
    """As nnU-Net leaves them, a folder for each fold; a missing case counts 0 in the pooled figure too."""
    prepared = finished / 'data/prepared/hippocampus'
    index = read_index(prepared)
    (tmp_path / 'data').symlink_to(finished / 'data')
    monkeypatch.chdir(tmp_path)
    work = finished / 'work_dirs/grids/mine/runs'
    for path in work.glob('hippocampus-threshold-seed1-*/label_maps/*'):
        (tmp_path / 'maps').mkdir(exist_ok=True)
        (tmp_path / 'maps' / path.name).symlink_to(path)
    gone = list_folds(index, 2)[1]['val'][0]
    (tmp_path / 'maps' / f'{gone}.nii.gz').unlink()
    for fold in range(2):
        call_tool('score', 'maps', '--dataset', 'hippocampus', '--method', 'theirs', '--out', 'out', '--split',
                  f'all:{fold}/2')
    with pytest.raises(UserError, match="evaluated on all:0/2, all:1/2, not on all:0/3"):
        call_tool('score', 'maps', '--dataset', 'hippocampus', '--method', 'theirs', '--out', 'out', '--split',
                  'all:0/3')
    [run] = Measured(read_records(tmp_path / 'out')[0]).done()
    whole = score_folder(tmp_path / 'maps', prepared, 'all').scores
    np.testing.assert_allclose(run['scores']['figures']['dsc_pooled'], whole.figures['dsc_pooled'], atol=5e-5)
    report.render(tmp_path / 'out')
    assert 'out-of-fold, 2 folds' in (tmp_path / 'out/report.html').read_text()
    assert data_digest(index) != data_digest(index, 'all:0/2') != data_digest(index, 'all:1/2')


def test_shares_of_a_split_are_of_whole_patients_and_nested(prepared):
    index = read_index(prepared)
    whole = split_cases(index, 'train')
    index['groups'] = {case: f'patient{number // 2}' for number, case in enumerate(sorted(whole))}
    previous = set()
    for percent in (1, 25, 50, 75, 100):
        part = split_cases(index, f'train:{percent}%')
        patients = {index['groups'][case] for case in part}
        assert len(part) == 2 * len(patients) and len(patients) == max(len(whole) // 2 * percent // 100, 1)
        assert previous <= set(part) and part == [case for case in whole if case in part]
        previous = set(part)
    assert previous == set(whole)
    del index['groups']  # enough patients for folds of a share
    assert set(split_cases(index, 'all:-0/2:50%:0/2')) < set(split_cases(index, 'all:-0/2:50%'))
    for split in ('train:0%', 'train:101%', 'train:25', 'train:25%%'):
        with pytest.raises(UserError, match='or :25%, a share'):
            split_cases(index, split)
