"""Where jobs are carried out, without the cluster (tests/faults/test_slurm.py)."""

import gc
import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import REPO
from small_jobs import creep, die, divide, look, mistake

from benchmarks.executors import local, slurm
from benchmarks.executors.base import choose_executor, register_executor
from benchmarks.executors.jobs import Controller, Job, make_jobs
from benchmarks.executors.local import DebugExecutor, LocalExecutor
from benchmarks.grid.axes import Cell
from benchmarks.grid.reader import load_grid
from benchmarks.run_grid import parse_args
from benchmarks.runs import execute
from benchmarks.runs.agenda import Agenda, SourceJob, make_run
from benchmarks.runs.provenance import provenance
from benchmarks.runs.records import read_records
from benchmarks.runs.run import Run
from mmseg_plugins import startup
from mmseg_plugins.errors import UserError
from mmseg_plugins.sources import write_note
from mmseg_plugins.threads import use_threads


def control(jobs: list[Job], folder: Path) -> tuple[Controller, list[str]]:
    """A controller of jobs, and what it says."""
    said = []
    progress = SimpleNamespace(say=said.append, counter=lambda title: lambda *_: '')
    return Controller(jobs, folder, folder, progress), said


def test_seeds_come_in_turn_and_what_needs_no_source_first(tmp_path):
    cells = [Cell('phantom', source=source, slices=slices) for source in ('layout', 'none') for slices in (1, 5)]
    runs = [Run(cell, seed, 'config.py', {'experiment.steps': 1}, 'abcd1234') for cell in cells for seed in (7, 3)]
    source = SourceJob('layout', 'config.py', {}, tmp_path / 'layout.pth', 'digest', 1, None)
    agenda = Agenda(None, 'title', runs, runs[1:], [], [source], {})  # the first has ended
    first, *jobs = make_jobs(agenda, tmp_path, tmp_path, {})
    assert first.name == 'source layout' and {job.needs for job in jobs} == {None, first.name}
    assert [(job.run.seed, job.run.cell.source, job.run.cell.slices) for job in jobs] == [
        (seed, *cell) for seed in (7, 3) for cell in (('none', 1), ('none', 5), ('layout', 1), ('layout', 5))
        if (seed, *cell) != (7, 'layout', 1)]


def test_a_source_that_two_grids_need_is_made_once(tmp_path, monkeypatch):
    out, made = tmp_path / 'weights/layout.pth', []

    def pretrain(cfg, out, hooks, digest, **_):
        made.append(digest)
        time.sleep(0.5)
        write_note(out, dict(digest=digest))
        out.touch()
    monkeypatch.setattr(execute, 'pretrain', pretrain)
    monkeypatch.setattr(execute, '_load', lambda *_: None)
    run = Run(Cell('phantom', source='layout'), 1, 'config.py', {'experiment.steps': 1}, 'abcd1234')
    jobs = []
    for digest in ('first', 'second'):  # of an earlier recipe, then today's for two grids
        source = SourceJob('layout', 'config.py', {}, out, digest, 1, None)
        agenda = Agenda(None, 'title', [run], [run], [], [source], {})
        jobs = [make_jobs(agenda, tmp_path / grid, tmp_path / grid, {})[0] for grid in ('one', 'two')]
        assert [job.left() for job in jobs] == [None, None]
        with ThreadPoolExecutor(2) as pool:
            assert [*pool.map(lambda job: job(print), jobs)] == [None, None]
        assert all(job.left() for job in jobs)
    assert made == ['first', 'second']


def test_a_run_whose_config_has_changed_since_it_was_named_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = load_grid('hippocampus')
    run = make_run(grid, grid.cells()[0], 1, tmp_path, 2)
    changed = replace(run, options=run.options | {'experiment.lr': 0.5})
    said = execute.execute_run(changed, tmp_path, tmp_path / 'work', print)
    assert said == 'its config or data have changed since the grid was called; call it again'
    assert not list(tmp_path.glob('records/*'))


def test_where_there_is_no_git_the_revision_is_not_known(monkeypatch):
    monkeypatch.setenv('PATH', '')
    code = provenance.__wrapped__()['code']
    assert code == dict(revision=None, modified=False)


def test_in_this_process_one_after_another(tmp_path):
    controller, said = control([Job('a', mistake), Job('b', partial(look, tmp_path / 'b')), Job('c', look, 'a'),
                                Job('d', print, leaves=tmp_path / 'd.json'), Job('e', divide)], tmp_path)
    with pytest.raises(ZeroDivisionError):
        DebugExecutor().run(controller)
    assert controller.states == dict(a='lost', b='done', c='lost', d='lost', e='running')
    assert said == ['failed  a: no such case  []', 'failed  c: a could not be made  []', 'done  b  []',
                    f'failed  d: it has not left {tmp_path}/d.json  []']
    assert (tmp_path / 'b').read_text().split()[0] == str(os.getpid())


def test_progress_says_what_waiting_jobs_wait_for(tmp_path):
    shown = []
    jobs = [Job('source', print), Job('a', print, 'source'), Job('b', print, 'source'), Job('c', print)]
    progress = SimpleNamespace(say=print, counter=lambda title: lambda done, total, item: shown.append(item))
    controller = Controller(jobs, tmp_path, tmp_path, progress)
    controller.progress(controller.next(), 0)
    assert shown[-1] == '0 of 4 ended, running: source (0/1), waiting: 2 for source'
    controller.queued(dict(c='Slurm (Resources)'))
    assert shown[-1].endswith(', waiting: 2 for source, 1 for Slurm (Resources)')
    controller.ended(jobs[0])
    controller.queued({})
    assert shown[-1] == '1 of 4 ended, running: nothing yet'


