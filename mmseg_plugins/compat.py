"""The one room that knows OpenMMLab's, timm's and torch's rough edges.

Importing it makes `import mmseg` work beside mmcv-lite, makes mmengine read checkpoints as
data on every torch (safe_load.py), makes mmengine's file writes atomic and its resuming
proof against a kill, lets batch norms span CPU processes, keeps CPUs from torch's slow attention and
wrong gradients in bfloat16, and quiets what no user can act on.
"""

import importlib.util
import logging
import os
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from .errors import UserError
from .files import write_atomic

for _message, _category in (
    ('.*pkg_resources.*', Warning),  # mmcv and mmengine still import it on some versions
    ('.*torch.cuda.amp.*', FutureWarning),
    ('.*`broadcast_buffers` is deprecated.*', FutureWarning),
    ('.*Setting MKL_NUM_THREADS.*', UserWarning),
    ('.*is deprecated.*', DeprecationWarning),
    ('.*pin_memory.*', UserWarning),
    ('.*scheduler.step.*', UserWarning),
    ('.*multi-threaded.*fork.*', DeprecationWarning),
    ('.*torch.searchsorted.*', UserWarning),  # timm's resizing of position tables
    ('.*``build_loss``.*', UserWarning),  # mmseg's own decode head calls it
    ('.*always_return_as_numpy.*', FutureWarning),  # monai's own call of itself
    ('.*the method `get_instance` should not accept.*', UserWarning),  # a second run in one process
    ('.*For binary segmentation.*', UserWarning),  # a choice: softmax over two classes, as over fourteen
    ('.*non-tuple sequence for multidimensional indexing.*', UserWarning),
    ('.*TensorFloat32 tensor cores.*', UserWarning),  # a choice: experiment.precision
    ('.*new API settings to control TF32.*', UserWarning),  # torch 2.9; acceleration.py says why not
):
    warnings.filterwarnings('ignore', message=_message, category=_category)


with warnings.catch_warnings(record=True):  # torch 2.4 warns here whatever the filters say
    import torch.distributed.optim  # noqa: F401


