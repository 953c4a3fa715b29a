"""2D pre-training with the same parts as everything else, and its encoder as a source checkpoint."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from .building import build_runner
from .collective import unwrapped
from .computed import merged_state
from .datasets.store import read_index
from .errors import UserError
from .files import write_atomic
from .keys import KEYS
from .sources import read_note, write_note


def pretrain(cfg: Config, out: Path, hooks: Sequence[Hook] = (), **told: Any) -> dict[str, float]:
    """Train a config's model on 2D images and write its `backbone`, in timm's naming, to `out`.

    The objective is the config's model: a segmentor is supervised, an Objective (models/objective.py) needs no
    labels.
    In a distributed run every process trains, and the main one writes.

    Args:
        told: what else the note beside `out` says of it.

    Returns:
        The source task's own metrics on its validation images; for an objective without labels, what
        it logs, as the mean of the last 50 steps.

    Raises:
        UserError: see `check_pretraining`.
    """
    check_pretraining(cfg)
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    if cfg.val_dataloader:
        metrics = runner.train_loop.metrics
    else:
        logged = runner.message_hub.log_scalars
        metrics = {name.removeprefix('train/'): float(values.mean(50)) for name, values in logged.items()
                   if name.startswith(('train/loss', 'train/teacher_'))}
    if is_main_process():
        model = unwrapped(runner.model)
        buffer = io.BytesIO()
        beside = dict(model.backbone.named_buffers(recurse=False))  # what a source has no weights for
        torch.save(beside | {'model': merged_state(model.backbone.model)}, buffer)
        # the note first, which tells of these bytes alone
        write_note(out, told | dict(metrics=metrics, sha256=hashlib.sha256(buffer.getvalue()).hexdigest())
                   | describe_data(cfg))
        write_atomic(out, buffer.getvalue())
    return metrics


def check_pretraining(cfg: Config) -> None:
    """Raise a UserError for a config of crops, of windows of several slices, or with a lifting."""
    if 'backbone' not in cfg.model:
        raise UserError(f'{cfg.filename}: its network takes crops and has no encoder to keep; name a config of '
                        'windows of one slice')
    for key, must in (('slices', 1), ('lifting', KEYS['lifting'].usual)):
        if (value := cfg.experiment.get(key)) not in (None, must):
            raise UserError(f'experiment.{key}={value}: pre-training is 2D, of one slice; set it to {must}')


def describe_data(cfg: Config) -> dict:
    """Whose cases a source has seen that a config makes, with those of the source that it starts from itself."""
    experiment = cfg.experiment
    before = read_note(Path(experiment.source)).get('saw', []) if experiment.source else []
    return dict(saw=[*before, f'{read_index(experiment.data_root)["dataset"]}:{experiment.split}'])
