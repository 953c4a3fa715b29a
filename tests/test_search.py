"""The search: settings are chosen for each cell alike, on cases that are not reported, and told with figures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import REPO, write_msd
from test_grid import grid_file, run

from benchmarks.grid.reader import load_grid
from benchmarks.runs.agenda import list_runs
from benchmarks.runs.records import read_record, record_path, renew_search
from benchmarks.runs.search import check_apart, choose, each_once, list_search, searched_cell
from mmseg_plugins.datasets.splits import split_cases
from mmseg_plugins.datasets.store import read_index
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import load_config

TUNED = dict(tune=dict(lr=[1e-4, 1e-2], warmup=[0, 1]), axes=dict(slices=[1, 3]), seeds=[1, 2])


@pytest.fixture(scope='module')
def searched(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp('search')
    write_msd(place / 'data/Task04_Hippocampus', cases=14)
    output = run(place, '--grid', str(grid_file(place, **TUNED)), '--max-iters', '2')
    (place / 'output.txt').write_text(output)
    return place


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((folder / 'records').glob('*.json'))]


def test_every_cell_gets_the_best_of_the_same_settings_on_cases_that_are_not_reported(searched):
    out, index = searched / 'work_dirs/grids/tiny-2-steps', read_index(searched / 'data/prepared/hippocampus')
    tried = {record['run']: record for record in records(out / 'search')}
    assert len(tried) == 2 * 4 and {record['data']['evaluated'] for record in tried.values()} == {'val'}
    reported = set(index['split'][index['evaluate']])
    assert not reported & {case for record in tried.values() for case in record['scores']['cases']}
    runs = records(out)
    assert len(runs) == 2 * 2 and all(set(record['scores']['cases']) == reported for record in runs)
    for record in runs:
        lines = record['search']['tried']
        assert [line['options'] for line in lines] == [
            {'experiment.lr': lr, 'experiment.warmup': warmup} for lr in (1e-4, 1e-2) for warmup in (0, 1)]
        assert record['search']['chosen'] == max(lines, key=lambda line: line['dsc'])['options']
        assert f'experiment.lr={record["search"]["chosen"]["experiment.lr"]}' in record['command']
        for line in lines:  # the figure is the search run's own: mean of cases, then of organs
            scores = tried[line['run']]['scores']
            of_organs = [sum(filter(None, column)) / len(column) for column in
                         list(zip(*scores['figures']['dsc'], strict=True))[1:]]
            assert line['dsc'] == pytest.approx(sum(of_organs) / len(of_organs), abs=1e-3)


def test_the_page_tells_of_the_search(searched):
    out = searched / 'work_dirs/grids/tiny-2-steps'
    table = (out / 'tables/table_search.md').read_text()
    assert 'lr 0.0001, warmup 0' in table and ' tried)' in table and '| val |' in table
    assert 'what a <a href="#table-search">search</a> chose' in (out / 'report.html').read_text()
    assert ', by DSC on val (lr 0.0001, warmup 0: ' in (searched / 'output.txt').read_text()


def test_a_search_that_was_made_is_read_wherever_it_is_kept(searched, monkeypatch):
    monkeypatch.chdir(searched)
    grid = load_grid('tiny.yaml')
    kept = searched / 'work_dirs/grids/tiny-2-steps/search'
    search = list_search(grid, Path('weights'), 2)
    assert choose(grid, search, [searched / 'nowhere']) == {}
    choices = choose(grid, search, [searched / 'nowhere', kept])
    assert set(choices) == {(cell, None) for cell in grid.cells()}
    made = {record['run'] for record in records(kept.parent)}
    assert {run.name for run in list_runs(grid, Path('weights'), 2, choices)} == made


def test_nothing_is_searched_or_run_twice_and_plans_count_both(searched):
    again = run(searched, '--grid', 'tiny.yaml', '--max-iters', '2')
    assert '8 runs, 8 finished, 0 to do' in again and '4 runs, 4 finished, 0 to do' in again
    shown = run(searched, '--grid', 'tiny.yaml', '--dry-run')
    assert shown.count('search: ') == 8 and '2 cells, 4 runs, 8 of their search' in shown
    planned = run(searched, '--grid', 'tiny.yaml', '--plan', '--device', 'titan-rtx-paper')
    assert 'tiny, search: 8 runs' in planned and 'tiny: 4 runs' in planned


def test_a_run_of_before_its_search_is_planned_again(searched, tmp_path):
    tuned = grid_file(tmp_path, **TUNED | dict(axes=dict(slices=[1]), seeds=[1]))
    text = tuned.read_text()
    (tmp_path / 'data').symlink_to(searched / 'data')
    grid_file(tmp_path, axes=dict(slices=[1]), seeds=[1])
    run(tmp_path, '--grid', 'tiny.yaml', '--max-iters', '2')
    plan = '--grid', 'tiny.yaml', '--max-iters', '2', '--plan', '--device', 'titan-rtx-paper'
    assert 'tiny: 1 runs, 1 finished, 0 to do' in run(tmp_path, *plan)
    tuned.write_text(text)
    assert 'tiny: 1 runs, 0 finished, 1 to do' in run(tmp_path, *plan)


def test_a_search_alone_runs_nothing_else_and_reads_no_committed_one(searched):
    alone = run(searched, '--grid', 'tiny.yaml', '--max-iters', '2', '--search')
    assert 'tiny, search (read from work_dirs/grids/tiny-2-steps/search): 8 runs, 8 finished' in alone
    assert '4 runs' not in alone and 'report.html' not in alone


def test_a_search_of_fewer_steps_says_so_and_is_shared(searched, tmp_path, monkeypatch):
    (tmp_path / 'data').symlink_to(searched / 'data')
    monkeypatch.chdir(tmp_path)
    table = dict(rows={'long': dict(steps=5), 'as the search': dict(steps=3), 'short': dict(steps=2)})
    grid = load_grid(str(grid_file(tmp_path, tune=dict(lr=[1e-4, 1e-2]), search_steps=3, axes=None,
                                   tables=dict(budgets=table))))
    search = list_search(grid, Path('weights'), None)
    names = {cell.steps: [run_.name for run_ in runs] for (cell, _), runs in search.items()}
    assert names[5] == names[3] != names[2] and len(each_once(search)) == 4
    longer = replace(next(iter(search))[0], steps=2500)  # 2.5 times what its config has
    assert [searched_cell(grid, longer, most).steps for most in (None, 2000, 100)] == [8, 6, 3]
    for most, same in ((4, names[3]), (2, None)):  # of a trial, whose limit is more or less than the search's
        tried = {cell.steps: [run_.name for run_ in runs]
                 for (cell, _), runs in list_search(grid, Path('weights'), most).items()}
        assert (tried[5] == same) == bool(same) and ('n3' in tried[5][0]) == bool(same)
    run(tmp_path, '--grid', 'tiny.yaml')
    told = {record['training']['steps']: record['search'] for record in records(tmp_path / 'work_dirs/grids/tiny')}
    assert {steps: found.get('steps') for steps, found in told.items()} == {5: 3, 3: None, 2: None}
    shown = (tmp_path / 'work_dirs/grids/tiny/tables/table_search.md').read_text()
    assert shown.count('| val after 3 steps |') == 1 and shown.count('| val |') == 2


@pytest.mark.parametrize('changes, fault', [
    (dict(search_steps=3, tune=None), 'there is no search'),
    (dict(search_percent=50, tune=None), 'search_percent: there is no `tune`'),
    (dict(search_steps=0), 'search_steps 0 must be'), (dict(search_percent=101), 'search_percent 101 must be'),
    (dict(search_steps=3, options={'experiment.steps': 5}), 'leave one of the two out')])
def test_sizes_of_a_search_that_cannot_be_are_refused(tmp_path, changes, fault):
    with pytest.raises(UserError, match=fault):
        load_grid(str(grid_file(tmp_path, **TUNED | changes)))


@pytest.mark.parametrize('trained, evaluated, reported', [
    ('train', 'val', 'val'), ('train', 'val', 'all'), ('all:-0/4', 'all:0/4', 'test'), ('test', 'val', 'test')])
def test_a_search_never_reads_a_reported_case(searched, trained, evaluated, reported):
    index = read_index(searched / 'data/prepared/hippocampus')
    with pytest.raises(UserError, match='a reported case'):
        check_apart(index, trained, evaluated, reported)
    check_apart(index, 'train:-0/4', 'train:0/4', 'test')


@pytest.mark.parametrize('folds', [None, 2])
def test_a_search_decides_on_a_share_of_the_patients(searched, monkeypatch, folds):
    monkeypatch.chdir(searched)
    sizes = dict(folds=folds, seeds=[1]) if folds else {}
    index = read_index(Path('data/prepared/hippocampus'))

    def decided_on(**more) -> list[tuple[set[str], set[str]]]:
        grid = load_grid(str(grid_file(searched, **TUNED | sizes | more)))
        return [tuple({*split_cases(index, run_.options[f'experiment.{part}'])} for part in ('split', 'evaluate'))
                for run_ in sum(list_search(grid, Path('weights'), None).values(), [])]

    for (trained, some), (as_ever, all_) in zip(decided_on(search_percent=50), decided_on(), strict=True):
        assert trained == as_ever and some < all_ and len(some) * 2 == len(all_)


def test_where_val_is_reported_a_part_of_the_training_cases_decides(searched, monkeypatch):
    monkeypatch.chdir(searched)
    options = {'experiment.evaluate': 'val'}
    grid = load_grid(str(grid_file(searched, **TUNED, options=options)))
    index = read_index(Path('data/prepared/hippocampus'))
    for run_ in sum(list_search(grid, Path('weights'), None).values(), []):
        inner = split_cases(index, run_.options['experiment.evaluate'])
        assert inner and set(inner) < set(index['split']['train'])
        assert not set(inner) & set(split_cases(index, run_.options['experiment.split']))


def test_every_fold_has_a_search_of_its_own_among_what_it_is_trained_on(searched, monkeypatch):
    monkeypatch.chdir(searched)
    grid = load_grid(str(grid_file(searched, **TUNED)), folds=3)
    search = list_search(grid, Path('weights'), None)
    assert set(search) == {(cell, (fold, 3)) for cell in grid.cells() for fold in range(3)}
    index = read_index(Path('data/prepared/hippocampus'))
    for (_, fold), runs in search.items():
        reported = set(split_cases(index, f'all:{fold[0]}/3'))
        for key in ('experiment.split', 'experiment.evaluate'):
            assert not reported & set(split_cases(index, runs[0].options[key]))
    assert len({run.name for runs in search.values() for run in runs}) == 2 * 3 * 4


@pytest.mark.parametrize('folds', [None, 3])
def test_a_share_of_the_training_cases_is_searched_within_itself(searched, tmp_path, monkeypatch, folds):
    monkeypatch.chdir(searched)
    rows = {'rows': {'half': {'train_percent': 50}, 'all': {}}}
    grid = load_grid(str(grid_file(tmp_path, **TUNED | dict(axes=None, tables=dict(share=rows)))), folds=folds)
    index = read_index(Path('data/prepared/hippocampus'))
    half = grid.tables['share'].rows['half']
    every = list_runs(grid, Path('weights'), None)
    for (cell, fold), runs in list_search(grid, Path('weights'), None).items():
        [run_, _] = [each for each in every if (each.cell, each.fold) == (cell, fold)]
        cfg = load_config(REPO / run_.config, run_.options)
        share = set(split_cases(index, cfg.train_dataloader.dataset.split))
        inner = load_config(REPO / runs[0].config, runs[0].options)
        trained, evaluated = (set(split_cases(index, loader.dataset.split))
                              for loader in (inner.train_dataloader, inner.val_dataloader))
        if cell == half:
            whole = set(split_cases(index, run_.options.get('experiment.split', 'train')))
            assert len(share) == len(whole) // 2 and trained | evaluated == share and not trained & evaluated


@pytest.mark.parametrize('changes, message', [
    (dict(tune=dict(lr=[1e-3])), 'tune: lr has one value'), (dict(tune=dict(lr=[0.1, 0.1])), 'has 0.1 twice'),
    (dict(tune=dict(lr=[0.1, -1])), 'lr is -1; it must be a number above 0'), (dict(tune=dict(lr=[])), 'is empty'),
    (dict(tune=dict(lrr=[1, 2])), "unknown key 'experiment.lrr'; did you mean"),
    (dict(tune=dict(slices=[1, 2])), 'set by axis slices'),
    (dict(tune=dict(seed=[1, 2])), 'set by seeds of the grid'), (dict(tune=[1]), 'write it as tune: {lr:'),
    (dict(tune=dict(lr=[1, 2]), options={'experiment.lr': 1}), 'set by options too'),
    (dict(tune={'lr': [1, 2], 'experiment.lr': [3, 4]}), 'experiment.lr stands twice'),
    (dict(tune=dict(split=['train', 'all'])), 'keeps a search from reported cases'),
    (dict(tune=dict(evaluate=['val', 'test'])), 'keeps a search from reported cases'),
    (dict(tune=dict(checkpoint_interval=[1, 2])), 'no result depends on experiment.checkpoint_interval'),
    (dict(tune=dict(batch=[1, 2]), options={}, equal='seconds'), 'how long a step takes')])
def test_a_search_that_cannot_be_is_one_line(tmp_path, changes, message):
    path = grid_file(tmp_path, **changes)
    assert yaml.safe_load(path.read_text())
    with pytest.raises(UserError, match=f'tiny.yaml: .*{message}'):
        load_grid(str(path))


def test_a_record_tells_of_the_search_that_chose_its_setting_last(searched, monkeypatch):
    monkeypatch.chdir(searched)
    out = searched / 'work_dirs/grids/tiny-2-steps'
    grid = load_grid('tiny.yaml')
    choices = choose(grid, list_search(grid, Path('weights'), 2), [out / 'search'])
    runs = list_runs(grid, Path('weights'), 2, choices)
    before = record_path(out, runs[0]).read_bytes()
    renew_search(out, runs)
    assert record_path(out, runs[0]).read_bytes() == before
    more = runs[0].search | dict(tried=runs[0].search['tried'] * 2)
    renew_search(out, [replace(runs[0], search=more)])
    assert read_record(record_path(out, runs[0])) | dict(search=None, checksum=None) == json.loads(before) | dict(
        search=None, checksum=None)
    assert read_record(record_path(out, runs[0]))['search'] == more
    record_path(out, runs[0]).write_bytes(before)


def test_a_search_has_the_files_seed_whatever_others_run(tmp_path):
    path = str(grid_file(tmp_path, **TUNED))
    names = [{run.name for run in list_search(load_grid(path, seeds=seeds), Path('weights'), None)[part]}
             for seeds in (None, [7, 8]) for part in list_search(load_grid(path), Path('weights'), None)]
    assert names[:2] == names[2:]
    path = str(grid_file(tmp_path, **TUNED | dict(seeds=None)))
    assert {load_grid(path, seeds=seeds).search_seed for seeds in (None, [7], [8, 9])} == {1234}


def test_a_row_without_a_setting_that_ends_is_left_out_while_the_rest_runs(tmp_path):
    write_msd(tmp_path / 'data/Task04_Hippocampus', cases=14)
    path = grid_file(tmp_path, tune={'experiment.lr': [1e-3, 1e-2]}, axes=None, configs=dict(
        good='configs/mini_beit_centering_hippocampus.py',
        bad=dict(file='configs/mini_beit_centering_hippocampus.py',
                 options={'model.decode_head.loss_decode.gamma': -1e30})),
        tables=dict(both=dict(rows=dict(good=dict(encoder='good'), bad=dict(encoder='bad')))))
    output = run(tmp_path, '--grid', str(path), '--max-iters', '2', check=1)
    assert 'bad-none' in output and 'left out, as not all of its search has ended, or none of it well' in output
    assert [record['cell']['encoder'] for record in records(tmp_path / 'work_dirs/grids/tiny-2-steps')] == ['good']


def test_an_axis_of_the_command_line_takes_the_place_of_its_tuning(tmp_path):
    path = grid_file(tmp_path, tune=dict(lr=[0.1, 0.2], warmup=[0, 1]))
    assert set(load_grid(str(path), lr=[1e-3, 1e-2]).tune) == {'experiment.warmup'}
