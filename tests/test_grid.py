"""The grid on a tiny real data set: cells, runs, records, resume of a killed run, report."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import children
import matplotlib
import numpy as np
import pytest
import yaml
from conftest import REPO, wait_for, write_msd

from benchmarks import run_grid
from benchmarks.grid.axes import AXES, Cell
from benchmarks.grid.reader import GRIDS, load_grid
from benchmarks.rendering.frame import Value
from benchmarks.rendering.statistics import agreement
from benchmarks.runs.agenda import list_runs, make_agenda, make_run, prepare_sources
from benchmarks.runs.inputs import find_absent
from benchmarks.runs.records import read_records
from mmseg_plugins.errors import UserError
from mmseg_plugins.files import only_writer


def grid_file(folder: Path, **changes) -> Path:
    spec = dict(title='tiny', dataset='hippocampus',
                configs=dict(beit='configs/mini_beit_centering_hippocampus.py'),
                source='none', axes=dict(slices=[1, 3]), seeds=[1],
                options={'experiment.batch': 2, 'experiment.checkpoint_interval': 2})
    path = folder / 'tiny.yaml'
    path.write_text(yaml.safe_dump(spec | changes))
    return path


@pytest.fixture
def place(tmp_path):
    write_msd(tmp_path / 'data' / 'Task04_Hippocampus', cases=7)
    return tmp_path


def command(place: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(REPO / 'benchmarks/run_grid.py'), '--workers', '1', *arguments]


def run(place: Path, *arguments: str, check: int = 0) -> str:
    result = children.run(command(place, *arguments), place)
    assert result.returncode == check, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_tables_share_cells_and_fields_that_cannot_matter_are_held():
    grid = load_grid('bcv')
    assert len(load_grid('bcv', ['2b', '3', '4a', '4b', '4c', '4d']).cells()) == 16
    assert grid.tables['2a'].rows['Ours w/o D'] == grid.cells()[2]
    assert grid.tables['2b'].rows['BEiT'] == grid.tables['2a'].rows['Ours']
    assert grid.tables['4d'].rows['1'] == grid.tables['2a'].rows['Ours w/o D']
    assert Cell('bcv', source='none', inflation='average') == Cell('bcv', source='none')
    assert Cell('bcv', slices=1, stride=3, inflation='average', neighbour_lr=0) == Cell('bcv', slices=1)
    assert str(Cell('bcv', neighbour_lr=1, train_percent=100)) == 'bcv-beit-beit-centering-s5-t1-center'
    assert Cell('bcv', lifting='late', inflation='average') == Cell('bcv', lifting='late')
    assert Cell('bcv', lifting='joint(2)', inflation='average') != Cell('bcv', lifting='joint(2)')
    assert Cell('bcv', stride=0) != Cell('bcv') and str(Cell('bcv', stride=0)).endswith('-s5-t0-center')


@pytest.mark.parametrize('name', sorted(path.stem for path in GRIDS.glob('*.yaml')))
def test_every_grid_file_says_nothing_against_itself(name):
    grid = load_grid(name)
    rows = set(grid.in_tables())
    assert grid.cells() and all(set(contrast.cells) <= rows for contrast in grid.contrasts)
    named = [cell.encoder for cell in grid.cells() if cell.without_config]
    assert all('command' in grid.configs[name] for name in named)
    assert all((REPO / grid.config(cell)).is_file() for cell in grid.cells() if not cell.without_config)


@pytest.mark.parametrize('name, asked', [
    ('phantom', dict(lr=[3e-4, 6e-4])),  # which the file tunes
    ('phantom', dict(tables=['4c'])),
    ('phantom-lifting', dict(tables=['lifting', '4d'])),  # its tables are a mapping
    ('hippocampus', dict(tables=['4c'], seeds=[7])),
    ('hippocampus-dinov2', dict(folds=5)),
    ('recipe', dict(datasets=['hippocampus'], seeds=[7])),
])
def test_what_a_folder_keeps_of_a_call_is_read_as_the_grid_that_ran(tmp_path, name, asked):
    ran = load_grid(name, **asked)
    (tmp_path / 'grid.yaml').write_text(f'# python benchmarks/run_grid.py --grid {name}\n{ran.text}')
    kept = load_grid(str(tmp_path / 'grid.yaml'))
    assert {*ran.cells()} <= {*kept.cells()} and {*ran.seeds} <= {*kept.seeds}
    assert ran.tables.items() <= kept.tables.items() and ran.free == kept.free
    of_both = ('title', 'notes', 'datasets', 'folds', 'options', 'tune', 'search_seed', 'search_steps', 'equal')
    assert all(getattr(ran, part) == getattr(kept, part) for part in of_both)
    assert not ('folds' in asked and kept.notes)  # they are of the paper's split


def test_every_axis_has_a_flag(tmp_path):
    values = dict(encoder='timm/deit_tiny_patch16_224', source='none', inflation='average', slices='3', stride='2',
                  target='all', lr='1e-3', steps='9', neighbour_lr='0.10', train_percent='25',
                  lifting='kernel', tuning='lora(8)')
    assert set(values) == set(AXES)
    flags = [word for name, value in values.items() for word in (AXES[name].flag, value)]
    output = run(tmp_path, *flags, '--dry-run')
    assert 'phantom-timm_deit_tiny_patch16_224-none-random-s3-t2-all-lr0.001-n9-r0.1-p25-lora(8) ' in output
    assert 'experiment.lr=0.001' in output and 'experiment.target=all' in output
    assert '1 cells' in output
    usage = run(tmp_path, '--help')
    assert all(axis.flag in usage for axis in AXES.values())


def test_each_encoder_starts_from_a_source_of_its_own(tmp_path):
    grid = load_grid('bcv', encoder=['beit', 'swin'], slices=[5])
    assert [(cell.encoder, cell.source) for cell in grid.cells()] == [('beit', 'beit'), ('swin', 'swin')]
    both = load_grid('bcv', encoder=['beit', 'swin'], source=['beit', 'swin', 'none'])
    assert len(both.cells()) == 4
    with pytest.raises(UserError, match="source 'swin' is for encoder 'swin'"):
        load_grid('bcv', source=['swin'])


def test_a_cell_that_names_no_encoder_has_the_first_configs(tmp_path):
    path = str(grid_file(tmp_path, configs=dict(deit='configs/swin_centering_phantom.py', swin='configs/b.py')))
    assert [(cell.encoder, cell.slices) for cell in load_grid(path).cells()] == [('deit', 1), ('deit', 3)]
    grid = load_grid(path, ['4d'])
    assert {grid.config(cell) for cell in grid.cells()} == {'configs/swin_centering_phantom.py'}
    assert {cell.encoder for cell in load_grid(path, encoder=['swin'], slices=[1, 3]).cells()} == {'swin'}


def test_sources_are_made_once_each_after_what_they_start_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = load_grid('phantom-sources')
    grid.absent = find_absent(grid, tmp_path)  # no photographs
    runs = list_runs(grid, tmp_path / 'weights', None)
    plan = make_agenda(grid, runs, tmp_path / 'weights', [tmp_path / 'out'], False)
    jobs = plan.sources
    assert [job.name for job in jobs] == ['dino_layout', 'dino_layout_sl', 'dino_phantom', 'layout', 'layout_swin']
    assert [job.needs for job in jobs] == [None, 'dino_layout', None, None, None]
    assert jobs[1].options['experiment.source'] == str(tmp_path / 'weights/mini_beit_dino_layout.pth')
    # dino_layout and dino_phantom are one recipe on two datasets
    assert len({job.digest for job in jobs}) == 5
    assert not list(tmp_path.iterdir())
    prepare_sources(plan)
    assert (tmp_path / 'data/prepared/layout/index.json').is_file()


def test_another_dataset_is_another_grid():
    grid = load_grid('phantom', datasets=['hippocampus'])
    assert 'phantom' in grid.title and 'hippocampus' in grid.title and not grid.notes
    assert grid.name == 'phantom-hippocampus' and {cell.dataset for cell in grid.cells()} == {'hippocampus'}
    assert yaml.safe_load(grid.text)['dataset'] == 'hippocampus'


@pytest.mark.parametrize('changes, message', [
    (dict(datasets=['bcv']), 'one of the two'), (dict(dataset=None, datasets='bcv'), 'datasets: .first'),
    (dict(dataset=['bcv', 'acdc']), 'or datasets: .first'), (dict(dataset=None), 'one of the two'),
    (dict(axes=dict(dataset=['bcv', 'acdc'])), 'unknown axis'), (dict(dataste='bcv'), 'did you mean .dataset'),
    (dict(tables=['2c']), 'unknown table'),
    (dict(axes=dict(slice=[1])), 'did you mean .slices'), (dict(imports=['no_such_module']), 'no_such_module'),
    (dict(sources=dict(a=dict(file='x'))), 'encoder'),
    (dict(source='biet'), 'unknown source'),
    (dict(axes=dict(inflation=['centring'])), 'did you mean .centering'),
    (dict(axes=dict(slices=5)), 'write it as'),
    (dict(seeds=5), 'seeds: .first'), (dict(tables='2a'), 'tables: .first'),
    (dict(axes=dict(slices=['five'])), 'whole'),
    (dict(tables=['2a'], rows={'2a': {'Mine': 5}}), 'axis: value'),
    (dict(tables={'2a': dict(rows=dict(a={}))}), 'there is a table of this name'),
    (dict(tables=dict(depth=dict(row={}))), "did you mean 'rows'"),
    (dict(tables=dict(cost=dict(rows=dict(a={})))), 'there is a table of this name'),
    (dict(tables=dict(depth=dict(rows={'a\nb': {}}))), 'cannot be a row'),
    (dict(tables=['4d'], rows={'4d': {None: dict(slices=7)}}), 'None cannot be a row'),
    (dict(tables=dict(depth=dict(rows=dict(a={}), by='organs', labels='all'))), 'leave one out'),
    (dict(tables=dict(depth=dict(rows=dict(a=dict(slices=1)), axis='stride'))), 'set by none of its rows'),
    (dict(tables=dict(depth=dict(rows=dict(a={})), Depth=dict(rows=dict(a={})))), 'could be one file'),
    (dict(tables=dict(depth=dict(rows={}))), 'has no rows; write them as'),
    (dict(tables=dict(depth=dict(rows=dict(flat=dict(slices=1)), against='deep'))), "unknown against 'deep'"),
    (dict(tables=dict(depth=dict(rows=dict(flat=dict(slice=1))))), "row 'flat': unknown axis 'slice'"),
    (dict(tables=dict(depth=dict(rows=dict(flat={}), labels='al'))), "unknown labels 'al'; did you mean 'all'")])
def test_a_misspelt_grid_is_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_grid(str(grid_file(tmp_path, **changes)))


@pytest.mark.parametrize('option, value, setter', [
    ('experiment.seed', 7, 'seeds'), ('experiment.slices', 3, 'axis slices'),
    ('experiment.stride', 2, 'axis stride'), ('experiment.target', 'all', 'axis target'),
    ('experiment.inflation', 'average', 'axis inflation'),
    ('experiment.source', 'x.pth', 'axis source'), ('experiment.encoder', 'deit_tiny_patch16_224', 'axis encoder'),
    ('experiment.data_root', 'x', 'dataset'), ('randomness.seed', 7, 'seeds'), ('load_from', 'x.pth', 'source'),
    ('model.backbone.slices', 3, 'axis slices'), ('train_dataloader.dataset.data_root', 'x', 'dataset'),
    ('custom_imports.imports', ['x'], 'imports'), ('resume', True, 'name'),
    ('train_dataloader.batch_size', 2, 'experiment.batch'), ('train_cfg.max_iters', 2, 'experiment.steps'),
    ('optim_wrapper.optimizer.lr', 2, 'experiment.lr'), ('experiment.sede', 7, 'seed')])
def test_what_the_grid_sets_is_no_option(tmp_path, option, value, setter):
    for options in ({option: value}, {option.split('.')[0]: {option.partition('.')[2]: value}} if '.' in option
                    else {option: value}):
        with pytest.raises(UserError, match=f"options: .*{option}'? ?.*{setter}"):
            load_grid(str(grid_file(tmp_path, options=options)))


def test_a_rate_is_an_option_or_an_axis(tmp_path):
    options = {'experiment.lr': 0.1}
    assert load_grid(str(grid_file(tmp_path, options=options))).options == options
    with pytest.raises(UserError, match='options: experiment.lr is set by axis lr of the grid'):
        load_grid(str(grid_file(tmp_path, options=options, axes=dict(lr=[0.1, 0.2]))))


def test_a_config_with_options_of_its_own_is_the_same_model(tmp_path):
    """It starts from its file's sources, its options reach its runs alone, and make them other runs."""
    file, decay = 'configs/beit_centering_phantom.py', {'optim_wrapper.optimizer.weight_decay': 0.1}
    grid = load_grid(str(grid_file(
        tmp_path, dataset='phantom', source='layout', axes=dict(encoder=['beit', 'strong', 'same']), configs=dict(
            beit=file, strong=dict(file=file, options=decay | {'experiment.batch': 4}),
            same=dict(file=file, options={'experiment': {'batch': 2}})))))
    assert {cell.source for cell in grid.cells()} == {'layout'} and set(map(grid.config, grid.cells())) == {file}
    beit, strong, same = (make_run(grid, cell, 1, tmp_path, None) for cell in grid.cells())
    assert strong.options == beit.options | decay | {'experiment.batch': 4} and same.options == beit.options
    assert beit.identity == same.identity != strong.identity and beit.name != same.name
    assert 'optim_wrapper.optimizer.weight_decay=0.1' in strong.command()
    for options, message in (({'experiment.slices': 3}, 'is set by axis slices of the grid'),
                             ({'experiment.stpes': 3}, "did you mean 'steps'"),
                             ({'experiment.steps': 3, 'experiment': {'steps': 3}}, 'stands twice')):
        with pytest.raises(UserError, match=f'tiny.yaml: configs.beit.options: .*{message}'):
            load_grid(str(grid_file(tmp_path, configs=dict(beit=dict(file=file, options=options)))))
    for config in (dict(file=file), dict(options={}), dict(command='./a {out}', file=file)):
        with pytest.raises(UserError, match='configs.beit needs a file, file and options, a command'):
            load_grid(str(grid_file(tmp_path, configs=dict(beit=config))))


