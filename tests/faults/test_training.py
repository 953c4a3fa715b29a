"""Training is the same for any number of processes, passes and loader workers, and after any kill."""

import itertools
import json
import os
import random
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import children
import numpy as np
import pytest
import torch
from children import finish
from conftest import free_port, wait_for
from mmengine.config import Config

CHOICES = dict(batch=8, steps=6)


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
        assert same_weights(work, alone, 'iter_6.pth')


@pytest.mark.parametrize('method', ['transunet', 'swinunet'])
def test_so_it_is_of_the_networks_that_are_compared_with(prepared, tmp_path, method):
    """By their published recipes, at the miniatures' sizes."""
    configs, config = children.REPO / 'configs', tmp_path / 'config.py'
    mini = Config.fromfile(configs / f'{method}_phantom.py').model.to_dict()
    del mini['decode_head']['loss_decode']
    loaders = '\n'.join(f'{name}_dataloader = dict(num_workers=0)' for name in ('train', 'val', 'test'))
    config.write_text(f'_base_ = {str(configs / f"{method}_bcv.py")!r}\n{loaders}\n'
                      f'model = dict(backbone={mini["backbone"]}, decode_head={mini["decode_head"]})\n')
    options = children.options(prepared, **CHOICES, slices=1, lr=1e-3, img_size=64, evaluate='test')
    one, two = tmp_path / 'one', tmp_path / 'two'
    finish(children.start(children.train, one, options, config=config))
    finish(children.start_ranks(2, children.train, two, options, 'pytorch', config=config))
    np.testing.assert_allclose(read_log(two)[0], read_log(one)[0], rtol=2e-5)


