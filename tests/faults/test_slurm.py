"""Grids on a real Slurm of two nodes, and what happens to them there."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import children
import pytest
import yaml
from children import finish
from cluster import Cluster, run_cluster
from conftest import wait_for, write_msd
from test_executors import control

from benchmarks.executors.jobs import Job
from benchmarks.executors.slurm import SlurmExecutor, SlurmSettings, name_of, read_settings
from benchmarks.grid.axes import Cell
from benchmarks.runs.records import read_records
from benchmarks.runs.run import Run
from mmseg_plugins.errors import UserError

# while a file named `hold` is there, a step takes so long that something can happen in it
LINGER = '''
import time
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Linger(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        time.sleep(0.5 * Path('hold').exists())
'''


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    yield from run_cluster(tmp_path_factory.mktemp('slurm'))


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('place')
    write_msd(folder / 'data' / 'Task04_Hippocampus', cases=7)
    (folder / 'linger.py').write_text(LINGER)
    (folder / 'tiny.yaml').write_text(yaml.safe_dump(dict(
        dataset='hippocampus', configs=dict(beit=str(children.CONFIG)), source='none', imports=['linger'],
        axes=dict(slices=[3]), seeds=list(range(12)),
        options={'experiment.batch': 2, 'experiment.steps': 16, 'experiment.checkpoint_interval': 2,
                 'default_hooks.logger.interval': 1, 'custom_hooks': [dict(type='Linger')]})))
    (folder / 'slurm.yaml').write_text('gpus: 0\ncpus: 1\nsbatch: {comment: a test}\n')
    return folder


@pytest.fixture
def call(cluster, place):
    """A function that starts benchmarks/run_grid.py on the cluster."""
    controllers = []

    def start(*arguments: str):
        arguments = ['--grid', 'tiny.yaml', '--executor', 'slurm', '--slurm', 'slurm.yaml', *arguments]
        controllers.append(children.start(children.with_environment, cluster.environment, children.grid,
                                          (place, arguments), {}))
        return controllers[-1]

    yield start
    for controller in controllers:
        controller.kill()


def said(place: Path) -> str:
    return (place / 'log').read_text()


def noted(folder: Path) -> list[str]:
    """Slurm's numbers of the jobs that were submitted last, in their order."""
    path = folder / 'jobs.json'
    return list(json.loads(path.read_text()).values()) if path.exists() else []