@pytest.mark.parametrize('changes, message', [
    (dict(seeds=[1, 2, 1]), 'seeds has 1 twice'), (dict(axes=dict(slices=[3, 3])), "axis 'slices' has 3 twice"),
    (dict(tables=['2a', '2a']), "tables has '2a' twice"), (dict(seeds=[]), 'seeds is empty'),
    (dict(dataset=None, datasets=['bcv', 'bcv'], tables=['5']), "datasets has 'bcv' twice"),
    (dict(axes=dict(slices=[])), "axis 'slices' is empty"), (dict(axes=None), 'no cells|tables|axes')])
def test_nothing_counts_twice_and_no_grid_is_empty(tmp_path, changes, message):
    with pytest.raises(UserError, match=f'tiny.yaml: .*({message})'):
        load_grid(str(grid_file(tmp_path, **changes)))


@pytest.mark.parametrize('rows, message', [
    (['flat', 'dep'], "unknown row 'dep'; did you mean 'deep'"), (['flat'], 'depth: has 1 rows'),
    (['flat', 'left flat'], "'flat' and 'left flat' are one cell"), (['flat', [1]], 'depth.1. cannot be'),
    (['flat', 'whole deep'], 'tables left and whole are of other labels')])
def test_a_contrast_that_cannot_be_is_one_line(tmp_path, rows, message):
    tables = {name: dict(rows=dict(flat=dict(slices=1), deep={}), labels=labels)
              for name, labels in (('left', 'headline'), ('whole', 'all'))}
    with pytest.raises(UserError, match=f'tiny.yaml: contrasts.*{message}'):
        load_grid(str(grid_file(tmp_path, axes=None, tables=tables, contrasts=dict(depth=rows))))


