"""Training is the same for any number of processes, passes and loader workers, and after any kill."""

import itertools
import json
import random
import time
import zipfile
from pathlib import Path

import children
import numpy as np
import pytest
import torch

CHOICES = dict(batch=8, steps=6)


def finish(processes, status: int = 0) -> None:
    for process in processes if isinstance(processes, list) else [processes]:
        process.join(300)
        assert process.exitcode == status


def read_log(work: Path) -> tuple[np.ndarray, dict]:
    """Losses by step, and the last metrics."""
    rows = logged(work)
    return np.array([row['loss'] for row in rows if 'loss' in row]), rows[-1]


def logged(work: Path) -> list[dict]:
    """What the run logged, over all its starts."""
    return [json.loads(line) for log in sorted(work.glob('*/vis_data/scalars.json'))
            for line in log.read_text().splitlines()]


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


STEPS = 24


@pytest.fixture(scope='module')
def uninterrupted(prepared, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp('uninterrupted') / 'run'
    finish(children.start(children.train, work, kill_options(prepared)))
    return work


def kill_options(prepared: Path) -> dict:
    """With dropout and drop path, whose randomness has to come back too."""
    return children.options(prepared, steps=STEPS, batch=4, checkpoint_interval=2) | {
        'model.backbone.drop_path_rate': 0.2, 'model.decode_head.dropout_ratio': 0.1}


def test_no_kill_at_any_moment_changes_the_final_weights(uninterrupted, prepared, tmp_path):
    """24 kills of a run, as often as it takes from the start; every start is from the newest checkpoint."""
    rng, kills, rounds, finished = random.Random(6), 0, 0, False
    while kills < 24 or not finished:
        work = tmp_path / f'run{rounds}'
        process = children.start(children.train, work, kill_options(prepared))
        process.join(rng.uniform(0.3, 2.5) if kills < 24 else 120)
        finished = process.exitcode is not None
        if not finished:
            process.kill()
            process.join()
            kills += 1
            assert not [path for path in work.glob('iter_*.pth') if not whole(path)]
        else:
            assert process.exitcode == 0 and same_weights(work, uninterrupted, STEPS)
            rounds += 1
    steps = np.array([row['step'] for row in logged(work)])
    assert set(steps) == set(range(1, STEPS + 1))
    assert max(before - after for before, after in itertools.pairwise(steps)) < 2  # repeats: since a checkpoint


def test_no_kill_of_a_rank_changes_the_final_weights(prepared, tmp_path):
    options, works = kill_options(prepared), [tmp_path / 'killed', tmp_path / 'whole']
    finish(children.start_ranks(2, children.train, works[1], options, 'pytorch'))
    rng = random.Random(7)
    for kill in (True, True, True, True, False):
        ranks = children.start_ranks(2, children.train, works[0], options, 'pytorch')
        if kill:
            time.sleep(rng.uniform(1, 3))
            victim, other = rng.sample(ranks, 2)
            victim.kill()
            other.join(30)  # it notices by itself that its peer is gone
            other.kill()
        for rank in ranks:
            rank.join(120)
    assert same_weights(*works, STEPS)


def whole(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None
