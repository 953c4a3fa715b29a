import re

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPO
from made_records import record
from scipy import stats

from benchmarks.coverage import SHARES, coverage
from benchmarks.grid.axes import Cell
from benchmarks.grid.reader import load_grid
from benchmarks.grid.tables import Contrast
from benchmarks.rendering.contrasts import (
    compare,
    compare_results,
    contrast_table,
    difference,
    find_cell,
    judge_page,
    judge_together,
    means,
    organ_table,
)
from benchmarks.rendering.figures import rows_by_dataset
from benchmarks.rendering.findings import main_findings, published_difference
from benchmarks.rendering.frame import Measured, Value
from benchmarks.rendering.statistics import (
    TOO_FEW,
    compare_seeds,
    estimate,
    estimate_difference,
    format_p,
    holm,
    rank_correlation,
    seed_reach,
)
from benchmarks.rendering.tables import build_table
from mmseg_plugins.errors import UserError


def test_the_papers_seed_study():
    rows = pd.read_csv(REPO / 'benchmarks/paper/seeds.csv')
    ours, without = (rows[rows.method == name].set_index('seed')['dsc8'].to_dict()
                     for name in ('Ours', 'Ours w/o D'))
    test = compare_seeds(ours, without)
    assert (round(test.t, 2), round(test.one_sided, 3), round(test.two_sided, 3)) == (4.99, 0.019, 0.038)
    assert test.n == 3 and test.difference == pytest.approx(86.6467 - 85.14, abs=1e-3)
    back = compare_seeds(without, ours)
    assert back.two_sided == pytest.approx(test.two_sided) and back.one_sided == pytest.approx(1 - test.one_sided)


def crossed(seeds, cases, *sizes, rng=None):
    """Seeds x cases of effects of these sizes: of seeds, of cases, of neither."""
    rng = rng or np.random.default_rng(1)
    return pd.DataFrame(rng.normal(0, sizes[0], (seeds, 1)) + rng.normal(0, sizes[1], (1, cases))
                        + rng.normal(0, sizes[2], (seeds, cases)))


def test_one_seed_is_a_t_test_over_cases():
    figures = crossed(1, 12, 0, 2, 1) + 1
    found, reference = estimate(figures), stats.ttest_1samp(figures.loc[0], 0)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.p == pytest.approx(reference.pvalue) and found.over == '12 cases, these seeds'
    assert estimate(pd.concat([figures] * 2, ignore_index=True)) == found  # two tell nothing of others either


def test_the_crossed_interval_by_hand():
    """Three seeds, six cases: mean squares and Satterthwaite's degrees of freedom written out."""
    rows = [[1, 2, 3, 4, 5, 9], [2, 2, 5, 4, 6, 8], [0, 3, 2, 6, 7, 12]]
    mean = sum(map(sum, rows)) / 18
    of_seeds, of_cases = [sum(row) / 6 for row in rows], [sum(column) / 3 for column in zip(*rows, strict=True)]
    by_seeds = 6 * sum((one - mean) ** 2 for one in of_seeds) / 2
    by_cases = 3 * sum((one - mean) ** 2 for one in of_cases) / 5
    rest = sum((rows[s][c] - of_seeds[s] - of_cases[c] + mean) ** 2 for s in range(3) for c in range(6)) / 10
    variance = by_seeds + by_cases - rest
    freedom = variance ** 2 / (by_seeds ** 2 / 2 + by_cases ** 2 / 5 + rest ** 2 / 10)
    reach = stats.t.ppf(0.975, freedom) * (variance / 18) ** 0.5
    found = estimate(pd.DataFrame(rows))
    assert freedom > 2 and (found.low, found.high) == pytest.approx((mean - reach, mean + reach))
    assert found.p == pytest.approx(2 * stats.t.sf(mean / (variance / 18) ** 0.5, freedom))
    assert found.over == '3 seeds, 6 cases'


def test_a_variance_below_what_it_can_be_is_that_of_the_rest():
    """Effects that cancel: no seed and no case differs from another on average, yet the mean is not certain."""
    figures = pd.DataFrame([[1, -1, 0] * 2, [0, 1, -1] * 2, [-1, 0, 1] * 2], dtype=float)
    found, rest = estimate(figures + 1), 12 / 10
    freedom = 2 + 8  # Satterthwaite's of one mean square alone is its own
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, freedom) * (rest / 18) ** 0.5)


