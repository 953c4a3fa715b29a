"""The paper's own numbers as if they were records: the tables must give them back to the last digit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_records import record

from benchmarks.grid.reader import load_grid
from benchmarks.paper.claims import HOLDS, NOT_RUN, UNKNOWN, check_claims
from benchmarks.paper.published import PAPER, published_datasets, published_organs
from benchmarks.rendering.contrasts import judge_page
from benchmarks.rendering.frame import Measured
from benchmarks.rendering.statistics import TOO_FEW
from benchmarks.rendering.tables import build_table, seed_table
from mmseg_plugins.datasets.catalogue import BCV_EIGHT, BCV_LABELS

# as the paper prints them, row by row: DSC of 8 organs in its Table 2, of 14 labels in its Table 4
PRINTED = {
    '2a': {'Ours w/o T&D': 74.00, 'Ours w/o T': 74.70, 'Ours w/o D': 85.18, 'Ours': 87.13},
    '2b': {'BEiT-Random': 74.70, 'CT-DINO': 82.56, 'BEiT-SSL': 84.41, 'DINO': 84.60, 'SwinT': 85.57,
           'VideoSwinT': 85.94, 'BEiT': 87.13},
    '4a': {'all': 73.93, 'center': 76.33}, '4b': {'random': 72.49, 'average': 76.33, 'centering': 84.30},
    '4c': {'1': 84.74, '2': 84.30, '3': 77.68}, '4d': {'1': 83.34, '5': 84.74, '11': 83.83, '21': 77.52}}


def claims_of(measured, grid):
    return check_claims(judge_page(measured, grid), measured, grid)


@pytest.fixture(scope='module')
def grid():
    return load_grid('bcv')


@pytest.fixture(scope='module')
def records(grid):
    """One run per cell: organs as in Table 3 or alike, the other labels so that Table 4's mean comes out."""
    organs = published_organs()
    eight, all_labels = {}, {}
    for table in ('2a', '2b'):
        for row, figure in PRINTED[table].items():
            alike = pd.Series(figure, BCV_EIGHT)
            eight.setdefault(grid.tables[table].rows[row], organs.loc[row] if row in organs.index else alike)
    for table in ('4a', '4b', '4c', '4d'):
        for row, cell in grid.tables[table].rows.items():
            all_labels[cell] = PRINTED[table][row]
    return [_record(cell, eight.get(cell), all_labels.get(cell), seed=1234) 
            for cell in dict.fromkeys([*eight, *all_labels])]


def _record(cell, eight, mean, seed):
    values = np.full(14, mean or 50.0)
    if eight is not None:
        values[list(BCV_EIGHT)] = eight[list(BCV_EIGHT)]
        rest = np.setdiff1d(range(14), BCV_EIGHT)
        values[rest] = (14 * (mean or 50.0) - values[list(BCV_EIGHT)].sum()) / len(rest)
    figures = values.tolist()
    return record(cell, seed, figures, BCV_LABELS, BCV_EIGHT, [figures],
                  cost=dict(encoder_flops=214_954_014_720 if cell.slices != 1 else 213_343_401_984))


@pytest.mark.parametrize('table', PRINTED)
def test_a_table_gives_the_papers_figures_back(grid, records, table):
    frame = build_table(grid.tables[table], Measured(records), grid)
    ran = frame[frame['runs'] == '1'].set_index(frame.columns[0])
    printed = {row: f'{figure:.2f}' for row, figure in PRINTED[table].items()}
    assert ran['DSC pooled'].to_dict() == ran['paper (BCV)'].to_dict() == printed


def test_methods_that_only_the_paper_ran_say_so(grid, records):
    """In the cell of their first figure; one that a grid does run is a row as any other."""
    found, others = {}, ['TransUNet', 'SwinUNet', 'UNETR']
    for ran in ([], ['UNETR']):
        rows = {row: cell for row, cell in grid.tables['2a'].rows.items() if row not in others or row in ran}
        made = [_record(rows[row], None, 50.0, seed=1234) for row in ran]
        frame = build_table(replace(grid.tables['2a'], rows=rows), Measured(records + made), grid)
        frame = frame.set_index('Method')
        found[len(ran)] = frame.loc[others, 'DSC pooled'].tolist()
        assert frame.loc['TransUNet', ['T', 'D', 'paper (BCV)']].tolist() == ['✓', '✗', '84.36 (per case)']
        assert frame.loc['UNETR', ['T', 'D', 'paper (BCV)']].tolist() == ['✗', '✓', '80.07']
    reasons = [f'no row here: configs/{name}_bcv.py' for name in ('transunet', 'swinunet', 'unetr')]
    assert found == {0: reasons, 1: [*reasons[:2], '50.00']}