def _import_mmcv_ops() -> None:
    """mmseg imports `mmcv.ops`, which needs compiled operators that nothing here calls.

    With mmcv-lite a stand-in for `mmcv._ext` is present only while `mmcv.ops` is first imported, so
    that `mmcv_full_available()` stays honestly false.
    """
    import mmengine  # noqa: F401  (inspects sys.modules; must be in before the stand-in is)

    if importlib.util.find_spec('mmcv') is None:
        raise ImportError("mmcv is missing: pip install 'mmcv-lite>=2.0,<2.2' "
                          "(or mmcv with its operators), never both")
    import mmcv  # noqa: F401

    if importlib.util.find_spec('mmcv._ext') is not None:
        return
    stand_in = types.ModuleType('mmcv._ext')

    def operator(name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None

    stand_in.__getattr__ = operator
    sys.modules['mmcv._ext'] = stand_in
    try:
        import mmcv.ops  # noqa: F401
    finally:
        del sys.modules['mmcv._ext']


def _load_mmengine_checkpoints_safely() -> None:
    """mmengine leaves it to torch's version whether reading a checkpoint may run code, and fetches URLs."""
    import torch
    from mmengine.runner.checkpoint import CheckpointLoader

    from .safe_load import SAFE, load_checkpoint

    def load(filename, map_location=None, logger=None):
        if '://' in str(filename):
            raise UserError(f'{filename}: only files are read; download it, and name the file')
        checkpoint = load_checkpoint(filename, map_location)
        if not isinstance(checkpoint, dict):
            raise UserError(f'{filename}: holds no state dict, but {type(checkpoint).__name__}')
        return checkpoint

    CheckpointLoader.load_checkpoint = load
    torch.serialization.add_safe_globals(SAFE)  # for a user's own torch.load


def _write_mmengine_files_atomically() -> None:
    """mmengine writes checkpoints in place; a kill in the middle would leave a torn file."""
    from mmengine.fileio.backends import LocalBackend

    LocalBackend.put = lambda self, obj, filepath: write_atomic(filepath, obj)


def _resume_from_the_newest_whole_checkpoint() -> None:
    """mmengine follows its note `last_checkpoint`, which a kill can leave empty, stale or dangling."""
    from mmengine.dist import broadcast_object_list, is_main_process
    from mmengine.runner import runner

    def find(folder: str) -> str | None:
        found = [str(newest_whole(Path(folder)) or '') if is_main_process() else None]
        if found == [''] and any(Path(folder).glob('iter_*.pth')):
            print(f'{folder}: no whole checkpoint to go on from; the training begins with its first step',
                  file=sys.stderr)
        broadcast_object_list(found)  # a shared disk may show its files late
        return found[0] or None

    runner.find_latest_checkpoint = find


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint of a work dir that is whole by its own checksums; names those that are not."""
    from mmengine.logging import print_log

    found = [path for path in folder.glob('*.pth') if path.name.startswith(('iter_', 'epoch_'))]
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            with zipfile.ZipFile(path) as archive:
                fault = archive.testzip()
        except Exception as error:  # zipfile has no one class for what is wrong with an archive
            fault = str(error) or type(error).__name__
        if fault is None:
            return path
        print_log(f'{path}: not whole ({fault}); passed over', 'current', logging.WARNING)
    return None


def describe_timm_model(name: str, **sizes) -> tuple:
    """A timm model without memory for its weights (on the meta device), and its filter of published checkpoints.

    The filter, `(state dict, model) -> state dict`, has options by architecture, and timm gives it to its loader
    alone, which here takes it and loads nothing.
    """
    import timm
    import torch

    with mock.patch('timm.models._builder.load_pretrained') as loader, torch.device('meta'):
        model = timm.create_model(name, pretrained=True, num_classes=0, **sizes)
    filter_of: Callable = loader.call_args.kwargs['filter_fn'] or (lambda state, model: state)
    return model, filter_of


def _skip_environment_dump() -> None:
    """mmengine starts compilers to describe each run's machine: 1 to 2 s that records have no use for."""
    from mmengine.runner import Runner

    def _log_env(self, env_cfg):
        if self.cfg._cfg_dict:
            self.logger.info(f'Config:\n{self.cfg.pretty_text}')

    Runner._log_env = _log_env


def _format_each_config_once() -> None:
    """mmengine lays a config's text out anew for log, file and checkpoint, each time in a third of a second."""
    from mmengine.config import config

    lay_out, known = config.FormatCode, {}

    def remember(text: str, **options):
        if text not in known:
            known.update({text: lay_out(text, **options)})
            for oldest in list(known)[:-4]:
                del known[oldest]
        return known[text]

    config.FormatCode = remember


def join_cpu_processes(cfg, launcher: str) -> None:
    """Distribute a run over CPU processes: mmengine's own way needs a GPU at every turn.

    Forms the process group over gloo (mmengine calls `torch.cuda.set_device` first) and wraps the model
    without device ids. Under Slurm, MASTER_ADDR and MASTER_PORT may be set where its names do not do.
    """
    import torch.distributed as torch_dist

    if launcher == 'slurm':
        from submitit.slurm.slurm import SlurmJobEnvironment

        job = SlurmJobEnvironment()
        for name, value in dict(RANK=job.global_rank, LOCAL_RANK=job.local_rank, WORLD_SIZE=job.num_tasks,
                                MASTER_ADDR=job.hostnames[0], MASTER_PORT=29500).items():
            os.environ.setdefault(name, str(value))
    elif launcher != 'pytorch':
        raise UserError(f'launcher {launcher!r} needs GPUs, and torch finds none here; on CPUs use '
                        'tools/dist_train.sh')
    if not torch_dist.is_initialized():
        try:
            torch_dist.init_process_group('gloo')
        except torch_dist.DistNetworkError as error:
            place = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
            raise UserError(f'the processes cannot meet at {place} ({" ".join(str(error).split())[:120]}); choose '
                            'another port: PORT=N tools/dist_train.sh, or MASTER_PORT under Slurm') from error
    cfg.setdefault('model_wrapper_cfg', dict(type='MMDistributedDataParallel', device_ids=None,
                                             broadcast_buffers=False,
                                             find_unused_parameters=cfg.get('find_unused_parameters', False)))


def _synchronize_norms_on_cpus() -> None:
    """torch's SyncBatchNorm is for GPUs only; over gloo the same sums give CPU processes the whole batch's."""
    import torch
    from mmengine.runner import runner

    from .collective import sum_over_processes

    BatchNorm, Synchronized = torch.nn.modules.batchnorm._BatchNorm, torch.nn.SyncBatchNorm

    class GlooBatchNorm(BatchNorm):
        def forward(self, x):
            if not self.training:
                return BatchNorm.forward(self, x)
            axes, places = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
            given, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))  # sums in half would be rounded
            count = sum_over_processes(x.new_tensor(x.numel() / x.shape[1]))
            if count < 2:
                raise ValueError('Expected more than 1 value per channel when training')  # as torch's own
            mean = sum_over_processes(x.sum(axes)) / count
            centred = x - mean.view(places)
            variance = sum_over_processes(centred.square().sum(axes)) / count
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            scale = (variance + self.eps).rsqrt() * self.weight
            return (centred * scale.view(places) + self.bias.view(places)).to(given)

    ours = {kind: type(f'Gloo{kind.__name__}', (GlooBatchNorm, kind), {}) for kind in (
        torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, Synchronized)}
    convert = runner.convert_sync_batchnorm

    def convert_sync_batchnorm(model, implementation='torch'):
        kinds = {norm: Synchronized if isinstance(norm, Synchronized) else type(norm)  # mmengine has its own
                 for norm in model.modules() if isinstance(norm, BatchNorm)}
        on_gpu = next(model.parameters()).is_cuda
        for norm, kind in kinds.items():
            if kind not in ours or not on_gpu and (not norm.affine or norm.running_mean is None
                                                   or norm.momentum is None):
                raise UserError(f'{norm}: a batch norm that cannot be synchronized over processes; train in one, '
                                'set sync_bn=None (each process has its own statistics then), or choose another')
        if on_gpu:
            return convert(model, implementation)
        for norm, kind in kinds.items():
            norm.__class__ = ours[kind]
        return model

    runner.convert_sync_batchnorm = convert_sync_batchnorm


