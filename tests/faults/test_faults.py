"""What must happen when something goes wrong: one test per row of the table in docs/faults.md."""

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import children
import pytest
import torch
from children import finish
from conftest import wait_for, write_msd
from test_training import logged, same_weights, whole

from benchmarks.grid.axes import Cell
from benchmarks.runs.records import record_path, write_record
from benchmarks.runs.run import Run
from mmseg_plugins.compat import newest_whole
from mmseg_plugins.errors import Stopped
from mmseg_plugins.files import only_writer, write_atomic
from mmseg_plugins.signals import StopRequest
from mmseg_plugins.work_dir import WEIGHTS

STEPS = 10


def options(prepared: Path, **changes) -> dict:
    return children.options(prepared, **dict(steps=STEPS, batch=4, checkpoint_interval=4) | changes)


@pytest.fixture(scope='module')
def undisturbed(prepared, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp('undisturbed') / 'run'
    finish(children.start(children.train, work, options(prepared)))
    return work


def said(work: Path) -> str:
    return work.with_suffix('.log').read_text()


# SIGINT, SIGTERM, Slurm's preemption signal

@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_leaves_a_checkpoint_of_the_step_at_hand(undisturbed, prepared, tmp_path, number):
    work = tmp_path / 'run'
    process = children.start(children.train, work, options(prepared), hooks=[children.Linger(0.2)])
    wait_for(lambda: len(logged(work)) >= 2, 60, 'the second step')
    os.kill(process.pid, number)
    sent = time.monotonic()
    finish(process, 128 + number)
    assert time.monotonic() - sent < 10
    [checkpoint] = work.glob('iter_*.pth')
    assert checkpoint.name == f'iter_{logged(work)[-1]["step"]}.pth'
    assert said(work).splitlines()[-1].startswith(f'stopped by {number.name}; to go on')
    assert 'Traceback' not in said(work)
    finish(children.start(children.train, work, options(prepared)))
    assert same_weights(work, undisturbed, f'iter_{STEPS}.pth')


def test_a_signal_to_the_process_group_does_not_end_the_loaders_workers(undisturbed, prepared, tmp_path):
    """As torchrun sends it."""
    work, more = tmp_path / 'run', {'train_dataloader.num_workers': 2}
    process = children.start(children.train, work, options(prepared) | more, hooks=[children.Linger(0.2)],
                             group=True)
    wait_for(lambda: len(logged(work)) >= 2, 60, 'the second step')
    os.killpg(process.pid, signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    assert (work / f'iter_{logged(work)[-1]["step"]}.pth').is_file() and 'Traceback' not in said(work)
    finish(children.start(children.train, work, options(prepared)))
    assert same_weights(work, undisturbed, f'iter_{STEPS}.pth')


def test_an_evaluation_that_was_interrupted_is_made_up_for(undisturbed, prepared, tmp_path):
    work, changed = tmp_path / 'run', options(prepared, val_interval=5)
    finish(children.start(children.train, work, changed, hooks=[children.StopAtValidation(5)]), 143)
    assert not [row for row in logged(work) if 'DSC pooled' in row]
    finish(children.start(children.train, work, changed, hooks=[children.StopAtStep(7)]), 143)
    shutil.copytree(work, tmp_path / 'begun')
    (tmp_path / 'begun/iter_7.pth').unlink()  # as of one that was killed
    for folder in (work, tmp_path / 'begun'):
        finish(children.start(children.train, folder, changed))
        assert [row['step'] for row in logged(folder) if 'DSC pooled' in row] == [5, STEPS]
    assert same_weights(work, undisturbed, f'iter_{STEPS}.pth')


def test_a_signal_to_one_rank_stops_all_of_them_at_the_same_step(prepared, tmp_path):
    work = tmp_path / 'run'
    ranks = children.start_ranks(2, children.train, work, options(prepared), 'pytorch', [children.Linger(0.2)])
    wait_for(lambda: len(logged(work)) >= 2, 60, 'the second step')
    os.kill(ranks[1].pid, signal.SIGTERM)
    finish(ranks, 128 + signal.SIGTERM)
    [checkpoint] = work.glob('iter_*.pth')
    assert checkpoint.name == f'iter_{logged(work)[-1]["step"]}.pth'


def test_a_signals_earlier_handler_has_the_last_word():
    """submitit's requeues the job, once the checkpoint is written."""
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda *_: calls.append('requeued'))
    try:
        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert request.received == signal.SIGUSR2 and not calls
            with pytest.raises(Stopped):
                request.deliver()
        assert calls == ['requeued']
    finally:
        signal.signal(signal.SIGUSR2, before)


# loss becomes NaN or Inf

@pytest.mark.parametrize('what', ['window', 'gradient'])
def test_no_number_reaches_the_weights_and_the_cases_are_named(prepared, tmp_path, what):
    work = tmp_path / 'run'
    finish(children.start_ranks(2, children.train, work, options(prepared), 'pytorch',
                                [children.Spoil(7, 1, what)]), 2)
    error = next(line for line in said(work).splitlines() if line.startswith('error: '))
    assert f'the {"loss" if what == "window" else "gradient"} became nan in step 7' in error
    assert error.count(' slice ') == (5 if what == 'window' else 4) and 'the checkpoint of step 4 is from' in error
    assert ('(spoilt: case_' in error) == (what == 'window')
    [checkpoint] = work.glob('iter_*.pth')
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    assert checkpoint.name == 'iter_4.pth' and all(value.isfinite().all() for value in state.values())


# out of memory

def run_of(prepared: Path, **changes) -> Run:
    return Run(Cell('hippocampus', source='none', slices=3), 1, str(children.CONFIG),
               options(prepared, **changes) | {'experiment.seed': 1}, 'abcd1234')


def execute(run: Run, place: Path, **settings) -> dict:
    """Its record."""
    finish(children.start(children.execute, run, place, **settings))
    return json.loads(record_path(place / 'out', run).read_text())


def test_out_of_memory_is_recorded_with_what_it_was(prepared, tmp_path):
    record = execute(run_of(prepared), tmp_path, fits=2)
    assert record['state'] == 'failed'
    assert record['reason'].startswith('out of memory in step 1: passes of 4 windows, peak ')
    assert record['out_of_memory'] == dict(step=1, windows=4, accumulate=1,
                                           peak_memory_mib=record['out_of_memory']['peak_memory_mib'])
    assert record['out_of_memory']['peak_memory_mib'] > 100 and 'attempts' not in record


def test_out_of_memory_is_tried_once_more_in_halves_from_the_checkpoint(prepared, tmp_path):
    run = run_of(prepared)
    finish(children.start(children.execute, run, tmp_path, stop_at=5), 143)
    record = execute(run, tmp_path, fits=2, halve=True)
    [attempt] = record['attempts']
    assert record['state'] == 'done' and record['cost']['resumed_from'] == 5
    assert 'passes of 4 windows' in attempt['reason'] and attempt['went_on_with'] == 'experiment.accumulate=2'
    assert ' experiment.accumulate=2' in record['command']
    record = execute(run_of(prepared, seed=2), tmp_path / 'too large', fits=1, halve=True)
    assert record['state'] == 'failed' and record['out_of_memory']['windows'] == 2 and len(record['attempts']) == 1


def test_a_run_that_failed_is_tried_again_from_its_last_good_checkpoint(prepared, tmp_path):
    """The record names it; --retry-failed calls the run again."""
    run = run_of(prepared)
    spoilt = dict(type='Spoil', step=7, rank=0, what='window')
    record = execute(replace(run, options=run.options | {'custom_hooks': [spoilt]}), tmp_path)
    assert record['state'] == 'failed' and record['checkpoint'] == 'iter_4.pth'
    assert record['reason'].startswith('the loss became nan in step 7, in a batch of case_')
    record = execute(run, tmp_path)
    assert record['state'] == 'done' and record['cost']['resumed_from'] == 4


# disk full while writing checkpoint, record or store

@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts an empty disk of so many bytes."""
    folder = tmp_path / 'disk'
    folder.mkdir()

    def mount(size: int) -> Path:
        command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f'a small disk cannot be mounted here ({result.stderr.strip()})')
        return folder

    yield mount
    subprocess.run(['umount', '-l', folder], capture_output=True)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_a_full_disk_leaves_the_previous_checkpoint(undisturbed, prepared, small_disk):
    disk = small_disk(int((undisturbed / f'iter_{STEPS}.pth').stat().st_size * 1.6))
    work = disk / 'run'
    finish(children.start(children.train, work, options(prepared), log=disk.parent / 'log'), 2)
    assert (disk.parent / 'log').read_text().splitlines()[-1] == (
        f'error: {work}/iter_8.pth: no space left; free some and call again, nothing is half written')
    assert {name for name in files(work) if '.pth' in name} == {'iter_4.pth'} and whole(work / 'iter_4.pth')


def test_a_full_disk_leaves_the_previous_record(prepared, small_disk):
    disk, run = small_disk(32 << 10), run_of(prepared)
    path = write_record(disk, run, dict(state='failed', reason='before'))
    before = path.read_bytes()
    with pytest.raises(OSError) as error:
        write_record(disk, run, dict(state='failed', reason='x' * (64 << 10)))
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert path.read_bytes() == before and files(disk) == {f'records/{path.name}'}


def test_a_run_is_not_done_before_its_weights_are_kept(prepared, tmp_path):
    run, work = run_of(prepared), tmp_path / 'work'
    (work / WEIGHTS).mkdir(parents=True)  # in the way
    finish(children.start(children.execute, run, tmp_path), 2)
    assert not record_path(tmp_path / 'out', run).exists() and newest_whole(work).name == f'iter_{STEPS}.pth'
    (work / WEIGHTS).rmdir()
    record = execute(run, tmp_path)
    assert record['state'] == 'done' and record['cost']['resumed_from'] == STEPS and (work / WEIGHTS).is_file()
    (work / 'iter_4.pth').touch()  # as of one that was killed when it had just written its record
    finish(children.start(children.execute, run, tmp_path))
    assert not list(work.glob('iter_*'))


@pytest.mark.parametrize('mapped', [False, True])
def test_a_full_disk_leaves_whole_cases_in_the_store(tmp_path, small_disk, mapped):
    raw = write_msd(tmp_path / 'Task04_Hippocampus', cases=8, shape=(60, 60, 20))
    disk = small_disk(700 << 10)
    command = [children.PYTHON, 'tools/prepare_data.py', 'hippocampus', '--raw', raw, '--out', disk / 'store',
               '--workers', '1', *['--uncompressed'] * mapped]
    result = children.run(command)
    assert result.returncode == 2 and 'no space left' in result.stderr.splitlines()[-1], result.stderr
    assert 'Traceback' not in result.stderr
    kept = {name.split('/')[1] for name in files(disk / 'store') if name.startswith('cases/')}
    assert kept and all(case.startswith('case_') for case in kept) and len(kept) < 8


def test_a_reader_finds_a_whole_file_at_every_moment(tmp_path):
    """The one before or the one after, while it is written again and again."""
    path, contents = tmp_path / 'file', [letter * (1 << 20) for letter in 'ab']
    write_atomic(path, contents[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [write_atomic(path, content) for content in contents * 20])
        while not writing.done():
            assert path.read_text() in contents
        writing.result()
    assert path.read_text() == contents[1] and files(tmp_path) == {'file'}


# checkpoint truncated, or last_checkpoint naming a missing file

@pytest.mark.parametrize('harm', ['truncated', 'flipped', 'empty'])
def test_a_broken_checkpoint_is_named_and_the_one_before_it_used(undisturbed, prepared, tmp_path, harm):
    work = Path(shutil.copytree(undisturbed, tmp_path / 'run'))
    [older, newest] = sorted(work.glob('iter_*.pth'), key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 255
    newest.write_bytes({'truncated': content[:-1000], 'flipped': content, 'empty': b''}[harm])
    (work / 'last_checkpoint').write_text('/no/such/file.pth')
    finish(children.start(children.train, work, options(prepared)))
    assert f'{newest}: not whole' in said(work) and f'Load checkpoint from {older}' in said(work)
    assert newest_whole(work) == newest and same_weights(work, undisturbed, f'iter_{STEPS}.pth')


def test_only_the_newest_two_checkpoints_stay(prepared, tmp_path):
    work = tmp_path / 'run'
    finish(children.start(children.train, work, options(prepared, checkpoint_interval=1)))
    assert {path.name for path in work.glob('iter_*.pth')} == {f'iter_{STEPS - 1}.pth', f'iter_{STEPS}.pth'}


# two runners on the same output folder

def test_a_run_that_another_process_has_is_left_to_it(prepared, tmp_path):
    run = run_of(prepared)
    with only_writer(tmp_path / 'work'):
        process = children.start(children.execute, run, tmp_path, patience=1)
        finish(process)
        assert not record_path(tmp_path / 'out', run).exists()
    record = execute(run, tmp_path)
    stamp = record_path(tmp_path / 'out', run).stat().st_mtime_ns
    assert record['state'] == 'done' and execute(run, tmp_path) == record
    assert record_path(tmp_path / 'out', run).stat().st_mtime_ns == stamp


# worker process of the loader dies

@pytest.mark.parametrize('end, cause', [
    ('os.kill(os.getpid(), 9)', 'was ended by SIGKILL, most likely for want of memory'),
    ('os._exit(3)', 'left with exit status 3'),
    ('raise UserError("case_001: damaged at slice 2")', 'error: case_001: damaged at slice 2')])
def test_the_real_cause_of_a_loader_workers_death_is_shown(prepared, tmp_path, end, cause):
    (tmp_path / 'dying.py').write_text(
        'import os\n\nfrom mmcv.transforms import BaseTransform\nfrom mmseg.registry import TRANSFORMS\n\n'
        'from mmseg_plugins.errors import UserError\n\n\n@TRANSFORMS.register_module()\n'
        'class Die(BaseTransform):\n    def transform(self, results):\n        ' + end + '\n')
    choices = options(prepared) | {
        'train_dataloader.num_workers': 1, 'custom_imports.imports': ['mmseg_plugins', 'dying'],
        'train_dataloader.dataset.pipeline': [dict(type='LoadWindow'), dict(type='Die')]}
    finish(children.start(children.train, tmp_path / 'run', choices, path=tmp_path), 2)
    last = said(tmp_path / 'run').splitlines()[-1]
    assert last.startswith('error: ') and cause in last