@pytest.mark.parametrize('shift', [0.2, 0.5, 1, 2, 4])
def test_interval_and_test_never_disagree(shift):
    found = [estimate(crossed(3, 8, 1, 1, 1, rng=np.random.default_rng(i)) + shift) for i in range(50)]
    assert all((one.p < 0.05) == (not one.low <= 0 <= one.high) for one in found)


def test_the_interval_covers_as_often_as_it_says():
    """Some cells of benchmarks/coverage.py: Student's t holds its 95 % where the percentile bootstrap does not."""
    for seeds, cases in ((1, 6), (1, 10), (3, 10)):
        ours, bootstrap = coverage(seeds, cases, SHARES['as transfer slice by slice'], skewness=0, draws=600)
        assert 92 < ours < 99, (seeds, cases)
        assert bootstrap < 92, (seeds, cases)


def test_the_committed_coverage_is_of_enough_draws():
    page = (REPO / 'benchmarks/coverage.md').read_text()
    assert float(re.search(r'standard\s+error\s+([\d.]+)', page)[1]) < 0.5


def test_too_little_data_gives_no_figure():
    assert compare_seeds({1: 1.0, 2: 2.0}, {1: 0.0, 2: 0.5}) is None
    assert compare_seeds({1: 1.0, 2: 2.0, 3: 3.0}, {1: 0.0, 2: 1.0, 4: 0}) is None  # two in common
    assert compare_seeds({1: 1.0, 2: 2.0, 3: 3.0}, {1: 0.0, 2: 1.0, 3: 2.0}) is None  # no spread
    assert estimate(crossed(3, 5, 1, 1, 1)) is None and estimate(crossed(3, 6, 1, 1, 1))
    assert estimate(pd.DataFrame(np.ones((3, 9)))) is None
    lacking = crossed(3, 6, 1, 1, 1)
    lacking.loc[0, 0] = np.nan
    assert estimate(lacking) is None


def test_seeds_are_paired_where_both_rows_have_three():
    first, second = crossed(3, 8, 5, 1, 0.1), crossed(3, 8, 5, 1, 0.1, rng=np.random.default_rng(2))
    paired = estimate_difference(first, second)
    assert paired.seeds == 3 and paired == estimate(first - second)
    second.index = [7, 8, 9]
    assert estimate_difference(first, second).over == '8 cases, these seeds'


def test_the_same_cases_again():
    """Student's t of two samples of seeds, as scipy has it."""
    first, second = Value({1: 60.0, 2: 61.0, 3: 62.5}), Value({1: 63.0, 5: 64.0})
    interval = stats.ttest_ind([60.0, 61.0, 62.5], [63.0, 64.0]).confidence_interval(0.95)
    assert seed_reach(first, second) == pytest.approx((interval.high - interval.low) / 2)
    assert seed_reach(first, Value({1: 60.0})) is None and seed_reach(first, Value(dict(first.seeds))) == 0


def test_p_is_never_zero():
    assert format_p(1e-30) == '< 0.0001' and format_p(0.00412, 'p') == 'p = 0.0041'
    assert format_p(1e-5, 'p') == 'p < 0.0001'


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.01, 0.04], planned=4) == pytest.approx([0.04, 0.12])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([None]) == [None]


def run_of(cell, seed, organs, cases=8, contrasts=()):
    """Cases scatter around the organs' figures."""
    rng = np.random.default_rng([seed, int(organs[0])])
    per_case = [[99.0, *(value + rng.normal(0, 0.3) for value in organs)] for _ in range(cases)]
    return record(cell, seed, [99.0, *organs], per_case=per_case, contrasts=contrasts)


