"""Where runs are carried out, without the cluster (tests/faults/test_slurm.py)."""

import gc
import os
import sys

import pytest
import torch

from benchmarks import executors
from benchmarks.executors import DebugExecutor, LocalExecutor, choose_executor
from benchmarks.grid.axes import Cell
from benchmarks.pool import Job
from benchmarks.run_grid import parse_args
from benchmarks.runs import execute
from benchmarks.runs.records import read_records
from benchmarks.runs.run import Run
from mmseg_plugins import startup
from mmseg_plugins.errors import UserError
from mmseg_plugins.threads import use_threads


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

    monkeypatch.setattr(execute, '_train_and_evaluate', fail)
    run = Run(Cell('hippocampus', source='none'), 1, 'config.py', {}, 'abcd1234')
    with pytest.raises(RuntimeError, match='here'):
        execute.execute_run(run, tmp_path, tmp_path / 'work', print, **DebugExecutor.options)
    assert not read_records(tmp_path)[0]
    assert execute.execute_run(run, tmp_path, tmp_path / 'work', print) == 'RuntimeError: here'


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


@pytest.mark.parametrize('chosen, workers, expected', [
    (None, None, (8, 1)), (None, 3, (3, 2)), ('4', None, (2, 4)), ('4', 3, (3, 4)), ('16', None, (1, 16)),
    ('2,1', None, (4, 2))])
def test_the_users_threads_are_his(monkeypatch, chosen, workers, expected):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if chosen:
        monkeypatch.setenv('OMP_NUM_THREADS', chosen)
    monkeypatch.setattr(executors, 'available_cores', lambda: 8)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    local = LocalExecutor(workers)
    assert (local.workers, local.threads) == expected


@pytest.mark.parametrize('chosen', ['many', '0', '-1', '1.5'])
def test_a_number_of_threads_that_is_none_is_one_line(monkeypatch, chosen):
    monkeypatch.setenv('OMP_NUM_THREADS', chosen)
    with pytest.raises(UserError, match=f'OMP_NUM_THREADS={chosen} in the environment is no number of threads'):
        LocalExecutor(None)


@pytest.mark.parametrize('chosen, threads', [(None, 3), ('2', 2)])
def test_threads_of_a_process(monkeypatch, chosen, threads):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if chosen:
        monkeypatch.setenv('OMP_NUM_THREADS', chosen)
    try:
        use_threads(3)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize('environment', [
    {}, dict(GOMP_SPINCOUNT='infinity'), dict(OMP_WAIT_POLICY='ACTIVE'), dict(KMP_BLOCKTIME='200')])
def test_threads_rest_unless_the_user_wants_them_to_spin(monkeypatch, environment):
    for name in startup.WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with startup.importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    found = {name: os.environ[name] for name in startup.WAITING if name in os.environ}
    assert found == (environment or dict(GOMP_SPINCOUNT='1000'))
