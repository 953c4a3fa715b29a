"""Where output is no terminal, long work tells of itself in plain lines."""

import re
import time
from types import SimpleNamespace

import pytest
from conftest import write_msd
from mmengine.registry import HOOKS

from benchmarks.executors.progress import Progress
from mmseg_plugins import progress
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.experiment import load_config
from mmseg_plugins.terminal import counter


@pytest.fixture
def every(monkeypatch):
    monkeypatch.setattr(progress, 'EVERY', 0.05)


def test_a_grid_says_what_is_running_and_what_is_left(every, capfd):
    names = [f'run{number}' for number in range(6)]
    with Progress() as shown:
        shown.begin({('source', 'layout'): 100, **dict.fromkeys(names, 100)})
        time.sleep(0.1)
        shown.advance(('source', 'layout'), 0)
        for name in names[:5]:
            shown.advance(name, 0)
            shown.advance(name, 20)
        shown.finish('run0', 'done  the first')
        time.sleep(0.2)
    time.sleep(0.1)
    out = capfd.readouterr().out
    lines = out.splitlines()
    assert '\r' not in out and '\x1b' not in out and 3 <= len(lines) <= 8
    assert lines[0] == '0 of 7 ended, running: nothing yet  [0/700 steps]'
    [done] = [line for line in lines if line.startswith('done')]
    assert re.fullmatch(r'done  the first  \[180/700 steps, 0\.\d min left\]', done)
    assert re.fullmatch(r'1 of 7 ended, running: source layout \(0/100\), run1 \(20/100\), run2 \(20/100\), '
                        r'run3 \(20/100\), 1 more  \[180/700 steps, 0\.\d min left\]', lines[-1])


def test_a_debugger_is_not_talked_into(every, capfd):
    with Progress(bars=False) as shown:
        shown.begin(dict(a=100))
        time.sleep(0.15)
    assert not capfd.readouterr().out


def test_preparing_says_how_far_it_is(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(progress, 'EVERY', 0.0)
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=3)
    for make in (lambda: counter('preparing'), lambda: Progress().counter('preparing')):
        prepare_dataset('hippocampus', raw, tmp_path / 'out', make(), workers=1)
        out = ''.join(capfd.readouterr())
        assert re.fullmatch(r'preparing case_000: 0 of 3\n'
                            r'preparing case_001: 1 of 3, 0\.\d min left\n'
                            r'preparing case_002: 2 of 3, 0\.\d min left\n'
                            r'preparing : 3 of 3, 0\.0 min left\n', out), out


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
