"""Long work tells of itself: by a bar on a terminal, elsewhere in plain lines."""

import re
import time
from types import SimpleNamespace

import pytest
from conftest import wait_for
from mmengine.registry import HOOKS

from benchmarks.executors.jobs import Controller, Job
from mmseg_plugins import progress
from mmseg_plugins.experiment import load_config
from mmseg_plugins.progress import Progress, counting


@pytest.fixture
def told(monkeypatch, capfd):
    """A function that waits for a line, while one is said every moment, and returns all that there are."""
    monkeypatch.setattr(progress, 'EVERY', 0.02)
    text = ''

    def told(pattern: str) -> str:
        nonlocal text

        def found() -> bool:
            nonlocal text
            text += ''.join(capfd.readouterr())
            return any(re.fullmatch(pattern, line) for line in text.splitlines())
        wait_for(found, 20, pattern)
        return text
    return told


def test_a_grid_says_what_is_running_and_what_is_left(told, tmp_path):
    source, *runs = [Job(name, print, steps=100) for name in ('source layout', *(f'run{k}' for k in range(7)))]
    with Progress() as shown:
        controller = Controller([source, *runs], tmp_path, tmp_path, shown)
        told('training steps: 0 of 800; 0 of 8 ended, running: nothing yet')
        for job in (source, *runs[:6]):
            controller.progress(job, 0)
        for job in runs[:6]:
            controller.progress(job, 20)
        controller.progress(runs[0], 100)
        controller.ended(runs[0])
        told(r'done  run0  \[200 of 800, 0\.\d min left\]')
        text = told(r'training steps: 200 of 800, 0\.\d min left; 1 of 8 ended, running: source layout \(0/100\), '
                    r'run1 \(20/100\), run2 \(20/100\), run3 \(20/100\) and 2 more')
    assert '\r' not in text and '\x1b' not in text


def test_steps_of_earlier_calls_are_not_counted_again(tmp_path):
    counted = []
    shown = SimpleNamespace(say=print, counter=lambda title: lambda *count: counted.append(count[:2]))
    resumed, fresh = jobs = [Job(name, print, steps=100) for name in ('resumed', 'fresh')]
    controller = Controller(jobs, tmp_path, tmp_path, shown)
    controller.progress(resumed, 90)
    controller.progress(resumed, 91)
    controller.progress(fresh, 0)
    controller.progress(fresh, 1)
    controller.ended(fresh, 'a reason')
    assert counted == [(0, 200), (0, 110), (1, 110), (1, 110), (2, 110), (2, 11)]


def test_a_debugger_is_not_talked_into(monkeypatch, capfd):
    monkeypatch.setattr(progress, 'EVERY', 0.001)
    with Progress(shown=False) as shown:
        shown.counter('steps')(0, 100, 'first')
        time.sleep(0.1)
    assert not ''.join(capfd.readouterr())


def test_items_are_named_as_they_come(told):
    with counting('preparing') as count:
        for done in range(3):
            count(done, 3, f'case{done}')
            told(rf'preparing: {done} of 3(, 0\.\d min left)?; case{done}')
        assert count(3, 3, '') == '3 of 3'


def test_a_terminal_shows_a_bar(monkeypatch, capfd):
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('COLUMNS', '100')
    with counting('preparing') as count:
        count(1, 3, 'case1')
    shown = capfd.readouterr().err
    assert all(part in shown for part in ('preparing', '━', '1/3', 'case1'))


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
def test_training_and_evaluation_log_slow_steps(prepared, monkeypatch, mode):
    cfg = load_config('configs/mini_beit_centering_hippocampus.py', {'experiment.data_root': str(prepared)})
    hook, said, clock = HOOKS.build(cfg.default_hooks.logger), [], [0.0]
    runner = SimpleNamespace(
        logger=SimpleNamespace(info=said.append), timestamp='now', iter=0, train_dataloader=range(99),
        log_processor=SimpleNamespace(get_log_after_iter=lambda runner, step, mode: ({}, f'{mode} {step + 1}')),
        visualizer=SimpleNamespace(add_scalars=lambda *args, **kwargs: None))
    monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
    hook.before_run(runner)
    for step in range(60):
        clock[0] += 9.0
        getattr(hook, f'after_{mode}_iter')(runner, step)
    # 30 s are over after every fourth step; the fiftieth is mmengine's own, from which the time counts anew
    assert said == [f'{mode} {step}' for step in (*range(4, 50, 4), 50, 54, 58)]
