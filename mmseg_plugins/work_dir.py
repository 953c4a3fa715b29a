"""A training's folder: who may write into it, its checkpoints, and what may be gone on with from one."""

import io
import re
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from torch import Tensor, nn

from .carried import carry
from .collective import unwrapped
from .errors import UserError
from .files import is_same_file, only_writer, write_atomic
from .keys import KEYS
from .launch import process_rank

KEPT = 2  # a newer checkpoint may turn out broken
WEIGHTS = 'weights.pth'  # of a finished training
PATIENCE = 60  # seconds for a process that was told to stop and still writes its checkpoint
# What a training keeps from its first step to its last; the rest of `experiment` may change when it is resumed.
KEPT_KEYS = ('slices', 'stride', 'target', 'img_size', 'crop', 'spacing', 'encoder', 'source', 'inflation',
             'lifting', 'tuning', 'batch', 'seed', 'protocol')
PARTS = {'meta': dict, 'state_dict': dict, 'optimizer': dict, 'message_hub': dict}  # of a training's checkpoint


@HOOKS.register_module()
class RollingCheckpoint(Hook):
    """A checkpoint every so many steps and after the last one; the newest `KEPT` stay.

    What is resumed, or taken weights from (`load_from`), is checked whole before anything is taken from it.

    Args:
        interval: steps.
    """
    priority = 'VERY_LOW'

    def __init__(self, interval: int):
        self.interval, self.seconds = interval, 0.0  # that the last one took

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        step = batch_idx + 1
        if step % self.interval == 0 or step == runner.max_iters:
            start = time.perf_counter()
            save_checkpoint(runner, step)
            self.seconds = time.perf_counter() - start

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        # mmengine would pickle classes, its own and numpy's; and lists of a long training take ten seconds to read
        hub = checkpoint['message_hub']
        hub['runtime_info'] = {name: value.item() if isinstance(value, np.generic) else value
                               for name, value in hub['runtime_info'].items()}
        hub['log_scalars'] = {name: [torch.from_numpy(part) for part in history.data]
                              for name, history in hub['log_scalars'].items()}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        path = runner._load_from or f'{runner.work_dir}/iter_{checkpoint.get("meta", {}).get("iter")}.pth'
        model = unwrapped(runner.model)
        if runner._resume:
            _check_same_training(runner, checkpoint, path)
        check_weights(model, checkpoint.get('state_dict'), path)
        if runner._resume:
            _apply_settings(runner, checkpoint, path)
            _restore_histories(checkpoint['message_hub'], path)


def check_weights(model: nn.Module, weights: Any, path: str | Path) -> None:
    """A checkpoint's weights must be a model's, all of them and no others.

    Raises:
        UserError: begins with `path`, and names the first that is missing, unknown or of another shape.
    """
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f'{path}: not a checkpoint of tools/train.py (no `state_dict` of tensors)')
    wanted = model.state_dict()
    for key in [*wanted, *weights]:
        have, need = (tuple(state[key].shape) if key in state else None for state in (weights, wanted))
        if have != need:
            what = ('is missing' if have is None else 'is unknown to the model' if need is None else
                    f'has shape {have}, the model needs {need}')
            raise UserError(f'{path}: does not fit the config: {str(key)[:100]} {what}; give the config it was '
                            'trained with')


def _kept_settings(runner) -> dict[str, Any]:
    """What of a training must not change, as a checkpoint notes it: moved files are the same files."""
    experiment = runner.cfg.experiment
    given = {key: KEYS[key].usual if experiment.get(key) is None else experiment[key] for key in KEPT_KEYS}
    settings = {key: list(value) if isinstance(value, list | tuple) else value for key, value in given.items()}
    dataset = runner.train_dataloader.dataset
    if hasattr(unwrapped(runner.model), 'accumulate'):  # an objective counts passes
        settings['accumulate'] = experiment.accumulate
    return settings | dict(optimizer=type(runner.optim_wrapper.optimizer).__name__,
                           source=settings['source'] and Path(settings['source']).name,
                           split=dataset.split, data=dataset.index['split_hash'])


def _check_same_training(runner, checkpoint: dict, path: str | Path) -> None:
    for part, kind in PARTS.items():
        if not isinstance(checkpoint.get(part), kind):
            raise UserError(f'{path}: holds no {part!r} of a training to go on with; delete it, or start from its '
                            'weights (--cfg-options load_from=FILE, without --resume)')
    remedy = 'set it back, or begin another training in a --work-dir of its own'
    settings = _kept_settings(runner)
    for key, before in checkpoint['meta'].get('experiment', {}).items():
        if before != (now := settings.get(key)):
            place = 'optim_wrapper.optimizer.type' if key == 'optimizer' else f'experiment.{key}'
            what = 'the cases of its split were others' if key == 'data' else (
                f'was trained with {place}={before!r}, now it is {now!r}')
            raise UserError(f'{path}: {what}; {remedy}')
    step = checkpoint['meta'].get('iter')
    if type(step) is not int or step > runner.max_iters:
        raise UserError(f'{path}: is of step {step}, experiment.steps={runner.max_iters}; {remedy}')


