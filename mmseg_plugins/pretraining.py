"""2D pre-training with the same parts as everything else, and its encoder as a source checkpoint."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .files import write_atomic


def pretrain(cfg: Config, out: Path, hooks: Sequence[Hook] = ()) -> dict[str, float]:
    """Train a config's model on 2D images, resuming where it was, and write its encoder to `out`.

    Returns:
        The source task's own metrics on its validation images.
    """
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    metrics = runner.val()
    buffer = io.BytesIO()
    torch.save({'model': runner.model.backbone.model.state_dict()}, buffer)
    write_atomic(out, buffer.getvalue())
    return metrics
