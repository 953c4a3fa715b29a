import re

import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from made_records import record
from scipy import stats

from benchmarks.coverage import SHARES, coverage
from benchmarks.grid.reader import load_grid
from benchmarks.rendering.contrasts import compare, contrast_table, find_cell, judge_page, organ_table
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
