"""The committed runs are the runs that their grids name: what is recorded is neither repeated nor superseded."""

from pathlib import Path

import pytest
from conftest import REPO

from benchmarks import plan
from benchmarks.grid.reader import load_grid

RESULTS = REPO / 'results'
DATA = {'phantom': '1527422c', 'hippocampus': '3ca5abbd'}  # plan.data_digest of each, prepared whole


@pytest.mark.parametrize('name', sorted(path.parent.name for path in RESULTS.glob('*/grid.yaml')))
def test_committed_records_are_of_their_grids_runs(name, monkeypatch):
    monkeypatch.setattr(plan, '_prepared_digest', lambda dataset, cfg: DATA[dataset])
    grid = load_grid(str(RESULTS / name / 'grid.yaml'))
    runs = {plan.make_run(grid, cell, seed, Path('weights'), None).name
            for cell in grid.cells() for seed in grid.seeds}
    assert runs == {path.stem for path in (RESULTS / name / 'records').glob('*.json')}