def test_contrasts_are_read_with_the_labels_of_their_tables(tmp_path):
    tables = dict(left=dict(rows={'flat': dict(slices=1), 'deep': {}, 3: dict(slices=3)}, labels='all'),
                  more=dict(rows={3: dict(slices=9), 'flat': dict(slices=1)}, labels='all'))
    contrasts = {'depth': ['deep', 'flat'], 'more of it': ['more 3', 'left 3']}
    path = str(grid_file(tmp_path, axes=None, tables=tables, contrasts=contrasts))
    grid = load_grid(path)
    depth, more = grid.contrasts
    assert (depth.name, depth.first, depth.second, depth.labels, depth.table) == (
        'depth', 'deep', 'flat', 'all', 'left')
    assert [cell.slices for cell in more.cells] == [9, 3] and more.registered and more.table == ''
    assert [each.name for each in load_grid(path, tables=['left']).contrasts] == ['depth']  # of what is there
    assert load_grid(path, slices=[1, 3]).contrasts == []
    for asked in (dict(tables=['left']), dict(slices=[1, 3]), dict(tables=['4d', 'left'])):
        part = load_grid(path, **asked)  # its runs say what is registered
        assert [each.name for each in part.registered] == [*contrasts]
        assert part.contrast_keys(more.cells[1]) == grid.contrast_keys(more.cells[1]) == [more.key]
    contrasts['the same'] = ['left flat', 'left deep']
    with pytest.raises(UserError, match="contrasts: the same: is of the same two cells as 'depth'"):
        load_grid(str(grid_file(tmp_path, axes=None, tables=tables, contrasts=contrasts)))


