"""Where runs are carried out, without the cluster (tests/faults/test_slurm.py)."""

import os
import sys

import pytest

from benchmarks import runner
from benchmarks.cells import Cell
from benchmarks.executors import DebugExecutor, choose_executor
from benchmarks.pool import Job
from benchmarks.records import Run, read_records
from benchmarks.run_grid import parse_args
from mmseg_plugins.errors import UserError


def test_in_this_process_one_after_another(tmp_path, monkeypatch):
    (tmp_path / 'here.py').write_text(
        'import os\n\nfrom mmseg_plugins.errors import UserError\n\n\n'
        'def where(report):\n    report(1, 2)\n    return os.getpid()\n\n\n'
        'def mistaken(report):\n    raise UserError("no such case")\n\n\n'
        'def wrong(report):\n    return 1 / 0\n')
    monkeypatch.syspath_prepend(tmp_path)
    events = []
    jobs = [Job('mistaken', 'here:mistaken', ()), Job('where', 'here:where', ()),
            Job('needs', 'here:where', (), frozenset({'mistaken'})), Job('wrong', 'here:wrong', ())]
    with pytest.raises(ZeroDivisionError):
        DebugExecutor().run(jobs, tmp_path, lambda *event: events.append(event))
    assert events == [('dead', 'mistaken', 'no such case'), ('progress', 'where', (1, 2)),
                      ('done', 'where', os.getpid()), ('blocked', 'needs', frozenset({'mistaken'}))]


def test_a_debugger_gets_the_errors_of_a_run(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError('here')

    monkeypatch.setattr(runner, '_train_and_evaluate', fail)
    run = Run(Cell('hippocampus', source='none'), 1, 'config.py', {}, 'abcd1234')
    with pytest.raises(RuntimeError, match='here'):
        runner.execute_run(run, tmp_path, tmp_path / 'work', print, **DebugExecutor.options)
    assert not read_records(tmp_path)[0]
    assert runner.execute_run(run, tmp_path, tmp_path / 'work', print) == 'RuntimeError: here'


def test_every_setting_reaches_sbatch(tmp_path, monkeypatch):
    for command, said in (('sbatch', 'Submitted batch job 7'), ('squeue', ''), ('srun', '')):
        (tmp_path / command).write_text(f'#!/bin/sh\necho {said}\n')
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setattr(sys, 'argv', [
        'run_grid.py', '--executor', 'slurm', '--detach', '--partition', 'long', '--time', '61', '--nodes', '2',
        '--gpus', '3', '--cpus', '5', '--memory', '7G', '--limit', '1', '--grace', '11',
        '--sbatch', 'account=mine'])
    jobs = [Job(name, 'os:getpid', (), folder=tmp_path / name, leaves=tmp_path / name / 'record.json',
                options=dict(launcher='pytorch')) for name in ('one', 'two')]
    choose_executor(parse_args()).run(jobs, tmp_path / 'work', pytest.fail)
    lines = next((tmp_path / 'work').rglob('*submission*.sh')).read_text()
    for setting in ('partition=long', 'time=61', 'nodes=2', 'gpus-per-node=3', 'ntasks-per-node=3',
                    'cpus-per-task=5', 'mem=7G', 'array=0-1%1', 'signal=USR2@11', 'account=mine'):
        assert f'#SBATCH --{setting}\n' in lines


@pytest.mark.parametrize('options, message', [
    (['--partition', 'gpu'], '--partition is for --executor slurm, not for local'),
    (['--executor', 'debug', '--detach'], '--detach is for --executor slurm, not for debug'),
    (['--executor', 'slurm', '--workers', '2'], '--workers is for --executor local, not for slurm'),
    (['--executor', 'slurm', '--time', '0'], 'time is 0; it must be at least 1')])
def test_an_option_of_another_executor_is_one_line(monkeypatch, options, message):
    monkeypatch.setattr(sys, 'argv', ['run_grid.py', *options])
    with pytest.raises(UserError, match=message):
        choose_executor(parse_args())