def test_a_job_that_slurm_requeued_waits(tmp_path, monkeypatch):
    (tmp_path / 'work/1/vis_data').mkdir(parents=True)
    (tmp_path / 'work/1/vis_data/scalars.json').write_text('{"step": 120, "loss": 1.0}\n')
    job, shown, said = Job('a', print, folder=tmp_path / 'work', leaves=tmp_path / 'a.json', steps=400), [], []
    controller = Controller([job], tmp_path, tmp_path, SimpleNamespace(
        say=said.append, counter=lambda title: lambda done, total, item: shown.append(item)))
    queue = iter([('RUNNING', ''), ('PENDING', 'Priority'), ('RUNNING', ''), ('CANCELLED', ''), ('CANCELLED', '')])
    monkeypatch.setattr(slurm, '_ask_queue', lambda folder: {'7': next(queue)})
    monkeypatch.setattr(slurm, 'POLL', 0)
    slurm._follow(controller, dict(a='7'), tmp_path)
    told = [item.removeprefix('0 of 1 ended, running: ') for item in shown if item.startswith('0 of 1')]
    assert [item for item, _ in itertools.groupby(told)] == [
        'nothing yet', 'a (120/400)', 'nothing yet, waiting: 1 for Slurm (Priority)', 'a (120/400)']
    assert [line.split(':')[0] for line in said] == ['again  a, from its last checkpoint', 'failed  a']


def test_workers_share_the_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,7')
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    controller, _ = control([Job(name, partial(look, tmp_path / name)) for name in 'ab'], tmp_path)
    LocalExecutor(2).run(controller)
    assert controller.states == dict(a='done', b='done')
    for name in 'ab':
        assert (tmp_path / name).read_text().split()[1] == '3'
    assert {(tmp_path / name).read_text().split()[2] for name in 'ab'} == {'3', '7'}


def test_a_dead_worker_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(local, 'SPAWN', get_context('fork'))  # starts at once
    controller, said = control([Job('a', die), Job('b', partial(look, tmp_path / 'b')), Job('c', look, 'a'),
                                Job('d', divide)], tmp_path)
    LocalExecutor(2).run(controller)
    assert controller.states == dict(a='lost', b='done', c='lost', d='lost')
    assert sum(line.startswith('again  a, from its last checkpoint: ') for line in said) == 2
    [died, divided] = [next(line for line in said if line.startswith(f'failed  {name}: ')) for name in 'ad']
    assert '3 times without progress, ' in died and 'SIGKILL' in died and 'ZeroDivisionError' in divided


def test_a_job_may_die_as_often_as_it_gets_further(tmp_path, monkeypatch):
    monkeypatch.setattr(local, 'SPAWN', get_context('fork'))  # starts at once
    controller, said = control([Job('a', partial(creep, tmp_path / 'step'), steps=5)], tmp_path)
    LocalExecutor(1).run(controller)
    assert controller.states == dict(a='done') and len(said) == 5


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
        (tmp_path / command).write_text(f'#!/bin/sh\nprintf "{said}"\n')
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setattr(sys, 'argv', [
        'run_grid.py', '--executor', 'slurm', '--detach', '--partition', 'long', '--time', '61', '--nodes', '2',
        '--gpus', '3', '--cpus', '5', '--memory', '7G', '--limit', '1', '--grace', '11',
        '--sbatch', 'account=mine'])
    run = Run(Cell('hippocampus'), 1, 'config.py', {}, 'abcd1234')
    jobs = [Job(name, print, None, tmp_path / name, tmp_path / f'{name}.json', run=run) for name in ('one', 'two')]
    choose_executor(parse_args()).run(control(jobs, tmp_path / 'work')[0])
    lines = next((tmp_path / 'work').rglob('*submission*.sh')).read_text()
    for setting in ('partition=long', 'time=61', 'nodes=2', 'gpus-per-node=3', 'ntasks-per-node=3',
                    'cpus-per-task=5', 'mem=7G', 'array=0-1%1', 'signal=USR2@11', 'account=mine'):
        assert f'#SBATCH --{setting}\n' in lines


@pytest.mark.parametrize('options, message', [
    (['--executor', 'slrum'], "--executor slrum: not registered; did you mean 'slurm'"),
    (['--partition', 'gpu'], '--partition is for --executor slurm, not for local'),
    (['--executor', 'debug', '--detach'], '--detach is for --executor slurm, not for debug'),
    (['--executor', 'slurm', '--workers', '2'], '--workers is for --executor local, not for slurm'),
    (['--executor', 'slurm', '--time', '0'], 'time is 0; it must be a whole number, at least 1')])
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
    monkeypatch.setattr(local, 'available_cores', lambda: 8)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    executor = LocalExecutor(workers)
    assert (executor.workers, executor.threads) == expected


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


def test_the_script_knows_its_executors():
    code = 'import benchmarks.run_grid; from benchmarks.executors.base import EXECUTORS; print(*EXECUTORS)'
    told = subprocess.run([sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True, check=True)
    assert sorted(told.stdout.split()) == ['debug', 'local', 'slurm']


def test_no_executor_takes_anothers_name():
    with pytest.raises(KeyError, match="executor 'local' is registered already"):
        register_executor('local')(DebugExecutor)