def _attend_in_parts_on_cpus() -> None:
    """In bfloat16 on CPUs torch's fused attention takes up to four times as long as its parts (2.14, both ways).

    Beyond 512 tokens it stays: what the parts keep for the way back grows with their square.
    """
    import torch
    from torch.nn import functional

    fused = functional.scaled_dot_product_attention

    def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **others):
        if (query.device.type != 'cpu' or query.dtype != torch.bfloat16 or key.shape[-2] > 512 or dropout_p
                or is_causal or others or attn_mask is not None and not attn_mask.is_floating_point()):
            return fused(query, key, value, attn_mask, dropout_p, is_causal, **others)
        weights = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
        if attn_mask is not None:
            weights = weights + attn_mask.to(weights.dtype)
        return weights.softmax(-1) @ value

    functional.scaled_dot_product_attention = attend


def _convolve_thin_volumes_in_float32() -> None:
    """In bfloat16 on CPUs the gradient of a kernel that is larger than its volume is what memory held, or a crash.

    So with torch 2.14 (oneDNN 3.12 on AVX512-BF16), which has the deepest layers of a 3D U-Net learn from that.
    """
    import torch
    from torch.nn import functional

    conv3d = functional.conv3d

    def convolve(input, weight, bias=None, *args, **kwargs):
        if input.device.type != 'cpu' or all(
                side >= kernel for side, kernel in zip(input.shape[-3:], weight.shape[-3:], strict=True)):
            return conv3d(input, weight, bias, *args, **kwargs)
        kind = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else input.dtype
        if kind != torch.bfloat16:
            return conv3d(input, weight, bias, *args, **kwargs)
        with torch.autocast('cpu', enabled=False):
            bias = None if bias is None else bias.float()
            return conv3d(input.float(), weight.float(), bias, *args, **kwargs).bfloat16()

    functional.conv3d = convolve


def leave_processes() -> None:
    """End a process of a distributed run that went well; without a process group, do nothing.

    gloo's threads may still hold tensors whose release needs Python, and abort when it has gone (seen
    in one of ten runs with torch 2.14): the process ends without taking the interpreter down. After a
    failure there is nobody to wait for, and the launcher ends the others.
    """
    import torch.distributed as torch_dist

    if torch_dist.is_initialized():
        gloo = torch_dist.get_backend() == 'gloo'
        torch_dist.barrier()
        torch_dist.destroy_process_group()
        if gloo:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def _quiet_loggers() -> None:
    """Log lines about mmengine's and mmseg's own code, and some per parameter that repeat the config."""
    from mmengine.logging import MMLogger

    noise = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias', 'paramwise_options -- ',
             'Image shapes are different in the batch')

    def keep(self, record):
        message = str(record.msg)
        if message.startswith(noise) or 'is skipped since its requires_grad=False' in message:
            return False
        return logging.Logger.filter(self, record)

    MMLogger.filter = keep
    logging.getLogger('torch.utils.cpp_extension').setLevel(logging.ERROR)  # compiling: nvcc without a GPU


_import_mmcv_ops()
_load_mmengine_checkpoints_safely()
_write_mmengine_files_atomically()
_resume_from_the_newest_whole_checkpoint()
_skip_environment_dump()
_format_each_config_once()
_quiet_loggers()
_synchronize_norms_on_cpus()
_attend_in_parts_on_cpus()
_convolve_thin_volumes_in_float32()