def _apply_settings(runner, checkpoint: dict, path: str | Path) -> None:
    """From the step reached on, the rates and the optimizer's settings are the config's, not the checkpoint's."""
    [scheduler] = runner.param_schedulers
    scheduler.move_to(checkpoint['meta']['iter'])
    saved, fresh = checkpoint['optimizer']['param_groups'], runner.optim_wrapper.optimizer.param_groups
    if [len(group['params']) for group in saved] != [len(group['params']) for group in fresh]:
        raise UserError(f'{path}: its optimizer divides the parameters otherwise than the config '
                        '(optim_wrapper.paramwise_cfg); set that back')
    # earlier versions did not note the optimizer; its settings tell it too, but torch's releases add to them
    named = 'optimizer' in checkpoint['meta'].get('experiment', {})
    for before, now in zip(saved, fresh, strict=True):
        if not named and before.keys() - {'initial_lr'} != now.keys() - {'initial_lr'}:
            raise UserError(f'{path}: its optimizer was another (optim_wrapper.optimizer.type); set that back')
        before |= {key: value for key, value in now.items() if key != 'params'}
    checkpoint['optimizer'].pop('base_param_settings', None)
    checkpoint['param_schedulers'] = [scheduler.state_dict()]


def _restore_histories(hub: dict, path: str | Path) -> None:
    scalars = hub.get('log_scalars')
    for name, history in scalars.items() if isinstance(scalars, dict) else [('log_scalars', scalars)]:
        if isinstance(history, HistoryBuffer):  # of an earlier version
            continue
        if not (isinstance(history, list) and len(history) == 2
                and all(isinstance(part, Tensor) and part.ndim == 1 for part in history)
                and len(history[0]) == len(history[1])):
            raise UserError(f'{path}: what it holds of {str(name)[:100]!r} is no history of a training; delete '
                            'it, and the training goes on from the one before')
        scalars[name] = HistoryBuffer(*(part.cpu().numpy() for part in history))


def save_checkpoint(runner, step: int) -> None:
    """Write `iter_<step>.pth` into the work dir, whole or not at all, then take older ones away.

    What of them a run no longer needs is decided by their steps, so that no kill can leave one behind.
    """
    folder = Path(runner.work_dir)
    if is_main_process():
        for torn in folder.glob('.iter_*.pth.*'):  # a kill in the middle of a write left it
            torn.unlink(missing_ok=True)
    runner.save_checkpoint(str(folder), f'iter_{step}.pth', by_epoch=False,
                           meta=dict(iter=step, experiment=_kept_settings(runner),
                                     carried=carry(runner.cfg, runner.train_dataloader.dataset.index)))
    if is_main_process():
        write_atomic(folder / 'last_checkpoint', str(folder / f'iter_{step}.pth'))  # mmengine's own note
        earlier = [number for number in _steps(folder) if number <= step]
        for number in earlier[:-KEPT]:
            (folder / f'iter_{number}.pth').unlink(missing_ok=True)


def keep_weights(folder: Path) -> None:
    """Write the weights of a finished training as `WEIGHTS`, beside its checkpoints."""
    newest, file = folder / f'iter_{_steps(folder)[-1]}.pth', io.BytesIO()
    checkpoint = torch.load(newest, weights_only=True, mmap=True)
    torch.save({part: checkpoint[part] for part in ('meta', 'state_dict')}, file)
    write_atomic(folder / WEIGHTS, file.getvalue())


def drop_checkpoints(folder: Path) -> None:
    """Remove what a training would go on from.

    A checkpoint holds the optimizer's two moments as well, three times as much as the weights, and there are two:
    the finished runs of a grid would fill the disk.
    """
    for name in ('last_checkpoint', *(f'iter_{step}.pth' for step in _steps(folder))):
        (folder / name).unlink(missing_ok=True)


def newest_checkpoint_step(runner) -> int:
    """Of the checkpoints up to the current step; 0 where there is none."""
    return max((step for step in _steps(Path(runner.work_dir)) if step <= runner.iter), default=0)


def _steps(folder: Path) -> list[int]:
    names = (re.fullmatch(r'iter_(\d+)\.pth', path.name) for path in folder.glob('iter_*.pth'))
    return sorted(int(name[1]) for name in names if name)


def keep_config(folder: Path, config: Path) -> None:
    """mmengine leaves the config as it was resolved in a folder, under its name: not over the file that it is of.

    Raises:
        UserError: it lies there.
    """
    if is_same_file(folder / config.name, config):
        raise UserError(f'{config}: lies in the work dir, where the resolved config would overwrite it; name '
                        'another --work-dir')


def check_work_dir(folder: Path, config: Path, resume: bool) -> bool:
    """Whether a training goes on from a checkpoint: one that begins must not take another's for its own.

    Raises:
        UserError: they are there; or the config is, as its user has written it.
    """
    there = bool(_steps(folder))
    if not there:
        keep_config(folder, config)
    elif not resume:
        raise UserError(f'{folder}: holds checkpoints of an earlier training; go on with it by --resume, name '
                        'another --work-dir, or delete them')
    if resume and not there:
        print(f'{folder}: no checkpoint to go on from; the training begins with its first step', file=sys.stderr)
    return there


def hold_work_dir(folder: Path, patience: float, launcher: str) -> AbstractContextManager:
    """The process that writes, the first of a launch, keeps a training's folder to itself: files.only_writer."""
    return nullcontext() if process_rank(launcher) else only_writer(folder, patience)
