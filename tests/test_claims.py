"""The claims: published arithmetic as NOTES of the paper have it, measured ones from made-up records."""

import pytest
from made_records import record

from benchmarks.grid.reader import load_grid
from benchmarks.paper.claims import FAILS, HOLDS, UNKNOWN, check_claims
from benchmarks.rendering.findings import variation_points
from benchmarks.rendering.frame import Measured


def run_of(cell, seed, organs):
    """One DSC per organ, nearly the same in each of eight cases."""
    values = [99.0, *organs]
    return record(cell, seed, values, per_case=[[value + i for value in values] for i in range(8)])


@pytest.fixture
def grid():
    return load_grid('phantom')


def find(claims, text):
    [claim] = [claim for claim in claims if text in claim.text]
    return claim


def test_the_papers_own_tables_give_its_claims(grid):
    claims = check_claims(Measured([]), grid)
    for number in ('11.18', '6.07', '1.95', '0.75 %', '10 of 11', '98 %'):
        assert find(claims, number).paper.verdict == HOLDS
    assert find(claims, '98 %').paper.arithmetic.startswith('t(2) = 4.99, p = 0.019 one-sided, 0.038 two-sided')
    assert '10 of 11 better; not: heart -0.44' in find(claims, '10 of 11').paper.arithmetic
    variation = find(claims, 'variation')
    assert variation.paper.verdict == UNKNOWN and all(text in variation.paper.arithmetic for text in (
        'r = -0.84 (p = 0.009)', 'rho = -0.43 (p = 0.29)'))
    assert '74.70 - 74.00 = 0.70' in find(claims, '6.07').note and len([c for c in claims if c.note]) == 3
    assert {claim.here.verdict for claim in claims} == {UNKNOWN}


def test_measured_claims_follow_the_records(grid):
    rows = grid.tables['2a'].rows
    means = {'Ours': 60, 'Ours w/o D': 57, 'Ours w/o T': 50, 'Ours w/o T&D': 53}
    records = [run_of(rows[row], seed, [mean + offset] * 4) for row, mean in means.items()
               for seed, offset in ((1, 0.0), (2, 0.4), (3, -0.3))]
    claims = check_claims(Measured(records), grid)
    assert find(claims, '11.18').here.verdict == HOLDS and '57.03 - 53.03 = 4.00' in find(
        claims, '11.18').here.arithmetic
    assert find(claims, '6.07').here.verdict == FAILS  # depth hurts here
    assert find(claims, '1.95').here.verdict == HOLDS
    assert find(claims, '98 %').here.arithmetic == 'not enough seeds'  # all differ by the same
    alone = [run_of(rows['Ours'], 1, [50.0] * 4), run_of(rows['Ours w/o D'], 1, [50.0] * 4)]
    assert find(check_claims(Measured(alone), grid), '1.95').here.verdict == UNKNOWN


def test_gain_against_slice_variation(grid):
    rows, gains = grid.tables['2a'].rows, [4.0, 3.0, 2.0, 1.0, 0.5]
    records = [run_of(rows['Ours'], 1, [50 + gain for gain in gains]), run_of(rows['Ours w/o D'], 1, [50.0] * 5)]
    names = ['background', *(f'organ {i}' for i in range(1, 6))]
    data = {'phantom': dict(headline=[1, 2, 3, 4, 5], labels=names, variation=[99, 60, 70, 80, 90, 95])}
    measured = Measured(records, data)
    points = variation_points(measured, rows['Ours'], rows['Ours w/o D'])
    assert points['gain'].tolist() == gains and points.index.tolist() == names[1:]
    assert find(check_claims(measured, grid), 'variation').here.verdict == HOLDS