@pytest.mark.parametrize('changes, message', [
    (dict(source='m', sources=dict(m=dict(file='x.pth', encoder='nope'))), "source 'm' is for encoder 'nope'"),
    (dict(source='dino'), "source 'dino' is for encoder 'dino', not 'beit'"),
    (dict(sources=dict(none=dict(file='x.pth', encoder='beit'))), "'none' is the word for random weights"),
    (dict(tables=['2a'], rows={'4d': {'X': dict(slices=3)}}), "rows of table '4d', which is not one of"),
    (dict(rows={'2a': {'X': dict(slices=3)}}), "rows of table '2a', which is not one of its tables"),
    (dict(tables=['2a'], rows={'2a': {'Oursss': None}}), "no row 'Oursss' to take away; did you mean 'Ours'"),
    (dict(options={'experiment.steps': 3, 'experiment': {'steps': 4}}), 'experiment.steps stands twice'),
    (dict(axes=dict(slices=[1, True])), 'slices is True; it must be'),
    (dict(axes=dict(inflation=['mean'])), "axes: unknown inflation 'mean'")])
def test_what_a_grid_says_is_not_passed_over(tmp_path, changes, message):
    with pytest.raises(UserError, match=f'tiny.yaml: .*{message}'):
        load_grid(str(grid_file(tmp_path, **changes)))