def test_rows_and_organs_against_each_other():
    grid = load_grid('phantom')
    ours, flat, random = (grid.tables['2a'].rows[row] for row in ('Ours', 'Ours w/o D', 'Ours w/o T&D'))
    keys = {cell: grid.contrast_keys(cell) for cell in (ours, flat, random)}
    measured = Measured([run_of(cell, seed, [mean + seed / 10, 50.0], contrasts=keys[cell])
                         for cell, mean in ((ours, 60), (flat, 55)) for seed in (1, 2, 3)]
                        + [run_of(random, 1, [40.0, 50.0], cases=4, contrasts=keys[random])])
    judged = judge_page(measured, grid)
    table = contrast_table(judged, measured, grid).set_index('Contrast')
    assert table.index.tolist() == ['Ours - Ours w/o D', 'Ours w/o D - Ours w/o T&D', 'Ours - Ours w/o T&D',
                                    '5 - 1']
    assert table['registered'].tolist() == ['yes', 'yes', 'no', 'no']
    assert table.loc['Ours w/o D - Ours w/o T&D', ['95 %', 'p', 'beyond noise']].tolist() == [TOO_FEW, '—', '—']
    depth = table.loc['Ours - Ours w/o D']
    assert float(depth['DSC case']) == pytest.approx(2.5, abs=0.3) and depth['beyond noise'] == 'yes'
    assert depth['DSC pooled'] == '+2.50' and depth['over'] == '3 seeds, 8 cases'
    organs = organ_table(judged, judged[0].contrast, measured).set_index('Organ')
    assert organs.index.tolist() == ['organ 1', 'organ 2', 'all of these']
    assert organs['beyond noise'].tolist() == ['yes', 'no', '—']
    assert '| organ 1 | +' in compare(measured, grid, 'Ours', '2a Ours w/o D')


def test_each_family_has_its_own_correction():
    """One registered contrast keeps its p; what was looked up afterwards is corrected for all that was."""
    grid = load_grid('phantom', tables=['2a'])
    rng = np.random.default_rng(0)
    records = [record(cell, seed, [99, 50 + i], contrasts=grid.contrast_keys(cell),
                      per_case=[[99, 50 + i + rng.normal(0, 2)] for _ in range(8)])
               for i, cell in enumerate(grid.cells()) for seed in (1, 2, 3)]
    measured, registered = Measured(records), grid.contrasts
    for kept in (registered[:1], ()):
        grid.contrasts = grid.registered = kept
        judged = judge_page(measured, grid)
        families = [[each for each in judged if each.contrast.registered is known] for known in (True, False)]
        assert [len(family) for family in families] == ([1, 5] if kept else [0, 6])  # an organ among the others
        for family in families:
            assert [each.holm for each in family] == holm([each.estimate.p for each in family])
        assert all(each.estimate.p < 0.05 for each in judged if each.beyond_noise)


def test_a_row_is_found_by_what_names_it_alone():
    grid = load_grid('phantom')
    measured = Measured([run_of(cell, 1, [50.0]) for cell in grid.cells()])
    assert find_cell(measured, grid, '4c 1') == find_cell(measured, grid, 'Ours') == grid.tables['2a'].rows['Ours']
    assert find_cell(measured, grid, str(grid.tables['4a'].rows['all'])) == find_cell(measured, grid, 'all')
    for name, message in (('1', 'no row'), ('2a Our', "did you mean '2a Ours'")):
        with pytest.raises(UserError, match=message):
            find_cell(measured, grid, name)
    with pytest.raises(UserError, match='no finished run'):
        find_cell(Measured([]), grid, 'Ours')


def test_a_label_that_a_case_lacks_counts_where_a_row_predicts_it():
    grid = load_grid('phantom')
    first, second = grid.tables['2a'].rows['Ours'], grid.tables['2a'].rows['Ours w/o D']
    runs = [run_of(cell, 1, [60.0, 50.0]) for cell in (first, second)]
    for run in runs:
        run['scores']['figures']['dsc'] = [[99.0, 60.0, None if case < 4 else 50.0] for case in range(8)]
    runs[0]['scores']['figures']['dsc'][0][2] = 0.0  # a false alarm
    ours, flat = (side.loc[1] for side in Measured(runs).pair_patients(first, second))
    assert ours['case_0000'] == 30 and flat['case_0000'] == 80  # (60 + 0) / 2, (60 + 100) / 2
    assert ours['case_0001'] == flat['case_0001'] == 60 and ours['case_0005'] == flat['case_0005'] == 55
    assert 'case_0001' not in Measured(runs).pair_patients(first, second, [2])[0]


