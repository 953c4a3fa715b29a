"""What tables tell of the data against slow references, and grids over several datasets."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPO, write_msd
from made_records import failed, record, write
from test_grid import grid_file, run
from test_layouts import write_acdc

from benchmarks.grid.axes import Cell
from benchmarks.grid.reader import load_grid
from benchmarks.grid.tables import TABLES
from benchmarks.paper.published import published_data
from benchmarks.rendering.contrasts import find_cell
from benchmarks.rendering.figures import free_plot
from benchmarks.rendering.frame import Measured
from benchmarks.rendering.markup import to_latex
from benchmarks.rendering.tables import build_table, cost_table, data_table, free_table, relative_time
from benchmarks.report import draw_index, render
from benchmarks.runs.agenda import data_digest, list_runs, make_agenda
from benchmarks.runs.inputs import find_archives, prepare_inputs
from benchmarks.runs.records import read_records, read_summaries
from mmseg_plugins.datasets import CATALOGUE, read_index
from mmseg_plugins.datasets.layouts import describe_folder
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.statistics import label_statistics, summarize_dataset
from mmseg_plugins.errors import UserError
from mmseg_plugins.faults import GPU, PROCESS


def finished(cell, seed=1, dsc=(99.0, 60.0, 70.0), labels=('background', 'Anterior', 'Posterior'), headline=(),
             **changes):
    return record(cell, seed, dsc, labels, headline, data=dict(input_size=[64, 48]), **changes)


def slow_statistics(labels: list[np.ndarray], label: int) -> tuple[int, int, float]:
    """Voxels, slices and mean Dice of neighbouring slices of (X, Y, Z) label maps, as the paper words it."""
    voxels, slices, dice = 0, 0, []
    for volume in labels:
        planes = [{(x, y) for x, y in zip(*np.nonzero(volume[:, :, z] == label), strict=True)}
                  for z in range(volume.shape[2])]
        voxels += sum(map(len, planes))
        slices += sum(map(bool, planes))
        dice += [200 * len(here & after) / (len(here) + len(after))
                 for here, after in zip(planes, planes[1:], strict=False) if here or after]
    return voxels, slices, float(np.mean(dice))


@pytest.mark.parametrize('told, title', [
    ([None], 'NSD 2 mm'), ([[1.0, 1.0]], 'NSD 1 mm'), ([[2.5, 5.0], [3.0, 3.0]], 'NSD 2.5 to 5 mm')])
def test_a_title_tells_the_tolerance_of_its_figures(told, title):
    """A record from before there was one to tell is of 2 mm."""
    grid = load_grid('phantom', slices=[1])
    [cell] = grid.cells()
    made = [record(cell, seed, figures=dict(nsd=[[None, 90.0, 91.0]] * 8),
                   data={} if one is None else dict(nsd_tolerance=one)) for seed, one in enumerate(told)]
    table, caption = free_table(Measured(made), grid)
    assert [heading for heading in table if 'NSD' in heading] == [title] and 'NSD is at' not in caption


def test_where_voxel_sizes_are_nominal_a_table_has_nothing_in_mm_and_says_why():
    grid = load_grid('phantom', slices=[1])
    [cell] = grid.cells()
    measured = Measured([record(cell, data=dict(nominal_spacing=True))])
    table, caption = free_table(measured, grid)
    assert not [heading for heading in table if 'HD95' in heading or 'NSD' in heading]
    assert not measured.tolerances()
    assert 'nothing is told in mm, as voxel sizes of phantom are nominal' in caption


def test_over_several_datasets_the_caption_tells_each_ones_tolerance():
    cells = [Cell('phantom', slices=1), Cell('hippocampus', slices=1)]
    figures = dict(nsd=[[None, 90.0, 91.0]] * 8, hd95=[[None, 1.0, 2.0]] * 8)
    made = [record(cell, figures=figures, data=dict(nsd_tolerance=tolerance))
            for cell, tolerance in zip(cells, ([12.0, 12.0], [1.0, 1.0]), strict=True)]
    table, caption = free_table(Measured(made), load_grid('phantom', slices=[1]))
    assert 'NSD 1 to 12 mm' in table and 'NSD is at 12 mm (phantom), 1 mm (hippocampus)' in caption


def test_data_tables_against_a_slow_reference(tmp_path):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=21)
    prepare_dataset('hippocampus', raw, tmp_path / 'hippocampus')
    index = read_index(tmp_path / 'hippocampus')
    summary = summarize_dataset(index)
    evaluated = [np.asarray(nib.load(raw / 'labelsTr' / f'{case}.nii.gz').dataobj)
                 for case in index['split']['test']]
    assert len(evaluated) == 2
    for label in (1, 2):
        voxels, slices, variation = slow_statistics(evaluated, label)
        assert (summary['voxels'][label], summary['slices'][label]) == (voxels, slices)
        assert summary['variation'][label] == pytest.approx(variation, abs=1e-3)

    grid = load_grid('hippocampus')
    cells = grid.cells()
    measured = Measured([finished(cells[2]), finished(cells[3])], {'hippocampus': summary})
    ours, paper = data_table(measured, grid, published_data()).to_dict('records')
    assert ours == {'Data': 'hippocampus', 'figures': 'measured', 'modality': 'MRI', 'raw size': '18x21x6',
                    'input size': '48x64x1..5', 'labels': '2', 'train': '16', 'val': '3', 'test': '2',
                    'split': index['split_hash']}
    assert paper == {'Data': 'hippocampus', 'figures': 'paper', 'modality': 'MRI', 'raw size': '34x49x36',
                     'input size': '240x240x5', 'labels': '2', 'train': '208', 'val': '39', 'test': '13',
                     'split': '—'}
    lower = build_table(grid.tables['3'], measured, grid).set_index('Method')
    assert list(lower.index[-3:]) == ['# voxels', '# slices', 'slice variation']
    assert lower.loc['# voxels', 'Anterior'] == f'{summary["voxels"][1]:,}'
    assert lower.loc['slice variation', 'Posterior'] == f'{slow_statistics(evaluated, 2)[2]:.2f}'
    assert r'\# voxels' in to_latex(lower.reset_index(), 'Table 3')


def test_the_papers_organ_statistics_stand_below_bcvs_organs():
    grid = load_grid('phantom')
    label = np.random.default_rng(0).integers(0, 13, (5, 8, 8))  # never 13, the left adrenal gland
    facts = label_statistics(label, 14)
    info = CATALOGUE['phantom']
    summary = summarize_dataset(dict(
        dataset='phantom', labels=info.labels, headline=[*info.headline, 13], split=dict(val=['a']),
        evaluate='val', cases=dict(a=dict(facts, shape=(5, 1, 8, 8)))))
    made = finished(grid.cells()[0], dsc=[50.0] * 14, labels=info.labels, headline=info.headline)
    table = build_table(grid.tables['3'], Measured([made], dict(phantom=summary)), grid)
    table = table.set_index(['Method', 'figures'])
    assert table.loc[('# voxels', 'paper (BCV)'), 'aorta'] == '441,936'
    assert table.loc[('slice variation', 'paper (BCV)'), 'gallbladder'] == '69.84'
    assert table.loc[('# slices', 'measured'), 'aorta'] == '5'
    assert summary['variation'][13] is None and summary['mean_variation'] is not None
    # a folder from before there were summaries
    assert '# voxels' not in set(build_table(grid.tables['3'], Measured([made]), grid)['Method'])


def test_acdc_is_counted_in_patients(tmp_path):
    prepare_dataset('acdc', write_acdc(tmp_path / 'ACDC'), tmp_path / 'acdc')
    summary = summarize_dataset(read_index(tmp_path / 'acdc'))
    assert summary['cases'] == dict(train=14, val=2, test=4) and summary['groups'] == dict(train=7, val=1, test=2)
    assert len(summary['patients']) == 20 and len(set(summary['patients'].values())) == 10
    other = summarize_dataset(read_index(tmp_path / 'acdc'), evaluated='val')  # whose patients they are as well
    assert other['patients'] == summary['patients'] and sum(other['slices']) < sum(summary['slices'])
    grid = load_grid('generalization')
    table = data_table(Measured([], dict(acdc=summary)), grid, published_data())
    ours, paper, missing, *_ = table.to_dict('records')
    assert (ours['train'], ours['val'], ours['test']) == ('7', '1', '2')
    assert (paper['train'], paper['val'], paper['test']) == ('70', '10', '20')
    assert (ours['modality'], paper['modality']) == ('MRI', 'CT')  # as it is, and as the paper has it
    assert missing['Data'] == 'brain' and missing['modality'] == 'not prepared' and missing['train'] == '—'


def test_costs_tell_what_was_trained_where_that_is_not_all():
    grid = load_grid('phantom')
    cells = [grid.tables['2a'].rows[row] for row in ('Ours', 'Ours w/o D')]
    assert 'trained (M)' not in cost_table(Measured([finished(cell) for cell in cells]), grid, {})
    partly = finished(replace(cells[0], tuning='frozen'), cost=dict(trained_parameters=150_000))
    table = cost_table(Measured([finished(cells[1]), partly]), grid, {})
    assert sorted(table['trained (M)']) == ['0.15', '0.60'] and set(table['parameters (M)']) == {'0.60'}


def test_memory_is_of_the_runs_that_measured_their_own():
    grid = load_grid('phantom')
    ours = grid.tables['2a'].rows['Ours']

    def peak(*kinds: str, folds: int = 0) -> str:
        runs = [finished(ours, 1 if folds else number, fold=(number - 1, folds) if folds else None,
                         scores=dict(cases=[f'case_{number}{i}' for i in range(8)],
                                     confusion=np.eye(3, dtype=int).tolist()),
                         cost=dict(memory_of=kind, peak_memory_mib=100 * number))
                for number, kind in enumerate(kinds, 1)]
        return cost_table(Measured(runs), grid, {})['peak MiB'].item()

    shared = 'worker process, all its runs so far'
    assert (peak(PROCESS, PROCESS), peak(PROCESS, shared), peak(GPU, GPU)) == ('200', '100', '200')
    assert peak(shared, shared) == peak(PROCESS, GPU) == '—'
    assert peak(PROCESS, shared, folds=2) == '100' and peak(PROCESS, PROCESS, folds=2) == '200'


def test_names_along_an_axis_are_not_joined():
    grid = load_grid('phantom')
    ours = grid.tables['2a'].rows['Ours']
    for axis, values, line in (('lifting', ('kernel', 'late', 'joint(2)'), 'None'), ('slices', (3, 5, 7), '-')):
        cells = [replace(ours, **{axis: value}) for value in values]
        figure = free_plot(axis, cells, Measured([finished(cell) for cell in cells]))
        assert {drawn.get_linestyle() for drawn in figure.axes[0].lines if len(drawn.get_xdata()) == 3
                and drawn.get_marker() not in '_|'} == {line}


def test_table_5_shows_what_was_run_and_what_was_not():
    grid = load_grid('generalization')
    (flat, ours, swinunet, *_), of_spleen = (
        load_grid('generalization', datasets=[name]).cells() for name in ('heart', 'spleen'))
    records = [finished(flat, 1, (99, 60, 70)), finished(flat, 2, (99, 62, 72)), finished(ours),
               finished(of_spleen[0], 1, (99, 80.0), labels=['background', 'spleen']), failed(of_spleen[1]),
               finished(swinunet, 1, (99, 50, 52))]
    data = dict(heart=dict(mean_variation=70.5))
    table = build_table(grid.tables['5'], Measured(records, data), grid)
    assert list(table) == ['Method', 'figures', *grid.datasets, 'average of 1']
    table = table.set_index(['Method', 'figures'])
    assert list(table.index) == [
        (name, kind) for name, paper in {'Ours w/o D': 'paper', 'Ours': 'paper', 'SwinUNet': 'paper, per case',
                                         'UNETR': 'paper', 'nnUNet': 'paper'}.items()
        for kind in ('pooled', 'case', paper)] + [('slice variation', 'measured')]
    pooled = table.loc[('Ours w/o D', 'pooled')]
    assert pooled['heart'] == '66.00 ± 1.41' and pooled['spleen'] == '80.00' and pooled['acdc'] == 'not run'
    assert pooled['average of 1'] == '66.00'  # heart alone has what others stand against
    assert table['average of 1'].xs('pooled', level='figures').to_dict() == {
        'Ours w/o D': '66.00', 'Ours': '65.00', 'SwinUNet': '51.00', 'UNETR': '—', 'nnUNet': '—'}
    assert table.loc[('Ours', 'pooled'), 'spleen'] == 'failed'
    assert table.loc[('Ours', 'paper'), ['acdc', 'average of 1']].tolist() == ['92.69', '90.78']
    swin = table.loc[('SwinUNet', 'paper, per case')]
    assert swin[['acdc', 'heart', 'average of 1']].tolist() == ['90.00', '—', '—']
    assert table.loc[('slice variation', 'measured'), ['acdc', 'heart']].tolist() == ['—', '70.50']


def test_a_runs_hash_covers_what_determines_its_result(prepared, tmp_path):
    index = read_index(prepared)
    case = next(iter(index['cases']))

    def digest(change=lambda index: None) -> str:
        changed = json.loads(json.dumps(index))
        change(changed)
        (tmp_path / 'index.json').write_text(json.dumps(changed))
        return data_digest(read_index(tmp_path))

    before = digest()
    assert digest(lambda index: index.update(remark='new')) == before
    assert digest(lambda index: index['cases'][case].update(orientation='RAS')) == before
    assert digest(lambda index: index['cases'][case].update(sha256='0')) != before
    assert digest(lambda index: index['cases'][case].update(spacing=[1, 1, 1])) != before
    assert digest(lambda index: index['split']['train'].pop()) != before
    assert digest(lambda index: index['intensity'].update(sound='maximum')) != before


def test_warnings_are_said_when_data_is_new_and_faults_as_long_as_they_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = write_msd(tmp_path / 'data' / 'Task04_Hippocampus', cases=10)
    (raw / 'imagesTr' / 'extra.nii.gz').write_bytes(b'')  # on disk, but not listed
    grid = load_grid(str(grid_file(tmp_path)))
    said = []
    progress = SimpleNamespace(say=said.append, counter=lambda title: lambda *_: None)

    def prepare() -> list[str]:
        said.clear()
        prepare_inputs(grid, find_archives(grid, Path('data')), Path('data'), Path('weights'), progress)
        return said

    assert any('extra.nii.gz' in line for line in prepare())
    assert prepare() == []
    (raw / 'imagesTr' / 'case_000.nii.gz').write_bytes(b'torn')
    assert any('case_000' in line for line in prepare())
    [fault] = prepare()
    assert 'case_000' in fault
    (tmp_path / 'data/prepared/hippocampus/index.json').unlink()
    with pytest.raises(UserError, match='faults in hippocampus .above.; mend them, or call again'):
        prepare()
    prepare()


def test_a_grids_modules_may_add_datasets(tmp_path, monkeypatch):
    (tmp_path / 'my_spine.py').write_text(
        'from mmseg_plugins.datasets import CATALOGUE, DatasetInfo\n\n'
        "CATALOGUE['spine'] = DatasetInfo('msd', 'Task99_Spine', 'CT', 'our hospital', 'none')\n")
    monkeypatch.syspath_prepend(tmp_path)
    grid = load_grid(str(grid_file(tmp_path, dataset='spine', imports=['my_spine'])))
    assert find_archives(grid, Path('data')) == {'spine': Path('data/Task99_Spine')}
    del CATALOGUE['spine']


def test_a_prepared_dataset_outside_the_catalogue_runs_in_a_grid(tmp_path):
    raw = write_msd(tmp_path / 'Task77_Mine', cases=10, channels=2)
    name, info = describe_folder(raw, 'msd')
    prepare_dataset(name, raw, tmp_path / 'data/prepared/mine', info=info)
    raw.rename(tmp_path / 'moved')  # the archive is no longer needed
    run(tmp_path, '--grid', str(grid_file(tmp_path)), '--dataset', 'mine', '--max-iters', '2', '--out', 'out')
    records, _ = read_records(tmp_path / 'out')
    index = read_index(tmp_path / 'data/prepared/mine')
    assert [record['state'] for record in records] == ['done', 'done']
    assert records[0]['data'] == dict(dataset='mine', split_hash=index['split_hash'], evaluated='test',
                                      trained='train', cases=dict(train=8, val=1, test=1), protocol='sound',
                                      input_size=[64, 64], nsd_tolerance=[3.0, 3.0])
    assert index['split_hash'] in (tmp_path / 'out/report.html').read_text()


def test_a_grid_over_several_datasets_end_to_end(tmp_path, monkeypatch):
    for folder, seed in (('Task04_Hippocampus', 0), ('Task09_Spleen', 1)):
        write_msd(tmp_path / 'data' / folder, cases=20, labels=3 - seed, seed=seed)
    path = grid_file(tmp_path, title='some')
    spec = yaml.safe_load(path.read_text())
    del spec['dataset'], spec['axes']
    path.write_text(yaml.safe_dump(spec | dict(
        datasets=['heart', 'hippocampus', 'spleen'], tables=[5], axes=dict(slices=[3]))))
    arguments = ['--grid', str(path), '--max-iters', '2']
    output = run(tmp_path, *arguments, check=2).strip().splitlines()[-1]
    assert 'heart (data/Task02_Heart)' in output and 'run the others with --dataset hippocampus spleen' in output
    run(tmp_path, *arguments, '--dataset', 'spleen', 'hippocampus')
    out = tmp_path / 'work_dirs/grids/tiny-2-steps'
    records, _ = read_records(out)
    assert len(records) == 6 and all(record['state'] == 'done' for record in records)
    assert list(read_summaries(out)[0]) == ['hippocampus', 'spleen']
    rows = [line.split(',') for line in (out / 'tables/table_5.csv').read_text().splitlines()]
    assert rows[0] == ['Method', 'figures', 'heart', 'hippocampus', 'spleen', 'average of 2']
    [ours] = [row for row in rows if row[:2] == ['Ours', 'pooled']]
    assert ours[2] == 'not run'
    assert float(ours[5]) == pytest.approx((float(ours[3]) + float(ours[4])) / 2, abs=0.01)
    assert 'not prepared' in (out / 'tables/table_1.csv').read_text()
    assert (out / 'tables/table_free.csv').read_text().startswith('dataset,DSC pooled')
    page = (out / 'report.html').read_text()
    assert '6 finished runs on hippocampus, spleen (of 3 datasets)' in page
    # all of it renders where the data is not
    monkeypatch.chdir(REPO)
    before = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
    render(out)
    assert before == {path: path.read_bytes() for path in before}
    grid = load_grid(str(path), datasets=['heart'])
    runs = list_runs(grid, tmp_path / 'weights', None)
    assert len(make_agenda(grid, runs, tmp_path / 'weights', [out], False).todo) == 3


def write_runs(folder: Path, spec: dict) -> str:
    """A result folder of a grid file with three seeds of every cell, each cell ten points above the last."""
    (folder / 'grid.yaml').write_text(yaml.safe_dump(spec, sort_keys=False))
    for number, cell in enumerate(load_grid(str(folder / 'grid.yaml')).cells()):
        for seed in (1, 2, 3):
            dsc = [99, *(40 + 10 * number + seed / 10 + i for i in range(4))]
            write(folder, record(cell, seed, dsc, per_case=[[value + (-1) ** case * number / 10 for value in dsc]
                                                            for case in range(8)]))
    return render(folder).read_text()


def test_a_table_of_several_rows_at_each_value_of_its_axis_is_drawn_against_it(tmp_path):
    rows = {f'{name}, {steps}': dict(steps=steps) | more for steps in (20, 5)
            for name, more in (('flat', dict(slices=1)), ('deep', {}))}
    page = write_runs(tmp_path, dict(
        dataset='phantom', configs=dict(beit='configs/beit_centering_phantom.py'), source='layout',
        tables=dict(budgets=dict(rows=rows, axis='steps'))))
    assert 'DSC against steps' in page and 'Mean over seeds ± sample standard deviation.' in page
    assert (tmp_path / 'figures/table_budgets.png').stat().st_size


def test_time_is_of_training_on_the_same_hardware_and_of_a_cpu_its_own():
    def made(cell, seed, **cost):
        return record(cell, seed, cost=cost)

    flat, deep, elsewhere = Cell('phantom', slices=1), Cell('phantom'), Cell('phantom', stride=2)
    far = record(elsewhere, hardware=dict(cpu='another'))
    measured = Measured([made(flat, 1, step_seconds=0.1), made(flat, 2, step_seconds=0.3, cpu_share=0.5),
                         made(flat, 3, step_seconds=0.2), made(deep, 1, step_seconds=0.5), far])
    assert relative_time(measured, flat, deep) == 'x 0.30'  # the medians are 0.15 and 0.5
    assert relative_time(measured, deep, deep) == 'x 1.00' and relative_time(measured, elsewhere, deep) == '—'
    whole = Measured([made(flat, 1, seconds=30), made(flat, 2, seconds=90, resumed_from=5),
                      made(deep, 1, seconds=60)])
    assert relative_time(whole, flat, deep) == 'x 0.50'


def test_a_grid_file_has_a_table_of_its_own_in_every_form(tmp_path):
    page = write_runs(tmp_path, dict(
        dataset='phantom', configs=dict(beit='configs/beit_centering_phantom.py'), source='layout',
        tables=dict(depth=dict(rows=dict(flat=dict(slices=1), thin=dict(slices=3), deep={}), against='deep',
                               labels='headline', caption='How many slices'))))
    table = pd.read_csv(tmp_path / 'tables/table_depth.csv')
    assert table['Method'].tolist() == ['flat', 'thin', 'deep'] and table['runs'].tolist() == [3, 3, 3]
    assert table['DSC pooled'].tolist() == ['41.70 ± 0.10', '51.70 ± 0.10', '61.70 ± 0.10']
    assert '| thin | 51.70 ± 0.10 |' in (tmp_path / 'tables/table_depth.md').read_text()
    caption = 'Table depth. How many slices: mean over 4 organs; time is of training, 1 being that of deep.'
    assert f'\\caption{{{caption}}}' in (tmp_path / 'tables/table_depth.tex').read_text()
    contrasts = pd.read_csv(tmp_path / 'tables/table_contrasts.csv')
    assert contrasts['Contrast'].tolist() == ['deep - flat', 'deep - thin']
    assert (tmp_path / 'figures/table_depth.png').is_file() and 'DSC of the rows of depth' in page
    assert 'Deep instead of flat: +20.00 points of DSC case' in page


def test_a_module_registers_a_table_that_is_shown_over_several_datasets(tmp_path, monkeypatch, request):
    monkeypatch.syspath_prepend(tmp_path)
    request.addfinalizer(lambda: TABLES.pop('mine', None))
    (tmp_path / 'my_table.py').write_text(
        'from benchmarks.grid.tables import Table, register_table\n\n'
        "register_table(Table('mine', dict(flat=dict(slices=1), deep={}), 'Slices', against='deep'))\n")
    page = write_runs(tmp_path, dict(
        datasets=['heart', 'spleen'], configs=dict(beit='configs/beit_centering_{dataset}.py'),
        imports=['my_table'], tables=['mine']))
    table = pd.read_csv(tmp_path / 'tables/table_mine.csv').set_index(['Method', 'figures'])
    assert list(table) == ['heart', 'spleen', 'average of 2']
    assert table.loc[('deep', 'pooled'), 'average of 2'] == pytest.approx(61.7)
    contrasts = pd.read_csv(tmp_path / 'tables/table_contrasts.csv')
    assert contrasts[['Data', 'Contrast']].values.tolist() == [['heart', 'deep - flat'], ['spleen', 'deep - flat']]
    assert 'Deep instead of flat, on 2 datasets: better beyond noise on 2' in page
    assert (tmp_path / 'figures/datasets.png').is_file()


def test_all_labels_are_all_in_sentences_and_the_index_too(tmp_path):
    folder = tmp_path / 'both'
    folder.mkdir()
    page = write_runs(folder, dict(
        datasets=['heart', 'spleen'], configs=dict(beit='configs/beit_centering_{dataset}.py'),
        tables=dict(depth=dict(rows={'flat': dict(slices=1), 5: {}}, labels='all', against=5))))
    table = pd.read_csv(folder / 'tables/table_depth.csv', dtype=str).set_index(['Method', 'figures'])
    flat, five = (float(table.loc[(row, 'pooled'), 'average of 2']) for row in ('flat', '5'))
    assert (f'better beyond noise on 2, worse on 0; {five - flat:+.2f} points of DSC case on average, all labels'
            in page)
    index = render(tmp_path, draw_index).with_name('README.md').read_text()
    assert f'5 {five:.2f}, flat {flat:.2f} (average of 2) (all labels)' in index


def test_a_table_by_organ_has_the_organs_of_its_own_dataset(tmp_path):
    write(tmp_path, record(Cell('a', slices=3), 1, (99, 50.0), ['background', 'aorta']))  # first by its name
    write_runs(tmp_path, dict(
        dataset='phantom', configs=dict(beit='configs/beit_centering_phantom.py'), source='layout',
        tables=dict(parts=dict(rows=dict(flat=dict(slices=1), deep={}), by='organs'))))
    table = pd.read_csv(tmp_path / 'tables/table_parts.csv')
    assert list(table) == ['Method', 'figures', *(f'organ {i}' for i in range(1, 5))]


def test_a_folder_tells_what_free_axes_were_run_into_it(tmp_path):
    """All of them are in its table, a cell too that another table has, and are compared as that names them."""
    asked = load_grid('phantom', seeds=[7], slices=[1, 3], inflation=['average', 'centering'])
    (tmp_path / 'grid.yaml').write_text(asked.text)
    grid = load_grid(str(tmp_path / 'grid.yaml'))
    assert set(asked.cells()) <= set(grid.cells()) and '2a' in grid.tables and 7 in grid.seeds
    assert grid.search_seed == load_grid('phantom').search_seed
    measured = Measured([record(cell, 7) for cell in asked.cells()])
    table, _ = free_table(measured, grid)
    shown = [', '.join(f'{axis} {row[axis]}' for axis in ('inflation', 'slices')) for _, row in table.iterrows()]
    assert len(shown) == len(asked.cells()) == 3 and 'inflation centering, slices 1' in shown
    assert {find_cell(measured, grid, name) for name in shown} == set(asked.cells())
    assert load_grid('phantom').text == (REPO / 'benchmarks/grids/phantom.yaml').read_text()  # to the byte