def test_rates_that_differ_have_names_that_do():
    assert len({str(Cell('phantom', lr=lr)) for lr in (1e-3, 1.0000001e-3, 1e-4)}) == 3


@pytest.mark.parametrize('module, message', [
    ('raise_it', 'which fails: ZeroDivisionError'), ('leave', 'which fails: SystemExit'), ('.x', 'which fails')])
def test_modules_that_cannot_be_imported_are_one_line(tmp_path, monkeypatch, module, message):
    (tmp_path / 'raise_it.py').write_text('1 / 0')
    (tmp_path / 'leave.py').write_text('import sys\nsys.exit(0)')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"tiny.yaml: imports '{module}', {message}"):
        load_grid(str(grid_file(tmp_path, imports=[module])))


@pytest.mark.parametrize('name, message', [('vit_huge_nothing', 'did you mean'), ('resnet50', 'resnet50')])
def test_a_timm_model_that_cannot_be_is_said_before_anything_is_run(tmp_path, name, message):
    output = run(tmp_path, '--encoders', f'timm/{name}', '--slices', '1', '--dry-run', check=2)
    assert f'error: encoder timm/{name}: ' in output and message in output and 'Traceback' not in output


@pytest.mark.parametrize('option, value', [
    ('--seeds', '1'), ('--slices', '3'), ('--tables', '2a'), ('--dataset', 'a'), ('--grid', 'phantom'),
    ('--encoders', 'beit'), ('--sbatch', 'a=b')])
