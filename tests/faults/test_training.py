"""Training is the same for any number of processes, passes and loader workers, and after any kill."""

import json
from pathlib import Path

import children
import numpy as np
import pytest
import torch

CHOICES = dict(batch=8, steps=6)


def finish(processes, status: int = 0) -> None:
    for process in processes if isinstance(processes, list) else [processes]:
        process.join(120)
        assert process.exitcode == status


def read_log(work: Path) -> tuple[np.ndarray, dict]:
    """Losses by step, and the last metrics."""
    [log] = work.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return np.array([row['loss'] for row in rows if 'loss' in row]), rows[-1]


@pytest.fixture(scope='module')
def alone(prepared, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp('alone') / 'run'
    finish(children.start(children.train, work, children.options(prepared, **CHOICES)))
    return work


@pytest.mark.parametrize('processes, changes', [
    (1, {'train_dataloader.num_workers': 2}), (1, {'experiment.accumulate': 4}), (2, {}), (4, {}),
    (2, {'experiment.accumulate': 2})])
def test_the_batch_is_the_same_however_it_is_divided(alone, prepared, tmp_path, processes, changes):
    options = children.options(prepared, **CHOICES) | changes
    work = tmp_path / 'run'
    finish(children.start_ranks(processes, children.train, work, options, 'pytorch') if processes > 1 else
           children.start(children.train, work, options))
    losses, metrics = read_log(work)
    expected, expected_metrics = read_log(alone)
    passes = changes.get('experiment.accumulate', 1)
    if passes == 1:  # a pass of its own has batch norms of its own
        np.testing.assert_allclose(losses, expected, rtol=2e-5)
        assert metrics['DSC pooled'] == pytest.approx(expected_metrics['DSC pooled'], abs=0.2)
    else:
        np.testing.assert_allclose(losses, expected, rtol=0.2)
    if processes == 1 and passes == 1:
        assert same_weights(work, alone, 6)


def same_weights(one: Path, other: Path, step: int) -> bool:
    first, second = (torch.load(folder / f'iter_{step}.pth', weights_only=True)['state_dict']
                     for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
