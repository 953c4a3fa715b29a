import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from made_records import record
from scipy import stats

from benchmarks.grid.reader import load_grid
from benchmarks.rendering.contrasts import TOO_FEW, compare, contrast_organs, contrast_rows, find_cell
from benchmarks.rendering.frame import Measured
from benchmarks.rendering.statistics import compare_cases, compare_seeds, holm
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


def test_cases_against_scipy_and_by_hand():
    rng = np.random.default_rng(1)
    first = {f'c{i}': v for i, v in enumerate(rng.normal(80, 5, 12))}
    second = {case: value - d for (case, value), d in zip(first.items(), rng.normal(1, 1, 12), strict=True)}
    test = compare_cases(first, second)
    differences = np.array([first[c] - second[c] for c in first])
    assert test.p == pytest.approx(stats.wilcoxon(list(first.values()), list(second.values())).pvalue)
    assert test.difference == pytest.approx(differences.mean(), abs=1e-6)
    half = 1.96 * differences.std() / np.sqrt(12)
    assert test.interval == pytest.approx((test.difference - half, test.difference + half), abs=0.1)
    assert compare_cases(first, second) == test  # the same every time
    assert compare_cases(first, {c: v - 1 for c, v in first.items()}).effect == 1.0
    balanced = dict(zip('abcdef', [1.0, 1, 1, -1, -1, -1], strict=True))
    assert compare_cases(dict.fromkeys('abcdef', 0.0), balanced).effect == 0


def test_too_little_data_gives_no_figure():
    assert compare_seeds({1: 1.0, 2: 2.0}, {1: 0.0, 2: 0.5}) is None
    assert compare_seeds({1: 1.0, 2: 2.0, 3: 3.0}, {1: 0.0, 2: 1.0, 4: 0}) is None  # two in common
    assert compare_seeds({1: 1.0, 2: 2.0, 3: 3.0}, {1: 0.0, 2: 1.0, 3: 2.0}) is None  # no spread
    assert compare_cases(dict.fromkeys('abcde', 1.0), dict.fromkeys('abcde', 0.0)) is None
    assert compare_cases(dict.fromkeys('abcdefg', 1.0), dict.fromkeys('abcdefg', 1.0)) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([None]) == [None]


def run_of(cell, seed, organs, cases=8):
    """Cases scatter around the organs' figures."""
    rng = np.random.default_rng([seed, int(organs[0])])
    per_case = [[99.0, *(value + rng.normal(0, 0.3) for value in organs)] for _ in range(cases)]
    return record(cell, seed, [99.0, *organs], per_case=per_case)


def test_rows_and_organs_against_each_other():
    grid = load_grid('phantom')
    ours, flat, random = (grid.tables['2a'].rows[row] for row in ('Ours', 'Ours w/o D', 'Ours w/o T&D'))
    measured = Measured([run_of(cell, seed, [mean + seed / 10, 50.0])
                         for cell, mean in ((ours, 60), (flat, 55)) for seed in (1, 2, 3)]
                        + [run_of(random, 1, [40.0, 50.0], cases=4)])
    rows = contrast_rows(measured, grid.tables['2a'].rows, 'Ours').set_index('Contrast')
    assert list(rows.index) == ['Ours - Ours w/o T&D', 'Ours - Ours w/o D']
    few = rows.loc['Ours - Ours w/o T&D', ['DSC per case', 'DSC pooled']]
    assert few.tolist() == [TOO_FEW] * 2  # four cases, one seed
    assert float(rows.loc['Ours - Ours w/o D', 'DSC per case']) == pytest.approx(2.5, abs=0.3)
    organs = contrast_organs(measured, ours, flat).set_index('Organ')
    first, second = organs.loc['organ 1'], organs.loc['organ 2']
    assert first['p (Wilcoxon)'] == '0.0078' and first['p (Holm)'] == '0.0156' and first['effect'] == '+1.00'
    assert second['DSC pooled'] == TOO_FEW  # no difference at any seed
    assert organs.index[-1] == 'all of these'
    assert '| organ 1 | +' in compare(measured, grid, 'Ours', '2a Ours w/o D')


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
    ours, flat = Measured(runs).pair_cases(first, second)
    assert ours['case_0000'] == 30 and flat['case_0000'] == 80  # (60 + 0) / 2, (60 + 100) / 2
    assert ours['case_0001'] == flat['case_0001'] == 60 and ours['case_0005'] == flat['case_0005'] == 55
    assert 'case_0001' not in Measured(runs).pair_cases(first, second, [2])[0]