def test_nor_on_the_command_line(monkeypatch, option, value):
    monkeypatch.setattr(sys, 'argv', ['run_grid.py', option, value, value])
    with pytest.raises(UserError, match=f"{option} has '?{value}'? twice; leave one out"):
        run_grid.main()


def test_a_grid_on_an_empty_split_is_one_line(tmp_path):
    write_msd(tmp_path / 'data' / 'Task04_Hippocampus', cases=1)
    output = run(tmp_path, '--grid', str(grid_file(tmp_path)), check=2)
    assert "split 'train' (experiment.split) has no cases" in output and 'Traceback' not in output
    assert not list(tmp_path.glob('work_dirs/grids/*/records/*'))


def test_a_grid_over_several_datasets_takes_some_of_them():
    grid = load_grid('generalization', datasets=['spleen', 'heart'])
    assert grid.name == 'generalization' and grid.datasets == ['heart', 'spleen']
    rows = [('beit', 1), ('beit', 5), ('swinunet', 1), ('unetr', None), ('nnunet_3d', None)]
    assert [(cell.dataset, cell.encoder, cell.slices) for cell in grid.cells()] == [
        (dataset, *row) for dataset in ('heart', 'spleen') for row in rows]
    assert grid.config(grid.cells()[len(rows)]) == 'configs/beit_centering_spleen.py'
    with pytest.raises(UserError, match="no dataset 'spelen'; did you mean 'spleen'"):
        load_grid('generalization', datasets=['spelen'])
    with pytest.raises(UserError, match="is of one dataset, not heart, spleen; list several under 'datasets'"):
        load_grid('phantom', datasets=['heart', 'spleen'])


def test_a_misspelt_dataset_is_one_line(tmp_path):
    output = run(tmp_path, '--grid', str(grid_file(tmp_path, dataset='hipocampus')), '--dry-run', check=2)
    assert 'Traceback' not in output and "did you mean 'hippocampus'" in output


def test_missing_data_stops_with_one_line(tmp_path):
    output = run(tmp_path, '--grid', 'bcv', '--data-root', 'archives', check=2)
    assert 'Traceback' not in output and 'archives/BCV/RawData' in output.strip().splitlines()[-1]


def test_a_source_is_the_file_that_its_hash_is_of(place):
    (place / 'weights').mkdir()
    (place / 'weights/x.pth').write_bytes(b'other')
    grid = grid_file(place, source='m', sources=dict(m=dict(file='x.pth', encoder='beit', sha256='0' * 64)))
    output = run(place, '--grid', str(grid), check=2)
    assert 'weights/x.pth: its sha256 is ' in output and 'Traceback' not in output