@pytest.mark.parametrize('tables', [None, ['2a']])
def test_what_was_registered_counts_before_it_has_run(tables):
    grid = load_grid('phantom', tables=tables)
    cells = [grid.tables['2a'].rows[row] for row in ('Ours', 'Ours w/o D')]
    measured = Measured([run_of(cell, seed, [mean + seed / 10, 50.0], contrasts=grid.contrast_keys(cell))
                         for cell, mean in zip(cells, (60, 59.6), strict=True) for seed in (1, 2, 3)])
    [alone] = [each for each in judge_page(measured, grid) if each.contrast.registered]
    assert len(grid.registered) == 9 and 0 < alone.estimate.p < 1 / 9
    assert alone.holm == pytest.approx(9 * alone.estimate.p)


def test_the_cases_of_a_patient_count_as_one():
    """Two frames that are all but alike: as cases they would halve the variance."""
    grid = load_grid('phantom')
    cells = [grid.tables['2a'].rows[row] for row in ('Ours', 'Ours w/o D')]
    rng = np.random.default_rng(1)
    runs = []
    for cell, mean in zip(cells, (60, 55), strict=True):
        organs = np.repeat(mean + rng.normal(0, 2, 8), 2) + rng.normal(0, 0.01, 16)
        runs.append(record(cell, 1, [99.0, mean], per_case=[[99.0, value] for value in organs],
                           contrasts=grid.contrast_keys(cell)))
    patients = {f'case_{i:04d}': f'patient_{i // 2}' for i in range(16)}
    alone, grouped = (judge_page(Measured(runs, data), grid)[0].estimate
                      for data in ({}, dict(phantom=dict(patients=patients))))
    assert (alone.over, grouped.over) == ('16 cases, these seeds', '8 patients, these seeds')
    assert grouped.value == pytest.approx(alone.value)
    wider = (grouped.high - grouped.low) / (alone.high - alone.low)
    assert wider == pytest.approx(np.sqrt(2 * 15 / 14) * stats.t.ppf(0.975, 7) / stats.t.ppf(0.975, 15), rel=0.01)


def test_the_p_of_a_rank_correlation_is_exact_where_orders_can_be_counted():
    found = rank_correlation([1, 2, 3, 4], [50, 60, 61, 90])
    assert found.statistic == pytest.approx(1) and found.pvalue == pytest.approx(2 / 24)  # SciPy's own says 0
    assert rank_correlation([1, 2, 3, 4], [60, 60, 50, 90]).statistic == pytest.approx(
        stats.spearmanr([1, 2, 3, 4], [60, 60, 50, 90]).statistic)
    many = range(8), [3, 1, 2, 5, 4, 8, 7, 6]
    assert rank_correlation(*many).pvalue == stats.spearmanr(*many).pvalue


def test_a_distance_is_of_the_same_organs_in_every_row():
    """One that a run never finds would leave the others' mean, which then compares with no other row's."""
    cell = Cell('phantom')
    whole, lacks = ([[None, 10.0, 20.0]] * 8, [[None, 10.0, None]] * 8)
    made = [record(cell, seed, figures=dict(hd95=figures), digest=f'abcd{seed:04d}')
            for seed, figures in ((1, whole), (2, lacks))]
    assert str(Measured(made).value(cell, 'hd95')) == '15.00 (1 of 2 runs)'
    assert str(Measured(made[1:]).value(cell, 'hd95')) == '—'
    nowhere = record(cell, dsc=[99.0, 60.0, None], figures=dict(hd95=lacks))  # nor in the label maps
    assert str(Measured([nowhere]).value(cell, 'hd95')) == '10.00'