def same_weights(one: Path, other: Path, file: str) -> bool:
    first, second = (torch.load(folder / file, weights_only=True)['state_dict'] for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize('target, counts', [('center', (1, 2, 8)), ('all', (1, 3))])
def test_evaluation_is_the_same_for_any_number_of_processes(prepared, tmp_path, target, counts):
    work, options = tmp_path / 'run', children.options(prepared, target=target, **CHOICES)
    finish(children.start(children.train, work, options))
    figures, choices = [], [f'{key}={value}' for key, value in options.items()]
    for count in counts:
        arguments = ['tools/test.py', children.CONFIG, work / 'iter_6.pth', '--work-dir', tmp_path / str(count),
                     '--out', tmp_path / f'{count}.json', '--launcher', 'pytorch' if count > 1 else 'none',
                     '--cfg-options', *choices]
        finish(children.start_ranks(count, children.script, arguments, tmp_path / 'log'))
        figures.append(json.loads((tmp_path / f'{count}.json').read_text()))
    assert all(found == figures[0] for found in figures) and 0 < figures[0]['mean']['dsc_pooled'] < 100
    last = read_log(work)[1]  # and what training found at its end
    means = {metric['title']: figures[0]['mean'][name] for name, metric in figures[0]['metrics'].items()}
    assert {title: last[title] for title in means} == means


def test_elastic_restart_goes_on_from_the_checkpoint(uninterrupted_by_two, prepared, tmp_path):
    """torchrun starts all ranks again when one is killed."""
    work = tmp_path / 'run'
    options = [f'{key}={value}' for key, value in kill_options(prepared).items()]
    path = f'{Path(children.PYTHON).parent}:{os.environ["PATH"]}'
    command = [children.REPO / 'tools/dist_train.sh', children.CONFIG, '2', '--work-dir', work]
    environment = os.environ | dict(MAX_RESTARTS='1', PORT=str(free_port()), PATH=path)
    process = subprocess.Popen(
        [*command, '--cfg-options', *options], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for((work / 'iter_2.pth').exists, 300, 'the first checkpoint')
    ranks = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert '24 steps of 4 windows (2 processes x 2 windows x 1 accumulated) on 8 cases' in output
    assert 'resumed epoch: 0, iter: ' in output and same_weights(work, uninterrupted_by_two, f'iter_{STEPS}.pth')


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
    """24 kills of a run, as often as it takes from the start; every start is from the newest checkpoint.

    Every third comes at any time after the start, the others at any time after a new checkpoint, so that there is
    something to go on from.
    """
    rng, kills, rounds, finished = random.Random(6), 0, 0, False
    while kills < 24 or not finished:
        work = tmp_path / f'run{rounds}'
        process, before = children.start(children.train, work, kill_options(prepared)), newest(work)
        if kills == 24:
            process.join(120)
        elif kills % 3 == 0:
            process.join(rng.uniform(0.3, 2.5))
        else:
            wait_for(lambda work=work, before=before, process=process: newest(work) > before or
                     process.exitcode is not None, 60, 'the next checkpoint')
            process.join(rng.uniform(0, 0.2))
        finished = process.exitcode is not None
        if not finished:
            process.kill()
            process.join()
            kills += 1
            assert not [path for path in work.glob('iter_*.pth') if not whole(path)]
            continue
        assert process.exitcode == 0 and same_weights(work, uninterrupted, f'iter_{STEPS}.pth')
        steps = np.array([row['step'] for row in logged(work)])
        assert set(steps) == set(range(1, STEPS + 1))
        # repeated is only what came after a checkpoint
        assert max(before - after for before, after in itertools.pairwise(steps)) < 2
        rounds += 1
    assert sum(path.read_text().count('resumed epoch: 0, iter: ') for path in tmp_path.glob('run*.log')) >= 12


def test_a_resumed_run_has_the_same_dropout_with_loader_workers(uninterrupted, prepared, tmp_path):
    work, options = tmp_path / 'run', kill_options(prepared) | {'train_dataloader.num_workers': 2}
    process = children.start(children.train, work, options)
    wait_for(lambda: newest(work), 60, 'a checkpoint')
    process.kill()
    process.join()
    assert newest(work) < STEPS
    finish(children.start(children.train, work, options))
    assert same_weights(work, uninterrupted, f'iter_{STEPS}.pth')


def test_a_kill_in_the_middle_of_a_checkpoint_leaves_the_one_before_it_alone(uninterrupted, prepared, tmp_path):
    work, size = tmp_path / 'run', (uninterrupted / f'iter_{STEPS}.pth').stat().st_size
    finish(children.start(children.train, work, kill_options(prepared), hooks=[children.Choke(4, size // 2)]),
           -signal.SIGXFSZ)
    [torn] = work.glob('.iter_4.pth.*')
    assert torn.stat().st_size == size // 2
    assert [path.name for path in work.glob('iter_*.pth')] == ['iter_2.pth'] and whole(work / 'iter_2.pth')
    finish(children.start(children.train, work, kill_options(prepared)))
    assert same_weights(work, uninterrupted, f'iter_{STEPS}.pth') and not list(work.glob('.iter_*'))


@pytest.fixture(scope='module')
def uninterrupted_by_two(prepared, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp('two') / 'run'
    finish(children.start_ranks(2, children.train, work, kill_options(prepared), 'pytorch'))
    return work


def test_no_kill_of_a_rank_changes_the_final_weights(uninterrupted_by_two, prepared, tmp_path):
    work, rng = tmp_path / 'run', random.Random(7)
    for _ in range(4):
        before = newest(work)
        ranks = children.start_ranks(2, children.train, work, kill_options(prepared), 'pytorch')
        wait_for(lambda before=before: newest(work) > before, 60, 'the next checkpoint')
        time.sleep(rng.uniform(0, 0.2))
        victim, other = rng.sample(ranks, 2)
        victim.kill()
        other.join(60)  # it notices by itself that its peer is gone
        assert victim.exitcode == -signal.SIGKILL and other.exitcode == 1
    finish(children.start_ranks(2, children.train, work, kill_options(prepared), 'pytorch'))
    assert (work.with_suffix('.log')).read_text().count('resumed epoch: 0, iter: ') == 4
    steps = np.array([row['step'] for row in logged(work)])
    assert max(before - after for before, after in itertools.pairwise(steps)) < 2
    assert same_weights(work, uninterrupted_by_two, f'iter_{STEPS}.pth')


def newest(work: Path) -> int:
    return max((int(path.stem.split('_')[1]) for path in work.glob('iter_*.pth')), default=0)


def whole(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None