def test_dry_run_lists_every_cell_without_data(tmp_path):
    output, grid = run(tmp_path, '--grid', 'bcv', '--dry-run'), load_grid('bcv')
    configs = sum(not cell.without_config for cell in grid.cells())
    assert output.count('/tools/train.py') == configs == 32 and '(missing: ' in output
    assert output.count('    left out') == len(grid.cells()) - configs and '.venv-nnunet: not found' in output


def test_grid_end_to_end_skips_what_is_done_and_repeats_what_was_deleted(place):
    options = {'experiment.batch': 2, 'experiment.checkpoint_interval': 2, 'train_dataloader.num_workers': 1}
    arguments = ['--grid', str(grid_file(place, options=options)), '--max-iters', '3']
    output = run(place, *arguments)
    out = place / 'work_dirs/grids/tiny-3-steps'
    page = place / output.strip().splitlines()[-1]
    assert page.is_file() and 'tiny' in page.read_text()
    rows = (out / 'tables/table_free.csv').read_text().splitlines()
    assert rows[0].startswith('slices,DSC pooled') and [row.split(',')[0] for row in rows[1:]] == ['1', '3']
    assert (out / 'figures/free_slices.png').stat().st_size > 5000
    records, torn = read_records(out)
    assert [r['state'] for r in records] == ['done', 'done'] and not torn
    assert records[0]['scores']['cases'] and records[0]['cost']['flops'] > 0
    shown, drawn = (np.load(out / 'predictions' / f'{name}.npz') for name in ('hippocampus', records[0]['run']))
    assert shown['image'].shape == shown['label'].shape == drawn['prediction'].shape == (5, 21, 18)
    assert str(shown['case']) in records[0]['scores']['cases']
    assert np.ptp(shown['slices']) == 4 and shown['label'].any()
    stamps = {path: path.stat().st_mtime_ns for path in (out / 'records').iterdir()}
    assert '0 to do' in run(place, *arguments)
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / 'records').iterdir()}
    gone = sorted(stamps)[0]
    gone.unlink()
    assert '1 to do' in run(place, *arguments)
    assert gone.exists()
    # the same cells by another recipe: what was there is no longer these runs', whichever seeds are asked for
    grid_file(place, options=options | {'experiment.lr': 1e-4})
    assert '2 records of an earlier config or data set aside' in run(place, *arguments, '--seeds', '8')
    assert len(list((out / 'records').iterdir())) == 2 and not gone.exists()
    assert len(list((out / 'predictions').iterdir())) == 3 and len(list((out / 'superseded').iterdir())) == 4
    # and back: nothing is trained again
    grid_file(place, options=options)
    output = run(place, *arguments)
    assert '2 finished, 0 to do' in output and '2 records of an earlier config' in output
    assert {path: path.stat().st_mtime_ns for path in (out / 'records').iterdir()}.keys() == stamps.keys()
    assert len(list((out / 'predictions').iterdir())) == 3
    assert 'has the runs of the grid itself' in run(
        place, *arguments, '--out', str(REPO / 'results/phantom'), check=2)


def test_a_second_runner_leaves_with_one_line(place):
    path = grid_file(place)
    with only_writer(place / 'work_dirs/grids/tiny-2-steps'):
        output = run(place, '--grid', str(path), '--max-iters', '2', check=2)
    assert 'another process is at work here' in output
    assert not (place / 'work_dirs/grids/tiny-2-steps/grid.yaml').exists()