def test_figures_beside_a_contrast_are_over_what_it_is_over():
    first, second = Cell('phantom'), Cell('phantom', slices=1)
    contrast = Contrast('', 'deep', 'flat', (first, second))
    made = [record(cell, seed, dsc=[99.0, value, value], digest=f'{number:08d}') for number, (cell, seed, value)
            in enumerate([(first, 1, 60.0), (first, 2, 61.0), (first, 3, 62.5), (first, 4, 90.0),
                          (second, 1, 50.0), (second, 2, 50.0), (second, 3, 50.0)])]
    assert means(contrast, Measured(made)) == [pytest.approx(183.5 / 3), 50.0]
    few = [record(cell, dsc=[99.0, value, value], per_case=per_case, digest=f'{number:08d}')
           for number, (cell, value, per_case) in enumerate([
               (first, 60.0, [[99.0, 60.0, 80.0], [99.0, 60.0, None]]), (second, 50.0, [[99.0, 50.0, 70.0]] * 2)])]
    [judged] = judge_together([contrast], measured := Measured(few))
    # the second case's other label: left out by one, which counts 100, and predicted by the other
    assert judged.estimate is None and difference(judged, measured) == pytest.approx((70 + 80 - 60 - 60) / 2)


def test_other_cases_are_not_compared_as_the_same():
    cell = Cell('phantom')
    here = [record(cell, seed, digest=f'abcd{seed:04d}') for seed in (1, 2)]
    there = [record(cell, seed, digest=f'abcd{seed:04d}', scores=dict(cases=[f'x{i}' for i in range(8)]))
             for seed in (1, 2)]
    grid = load_grid('phantom', slices=[5])
    for other, said in ((here, 'no'), (there, 'other cases')):
        [row] = compare_results(Measured(here), Measured(other), grid).to_dict('records')
        assert row['beyond noise'] == said


def test_what_the_paper_has_per_case_is_no_pooled_difference():
    published = {dataset: load_grid(name, datasets=[dataset]) for name, dataset in (
        ('bcv', 'bcv'), ('generalization', 'heart'))}
    grid = published['bcv']
    ours, transunet, flat = (grid.tables['2a'].rows[row] for row in ('Ours', 'TransUNet', 'Ours w/o D'))
    labels = ['background', *(f'organ {i}' for i in range(1, 14))]
    ran = record(transunet, dsc=[50.0] * 14, labels=labels, headline=[1, 2], digest='00000001')
    assert '84.36 (per case)' in build_table(grid.tables['2a'], Measured([ran]), grid).to_csv()
    assert published_difference(Contrast('', 'Ours', 'TransUNet', (ours, transunet), table='2a'), grid) is None
    assert published_difference(Contrast('', 'Ours', 'Ours w/o D', (ours, flat), table='2a'), grid) > 0
    grid = published['heart']
    name, table = next(iter(grid.tables.items()))
    rows = list(table.published('heart').rows)
    cells = Cell('heart'), Cell('heart', slices=1)
    contrasts = [Contrast('', rows[0], row, cells, table=name) for row in rows[1:]]
    assert all(found is None or found == found for found in (
        published_difference(contrast, grid) for contrast in contrasts))


def test_the_highest_row_is_found_in_every_table_and_free_cells_are_of_each_dataset(tmp_path):
    own = dict(flat=dict(slices=1), net=dict(encoder='net', source='none'))
    path = tmp_path / 'two.yaml'
    path.write_text(yaml.safe_dump(dict(
        dataset='phantom', source='none', seeds=[1],
        configs=dict(beit='configs/beit_centering_phantom.py', net='configs/unet3d_phantom.py'),
        tables=dict(short=dict(rows=own), long=dict(rows={
            row: changes | dict(steps=9) for row, changes in own.items()}))), sort_keys=False))
    grid = load_grid(str(path))
    scores = zip(grid.cells(), (60.0, 50.0, 60.0, 70.0), strict=True)
    made = [record(cell, dsc=[99.0, score, score], digest=f'{number:08d}')
            for number, (cell, score) in enumerate(scores)]
    [first, *_] = main_findings([], Measured(made), grid)
    assert 'long net has a DSC case of 70.00, the best row of this encoder (short flat) 60.00' in first
    several = load_grid('generalization', slices=[1, 5])
    cells = [cell for cell in several.cells() if cell.dataset in ('acdc', 'heart')]
    made = [record(cell, digest=f'{number:08d}') for number, cell in enumerate(cells)]
    shown = rows_by_dataset(Measured(made), several)
    assert {name: len(rows) for name, rows in shown.items()} == dict.fromkeys(('acdc', 'heart'), len(made) // 2)
    assert not any('dataset' in label for rows in shown.values() for label in rows)
