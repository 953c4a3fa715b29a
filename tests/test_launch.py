"""Which process of which launch this is: one of several never does all of the work by itself."""

import socket

import pytest
import torch
from conftest import REPO, call_tool
from mmengine.runner import runner
from mmengine.utils.dl_utils.parrots_wrapper import SyncBatchNorm
from test_tools import CONFIG, run
from timm.layers import BatchNormAct2d
from torch import nn

from mmseg_plugins import launch
from mmseg_plugins.errors import UserError
from mmseg_plugins.launch import LAUNCHES, MEETING, check_launcher, process_rank, world_size

SAYS = ('LOCAL_RANK', *MEETING, 'SLURM_STEP_NUM_TASKS', *(name for names in LAUNCHES.values() for name in names))
MEET = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT='29500')


@pytest.fixture
def environment(monkeypatch):
    """A function that sets what a launcher says, and nothing else."""
    def say(**variables: str) -> None:
        for name in SAYS:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    return say


@pytest.mark.parametrize('variables, launcher', [
    (dict(RANK='1', WORLD_SIZE='2', LOCAL_RANK='1', **MEET), 'pytorch'), (dict(WORLD_SIZE='2'), 'pytorch'),
    (dict(RANK='1'), 'pytorch'), (dict(SLURM_NTASKS='2', SLURM_STEP_NUM_TASKS='2', SLURM_PROCID='0'), 'slurm'),
    (dict(OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_RANK='0'), 'mpi')])
@pytest.mark.parametrize('tool', ['train', 'pretrain', 'test'])
def test_one_of_several_processes_is_refused_before_it_writes(environment, tmp_path, tool, variables, launcher):
    environment(**variables)
    (tmp_path / 'some.pth').write_bytes(b'torn')
    more = dict(train=[], pretrain=['--out', tmp_path / 'out.pth'], test=[tmp_path / 'some.pth'])[tool]
    with pytest.raises(UserError, match=f'each would do all of the work; add --launcher {launcher}, or unset'):
        call_tool(tool, REPO / CONFIG, *more, '--work-dir', tmp_path / 'work')
    assert [path.name for path in tmp_path.iterdir()] == ['some.pth']


@pytest.mark.parametrize('launcher, variables', [
    ('none', {}), ('none', dict(RANK='0', WORLD_SIZE='1')),
    ('none', dict(SLURM_NTASKS='4', SLURM_PROCID='0')),  # a batch script of a job with four tasks
    ('none', dict(SLURM_NTASKS='4', SLURM_PROCID='0', SLURM_STEP_NUM_TASKS='1')),
    ('pytorch', dict(RANK='1', WORLD_SIZE='2', **MEET)), ('slurm', dict(SLURM_NTASKS='2', SLURM_PROCID='1'))])
def test_a_launch_that_is_right_is_let_by(environment, launcher, variables):
    environment(**variables)
    check_launcher(launcher, None)


@pytest.mark.parametrize('launcher, local_rank, variables, message', [
    ('pytorch', None, {}, 'RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set; start the processes with torchrun'),
    ('pytorch', None, dict(RANK='0', WORLD_SIZE='1'), 'MASTER_ADDR, MASTER_PORT not set'),
    ('none', 0, {}, '--local-rank 0: not the LOCAL_RANK'),
    ('pytorch', 1, dict(LOCAL_RANK='0', RANK='0', WORLD_SIZE='2', **MEET), '--local-rank 1: not the LOCAL_RANK'),
    ('pytorch', None, dict(RANK='5', WORLD_SIZE='2', **MEET), 'RANK=5, but WORLD_SIZE=2 processes'),
    ('none', None, dict(RANK='first'), 'RANK=first in the environment is no whole number')])
def test_a_launch_that_contradicts_itself_is_one_line(environment, launcher, local_rank, variables, message):
    environment(**variables)
    with pytest.raises(UserError, match=message):
        check_launcher(launcher, local_rank)


def test_size_and_rank_are_the_launchers(environment):
    environment(WORLD_SIZE='4', RANK='3', SLURM_NTASKS='2', SLURM_PROCID='1')
    assert [(world_size(name), process_rank(name)) for name in ('none', 'pytorch', 'slurm', 'mpi')] == [
        (1, 0), (4, 3), (2, 1), (1, 0)]
    assert launch.LAUNCHERS == ('none', 'pytorch', 'slurm', 'mpi')


@pytest.mark.parametrize('script, arguments', [('dist_train', []), ('dist_test', ['none.pth'])])
def test_a_port_that_is_taken_is_one_line(tmp_path, script, arguments):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        output = run([f'tools/{script}.sh', CONFIG, *arguments, 2], check=2, PORT=port)
    [line] = output.strip().splitlines()
    assert line.startswith(f'error: PORT={port}: the processes cannot meet there')


@pytest.mark.parametrize('norm, size', [
    (nn.BatchNorm1d, ()), (nn.BatchNorm2d, (9, 9)), (nn.BatchNorm3d, (5, 4, 4)), (SyncBatchNorm, (9, 9))])
def test_norms_of_cpu_processes_sum_in_full_precision(norm, size):
    torch.manual_seed(0)
    plain = (nn.BatchNorm2d if norm is SyncBatchNorm else norm)(3)
    norm, x = norm(3), torch.randn(64 if not size else 4, 3, *size) + 300
    [synchronized] = runner.convert_sync_batchnorm(nn.Sequential(norm))
    wanted = plain(x.bfloat16().float())
    got = synchronized(x.bfloat16())
    assert 'Gloo' in type(synchronized).__name__ and got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, rtol=0.01, atol=0.01)
    torch.testing.assert_close(synchronized.running_var, plain.running_var)
    torch.testing.assert_close(synchronized.eval()(x), plain.eval()(x))


@pytest.mark.parametrize('norm', [
    BatchNormAct2d(3), nn.BatchNorm3d(3, affine=False), nn.BatchNorm2d(3, momentum=None),
    nn.BatchNorm1d(3, track_running_stats=False)])
def test_a_norm_that_cannot_be_synchronized_is_refused(norm):
    with pytest.raises(UserError, match='a batch norm that cannot be synchronized over processes'):
        runner.convert_sync_batchnorm(nn.Sequential(norm, nn.Linear(1, 1)))