def test_a_failed_run_is_recorded_while_the_rest_goes_on(place):
    config = str(REPO / 'configs/mini_beit_centering_hippocampus.py')
    broken = place / 'broken.py'
    broken.write_text(f'_base_ = {config!r}\nmodel = dict(backbone=dict(sizes=dict(patch_size=7)))\n')
    path = grid_file(place, configs=dict(beit=config, broken=str(broken)),
                     axes=dict(encoder=['broken', 'beit'], slices=[1]))
    arguments = ['--grid', str(path), '--max-iters', '2']
    with only_writer(place / 'work_dirs/grids/tiny'):  # the grid itself is at work, beside which this is tried out
        output = run(place, *arguments, check=1)
    records, _ = read_records(place / 'work_dirs/grids/tiny-2-steps')
    assert {record['cell']['encoder']: record['state'] for record in records} == dict(broken='failed', beit='done')
    assert '1 runs failed' in output and '--retry-failed' in output
    assert 'tiny: 2 runs, 1 finished, 1 failed (--retry-failed runs them again), 0 to do' in run(
        place, *arguments, check=1)  # a script that calls until all is well must not take it for done
    assert 'tiny: 2 runs, 1 finished, 1 to do' in run(place, *arguments, '--retry-failed', check=1)


def test_a_byte_order_mark_is_no_part_of_a_grid_file(tmp_path):
    (tmp_path / 'tiny.yaml').write_text(grid_file(tmp_path).read_text(), encoding='utf-8-sig')
    text = load_grid(str(tmp_path / 'tiny.yaml')).text
    (tmp_path / 'grid.yaml').write_text(f'# python benchmarks/run_grid.py --grid tiny.yaml\n{text}')
    assert load_grid(str(tmp_path / 'grid.yaml')).given('--grid') == ['tiny.yaml']


def test_a_killed_run_resumes_and_ends_as_if_it_had_not_been(place):
    path = grid_file(place, axes=dict(slices=[3]))
    arguments = ['--grid', str(path), '--max-iters', '8']
    run(place, *arguments, '--out', 'whole')
    [whole] = read_records(place / 'whole')[0]
    assert whole['cost']['trained_parameters'] == whole['cost']['parameters']  # all of them
    # forget the run, start it again, and kill everything once it has a checkpoint
    work = next((place / 'work_dirs/grids/tiny-8-steps/runs').iterdir())
    assert (work / 'weights.pth').exists() and not list(work.glob('iter_*.pth'))  # moments would fill the disk
    shutil.rmtree(work)
    process = children.start(children.grid, place, [*arguments, '--workers', '1', '--out', 'killed'], group=True)
    wait_for(lambda: list(work.glob('iter_*.pth')), 120, 'a checkpoint')
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert not list((place / 'killed').glob('records/*.json'))
    run(place, *arguments, '--out', 'killed')
    [resumed] = read_records(place / 'killed')[0]
    assert resumed['cost']['resumed_from'] >= 2
    assert resumed['identity'] == whole['identity']
    assert resumed['scores'] == whole['scores']


def test_a_newcomers_figures_agree_within_seed_noise():
    committed = Value({1: 50.0, 2: 51.0, 3: 52.0})
    assert agreement(Value({1: 51.5, 2: 52.5}), committed) == 'yes'
    assert agreement(Value({1: 55.0, 2: 56.0}), committed) == 'no'
    assert agreement(Value(), committed) == 'cannot tell'


def test_committed_results_render_to_the_committed_bytes():
    pinned = re.search(r'^matplotlib==([^;]+)', (REPO / 'constraints.txt').read_text(), re.M)[1]
    if matplotlib.__version__ != pinned:
        pytest.skip(f'figures are committed as matplotlib {pinned} draws them, here is {matplotlib.__version__}')
    result = children.run([sys.executable, REPO / 'benchmarks/report.py', '--check'])
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'results/phantom: ' in result.stdout
    for path in (REPO / 'README.md', *(REPO / 'docs').glob('*.md')):
        text = path.read_text()
        for name in re.findall(r'<!-- (results/\S+\.md) -->', text):
            assert (REPO / name).read_text() in text, f'{path} shows an older {name}'