def queue(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """State and node of every job there was, by number and index."""
    rows = (line.split('|') for line in cluster.ask('squeue', '-h', '-r', '-t', 'all', '-o', '%F_%K|%T|%N'))
    return {number: (state, node) for number, state, node in rows}


def test_twelve_runs_survive_what_happens_to_a_cluster(cluster, place, call):
    slurm, runs = place / 'work_dirs/grids/tiny/slurm', place / 'work_dirs/grids/tiny/runs'

    def work(seed: int) -> Path:
        return next(runs.glob(f'*-seed{seed}-*'), runs / 'none')

    def state(job: str) -> str:
        return queue(cluster)[job][0]

    # an earlier controller was killed while it submitted
    [line] = cluster.ask('sbatch', '--hold', f'--job-name={name_of(slurm)}', '--wrap=sleep 600')
    torn = f'{line.split()[-1]}_N/A'

    # the controller is killed once it has submitted
    (place / 'hold').touch()
    controller = call()
    numbers = wait_for(lambda: noted(slurm), 60, 'the submission')
    controller.kill()
    number = numbers[0].partition('_')[0]
    assert len(numbers) == 12 and state(torn) == 'CANCELLED'

    # one job gets the signal that its time is up, the node of another dies
    first, second = f'{number}_0', f'{number}_1'
    wait_for(lambda: list(work(0).glob('iter_*.pth')) and list(work(1).glob('iter_*.pth')), 90, 'two checkpoints')
    node = queue(cluster)[second][1]
    other = queue(cluster)[first][1]
    assert {node, other} == {'n1', 'n2'} and not (place / 'work_dirs/grids/tiny/records').exists()
    asking = cluster.begin('scancel', '--signal=USR2', first)  # it goes on until it is believed
    cluster.kill_node(node)
    (place / 'hold').unlink()
    wait_for(lambda: state(first) == 'PENDING', 30, 'the requeue')
    asking.kill()

    # one is cancelled
    third = f'{number}_2'
    wait_for(lambda: state(third) == 'RUNNING', 30, 'the start of the third job')
    cluster.ask('scancel', third)
    wait_for(lambda: state(third) == 'CANCELLED', 30, 'its end')

    # the second call submits the cancelled one alone, and follows the others
    controller = call()
    wait_for(lambda: state(second) == 'PENDING', 60, 'the requeue')
    cluster.ask('scontrol', 'update', f'JobId={second}', 'Priority=4294967000')
    wait_for(lambda: queue(cluster)[second] == ('RUNNING', other), 60, 'the restart on the other node')
    cluster.start_node(node)
    finish(controller)
    records = read_records(place / 'work_dirs/grids/tiny')[0]
    assert len(records) == 12 and {record['state'] for record in records} == {'done'}
    ends = queue(cluster)
    assert len(ends) == 1 + 13
    assert {job for job, (end, _) in ends.items() if end != 'COMPLETED'} == {torn, third}
    resumed = {record['seed'] for record in records if record['cost']['resumed_from'] > 0}
    assert {0, 1} <= resumed <= {0, 1, 2}
    for seed in range(12):  # every start has a folder for its logs
        assert len(list(work(seed).glob('2*'))) == 1 or seed in (0, 1, 2)

    # the third has nothing to do
    before = {path: path.stat().st_mtime_ns for path in place.glob('work_dirs/grids/tiny/records/*')}
    finish(call())
    assert ', 12 finished, 0 to do' in said(place)
    assert before == {path: path.stat().st_mtime_ns for path in place.glob('work_dirs/grids/tiny/records/*')}
    assert queue(cluster) == ends


def test_a_run_over_two_nodes(cluster, place, call):
    before = queue(cluster)
    finish(call('--seeds', '99', '--nodes', '2', '--out', 'two'))
    [record] = read_records(place / 'two')[0]
    assert record['state'] == 'done' and 'Slurm, 2 process(es) each' in said(place)
    [job] = set(queue(cluster)) - set(before)
    assert queue(cluster)[job] == ('COMPLETED', 'n[1-2]')


def test_the_script_for_one_training_is_requeued_and_resumes(cluster, prepared, tmp_path):
    work, log = tmp_path / 'run', tmp_path / 'log'
    environment = cluster.environment | dict(
        PATH=f'{Path(children.PYTHON).parent}:{os.environ["PATH"]}', GRES='', GPUS='2', GPUS_PER_NODE='1',
        CPUS_PER_TASK='1', SBATCH='1', SBATCH_ARGS=f'--output={log}')
    options = children.options(prepared, steps=24, batch=2, checkpoint_interval=4)
    command = ['tools/slurm_train.sh', 'debug', 'one', children.CONFIG, '--work-dir', work, '--cfg-options',
               *(f'{key}={value}' for key, value in options.items())]
    answer = subprocess.check_output(list(map(str, command)), cwd=children.REPO, env=environment, text=True)
    number = answer.split()[-1]
    wait_for(lambda: list(work.glob('iter_*.pth')), 60, 'a checkpoint')
    cluster.ask('scancel', '--signal=USR2', number)
    wait_for(lambda: queue(cluster)[f'{number}_N/A'][0] == 'COMPLETED', 90, 'the end')
    text = log.read_text()
    assert 'stopped by SIGUSR2; ' in text and (work / 'iter_24.pth').exists()
    assert int(re.search(r'resumed epoch: 0, iter: (\d+)', text)[1]) >= 4


def test_a_run_waits_for_its_source_and_goes_with_it(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv('SLURM_CONF', cluster.environment['SLURM_CONF'])
    source = Job('source', print, None, tmp_path / 'source', tmp_path / 'source.json')
    run = Job('run', print, 'source', tmp_path / 'run', tmp_path / 'run.json')
    free = Job('free', print, None, tmp_path / 'free', tmp_path / 'free.json')
    settings = dict(gpus=0, cpus=1, sbatch=['begin=now+1hour'])
    for _ in range(2):
        SlurmExecutor(detach=True, **settings).run(control([source, run, free], tmp_path / 'grid')[0])
    [made, other, waits] = noted(tmp_path / 'grid/slurm')
    array = made.removesuffix('_0')
    assert other == f'{array}_1'
    [dependency] = cluster.ask('squeue', '-h', '-j', waits, '-o', '%E')
    assert dependency == f'afterok:{made}(unfulfilled)'
    cluster.ask('scancel', array)
    controller, said = control([run], tmp_path / 'grid')
    SlurmExecutor(**settings).run(controller)
    assert controller.states == dict(run='lost') and 'cancelled (DependencyNeverSatisfied)' in said[0]
    assert f'{waits}_0_log.out' in said[0]
    # what a run was before its config changed does not go on beside it
    numbers = []
    for identity in ('11111111', '22222222'):
        named = Run(Cell('phantom'), 1, 'config.py', {}, identity)
        leaves = tmp_path / f'records/{named.name}.json'
        job = Job(named.name, print, None, tmp_path / named.name, leaves, run=named)
        SlurmExecutor(detach=True, **settings).run(control([job], tmp_path / 'grid')[0])
        numbers += noted(tmp_path / 'grid/slurm')
    assert len(numbers) == 2
    assert cluster.ask('squeue', '-h', '-t', 'all', '-j', numbers[0], '-o', '%T') == ['CANCELLED']
    cluster.ask('scancel', numbers[1])
    # none of them is with Slurm any more, and one has been done meanwhile
    run.leaves.write_text('{"state": "done"}')
    controller, _ = control([run], tmp_path / 'grid')
    SlurmExecutor(detach=True, **settings).run(controller)
    assert controller.states == dict(run='done') and not noted(tmp_path / 'grid/slurm')


def test_a_refusal_is_one_line(place, call):
    finish(call('--partition', 'debgu', '--seeds', '77'), 2)
    assert 'error: sbatch: invalid partition specified: debgu; ' in said(place).splitlines()[-1]
    assert 'Traceback' not in said(place)


def test_an_interrupted_controller_says_how_to_cancel(cluster, place, call):
    controller = call('--seeds', '55', '--sbatch', 'begin=now+1hour')

    def waiting() -> list[str]:
        return [name for name in cluster.ask('squeue', '-h', '-o', '%j') if name.startswith('tiny-')]

    wait_for(waiting, 60, 'the submission')
    time.sleep(1)
    os.kill(controller.pid, signal.SIGINT)
    finish(controller, 130)
    line = said(place).rstrip().splitlines()[-1]
    assert line.startswith('the jobs go on; call again to follow them, cancel them with: scancel --name=')
    cluster.ask('scancel', line.split()[-1])
    assert not waiting()


def test_settings_come_from_a_file_and_before_it_from_the_command_line(tmp_path):
    path = tmp_path / 'slurm.yaml'
    path.write_text('partition: long\ntime: 60\ngpus: 4\nnodes: 2\nsbatch: {account: mine, qos: low}\n')
    settings = read_settings(path, dict(time=30, sbatch=['qos=high', 'exclusive']))
    assert settings == SlurmSettings('long', 30, 2, 4, sbatch=dict(account='mine', qos='high', exclusive=True))
    assert settings.processes == 8 and read_settings(None, {}) == SlurmSettings()


@pytest.mark.parametrize('text, message', [
    ('partitoin: long', "slurm.yaml: unknown key 'partitoin'; did you mean 'partition'"),
    ('time: 1 day', "slurm.yaml: time is '1 day'; it must be a whole number, at least 1"),
    ('gpus: true', 'gpus is True'), ('gpus: -1', 'gpus is -1; it must be a whole number, at least 0'),
    ('[1', 'not valid YAML'), ('- time', 'must hold a mapping'),
    ('sbatch: {array: 1-3}', "sbatch option 'array' is set here already; use --limit"),
    ('sbatch: {job-name: mine}', "'job-name' is set here already")])
def test_a_misspelt_setting_is_one_line(tmp_path, text, message):
    (tmp_path / 'slurm.yaml').write_text(text)
    with pytest.raises(UserError, match=message):
        read_settings(tmp_path / 'slurm.yaml', {})


def test_without_slurm_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(UserError, match='sbatch not found'):
        SlurmExecutor().run(control([], tmp_path)[0])
