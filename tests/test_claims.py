"""The claims: published arithmetic as NOTES of the paper have it, measured ones from made-up records."""

import numpy as np
import pytest
from made_records import record

from benchmarks.grid.reader import load_grid
from benchmarks.paper.claims import FAILS, HOLDS, UNKNOWN, check_claims
from benchmarks.rendering.contrasts import judge_page
from benchmarks.rendering.findings import variation_points
from benchmarks.rendering.frame import Measured


def run_of(cell, seed, organs):
    """One DSC per organ, nearly the same in each of eight cases."""
    values, rng = [99.0, *organs], np.random.default_rng([seed, int(10 * organs[0])])
    return record(cell, seed, values, per_case=[[value + i + rng.normal(0, 0.1) for value in values]
                                                for i in range(8)])


def claims_of(measured, grid):
    return check_claims(judge_page(measured, grid), measured, grid)


@pytest.fixture
def grid():
    return load_grid('phantom')


def find(claims, text):
    [claim] = [claim for claim in claims if text in claim.text]
    return claim


def test_the_papers_own_tables_give_its_claims(grid):
    claims = claims_of(Measured([]), grid)
    for text in ('11.18', '6.07', '1.95', '0.75 %', '10 of 11', '98 %', 'Average inflation', 'The closer',
                 'on top of self-supervision', 'Video Swin'):
        assert find(claims, text).paper.verdict == HOLDS
    assert find(claims, '98 %').paper.arithmetic.startswith('t(2) = 4.99, p = 0.0189 one-sided, 0.0379 two-sided')
    assert '86.65 - 85.14 = 1.51' in find(claims, '1.95').note
    assert '= 0.134 % more' in find(claims, '0.75 %').note
    assert 'these 11 comparisons' in find(claims, '10 of 11').note
    assert find(claims, 'The closer').paper.arithmetic == '84.74 - 84.30 = 0.44, 84.30 - 77.68 = 6.62'
    assert find(claims, 'Video Swin').paper.arithmetic == '81.83 - 81.10 = 0.73'
    assert find(claims, 'stomach').paper.verdict == FAILS  # its own table has it sixth of eight
    assert find(claims, 'state-of-the-art').paper.verdict == UNKNOWN
    assert '10 of 11 better; not: heart -0.44' in find(claims, '10 of 11').paper.arithmetic
    variation = find(claims, 'variation')
    assert variation.paper.verdict == UNKNOWN and all(text in variation.paper.arithmetic for text in (
        'r = -0.84 (p = 0.0089)', 'rho = -0.43 (p = 0.2894)'))
    assert '74.70 - 74.00 = 0.70' in find(claims, '6.07').note
    assert {claim.here.verdict for claim in claims} == {UNKNOWN}


def test_measured_claims_follow_the_records(grid):
    rows = grid.tables['2a'].rows
    means = {'Ours': 60, 'Ours w/o D': 57, 'Ours w/o T': 50, 'Ours w/o T&D': 53}
    records = [run_of(rows[row], seed, [mean + offset] * 4) for row, mean in means.items()
               for seed, offset in ((1, 0.0), (2, 0.4), (3, -0.3))]
    claims = claims_of(Measured(records), grid)
    assert find(claims, '11.18').here.verdict == HOLDS and '57.03 - 53.03 = 4.00' in find(
        claims, '11.18').here.arithmetic
    assert find(claims, '6.07').here.verdict == FAILS  # depth hurts here
    assert find(claims, '1.95').here.verdict == HOLDS
    assert find(claims, '98 %').here.arithmetic == 'not enough seeds'  # all differ by the same
    assert find(claims, '1.95').here.arithmetic.startswith('60.03 - 57.03 = 3.00 [+')
    alone = [run_of(rows['Ours'], 1, [50.0] * 4), run_of(rows['Ours w/o D'], 1, [50.0] * 4)]
    assert find(claims_of(Measured(alone), grid), '1.95').here.verdict == UNKNOWN


def test_gain_against_slice_variation(grid):
    rows, gains = grid.tables['2a'].rows, [4.0, 3.0, 2.0, 1.0, 0.5]
    records = [run_of(rows['Ours'], 1, [50 + gain for gain in gains]), run_of(rows['Ours w/o D'], 1, [50.0] * 5)]
    names = ['background', *(f'organ {i}' for i in range(1, 6))]
    data = {'phantom': dict(headline=[1, 2, 3, 4, 5], labels=names, variation=[99, 60, 70, 80, 90, 95],
                            size=[64, 64, 16])}
    measured = Measured(records, data)
    points = variation_points(measured, rows['Ours'], rows['Ours w/o D'])
    assert points['gain'].tolist() == gains and points.index.tolist() == names[1:]
    assert find(claims_of(measured, grid), 'variation').here.verdict == HOLDS
    data['phantom']['headline'] = [1, 2, 3, 4]  # of four organs, 2 of 24 orders are as clear as this one
    few = find(claims_of(Measured([run_of(rows[row], 1, [50.0 + up for up in gains[:4]]) for row, gains in (
        ('Ours', gains), ('Ours w/o D', [0.0] * 4))], data), grid), 'variation').here
    assert few.verdict == UNKNOWN and 'Spearman rho = -1.00 (p = 0.0833)' in few.arithmetic


def test_a_claim_that_the_data_cannot_test_says_so_before_anything_ran(grid):
    """21 slices on volumes of 16 cannot tell, whatever the runs say; nor can they of strides that reach as far."""
    data = {'phantom': dict(headline=[1], labels=['background', 'organ'], variation=[99, 60], size=[64, 64, 16])}
    claim = find(claims_of(Measured([], data), grid), '5 slices are better than 21')
    assert claim.here.verdict == UNKNOWN and 'spans 21 slices, a volume has 16' in claim.here.arithmetic
    rows = grid.tables['4d'].rows
    records = [run_of(rows[row], seed, [mean]) for row, mean in (('5', 50), ('21', 60)) for seed in (1, 2, 3)]
    assert find(claims_of(Measured(records, data), grid), 'better than 21').here == claim.here
    assert find(claims_of(Measured(records), grid), 'better than 21').here.verdict == FAILS
    data['phantom']['size'][2] = 9
    claims = claims_of(Measured([], data), grid)
    assert 'spans 13 slices' in find(claims, 'stride 1, then 2').here.arithmetic
    assert find(claims, 'Centering').here.arithmetic == 'not run'  # 5 slices at stride 2 just fit