def test_table_3_gives_its_organs_and_their_means_are_table_2(grid, records):
    frame = build_table(grid.tables['3'], Measured(records), grid).set_index(['Method', 'figures'])
    means = pd.read_csv(PAPER / 'table2a_main.csv').set_index('method')['dsc8']
    for row in grid.tables['3'].rows:
        assert frame.loc[row, 'measured'].tolist() == frame.loc[row, 'paper (BCV)'].tolist()
    organs = published_organs()
    for row in means.index:
        assert organs.loc[row].mean() == pytest.approx(means[row], abs=0.01)  # some were cut, not rounded


def test_claims_of_the_papers_records_are_the_papers(grid, records):
    """Every claim from records gives the published arithmetic; one run each tells nothing of noise."""
    claims = claims_of(Measured(records), grid)
    unlike = ('6.07', '10 of 11', '98 %', 'variation')  # another architecture here; the others come below
    alone = ('state-of-the-art', 'stomach', 'Video Swin')  # of published figures
    for claim in claims:
        if any(text in claim.text for text in alone):
            assert claim.here == NOT_RUN
        elif not any(text in claim.text for text in unlike):
            assert claim.here.arithmetic.replace(f' [{TOO_FEW}]', '') == claim.paper.arithmetic, claim.text
            assert claim.here.verdict == (HOLDS if '0.75' in claim.text else UNKNOWN)
    [depth] = [claim for claim in claims if '6.07' in claim.text]
    assert depth.here.arithmetic.startswith('74.70 - 74.00 = 0.70')


def test_the_claims_of_seeds_variation_and_datasets_come_out_as_published(grid):
    rows, organs = grid.tables['2a'].rows, published_organs()
    seeds = pd.read_csv(PAPER / 'seeds.csv')
    made = [_record(rows[row.method], pd.Series(row.dsc8, BCV_EIGHT), None, row.seed)
            for row in seeds.itertuples()]
    [claim] = [claim for claim in claims_of(Measured(made), grid) if '98 %' in claim.text]
    assert claim.here == claim.paper and claim.here.verdict == HOLDS
    variation = [organs.loc['slice variation'].get(i, 50.0) for i in range(14)]
    data = {'bcv': dict(headline=list(BCV_EIGHT), labels=list(BCV_LABELS), variation=variation,
                        size=[512, 512, 126])}
    made = [_record(rows[row], organs.loc[row], None, 1234) for row in ('Ours', 'Ours w/o D')]
    [claim] = [claim for claim in claims_of(Measured(made, data), grid) if 'variation' in claim.text]
    assert claim.here == claim.paper and claim.here.verdict == UNKNOWN
    several, table = load_grid('generalization'), published_datasets()
    made = [_record(cell, pd.Series(table.loc[row, cell.dataset], BCV_EIGHT), None, 1234)
            for row, first in several.tables['5'].rows.items() for cell in several.on_each([first])
            if table.loc[row, cell.dataset] == table.loc[row, cell.dataset]]
    [claim] = [claim for claim in claims_of(Measured(made), several) if '10 of 11' in claim.text]
    assert claim.here.verdict == claim.paper.verdict == HOLDS and 'heart -0.44' in claim.here.arithmetic
    frame = build_table(several.tables['5'], Measured(made), several).set_index(['Method', 'figures'])
    for row in several.tables['5'].rows:
        paper = frame.loc[row].drop(['pooled', 'case']).iloc[0]  # of SwinUNet it says that it is per case
        assert frame.loc[row, 'pooled'].replace('not run', '—').tolist() == paper.tolist()


def test_the_seed_study(grid):
    rows = pd.read_csv(PAPER / 'seeds.csv')
    made = [_record(grid.tables['2a'].rows[row.method], pd.Series(row.dsc8, BCV_EIGHT), None, row.seed)
            for row in rows.itertuples()]
    frame = seed_table(grid.tables['2a'], Measured(made), grid)
    measured, paper = (frame[frame['figures'] == name].drop(columns='figures').reset_index(drop=True)
                       for name in ('measured', 'paper (BCV)'))
    assert len(paper) == 2
    pd.testing.assert_frame_equal(measured.sort_values('Method', ignore_index=True),
                                  paper.sort_values('Method', ignore_index=True))
    ours, without = (frame[frame['Method'] == name].iloc[0] for name in ('Ours', 'Ours w/o D'))
    assert (ours['ddof 0'], without['ddof 0']) == ('0.35', '0.20')
    assert (without['t'], without['p, one-sided'], without['p, two-sided']) == ('4.99', '0.0189', '0.0379')
