import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from scipy import stats

from benchmarks.comparison import compare_cases, compare_seeds, holm


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
