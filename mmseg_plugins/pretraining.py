"""2D pre-training with the same parts as everything else, and its encoder as a source checkpoint."""

import io
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from .compat import write_atomic


def pretrain(cfg: Config, out: Path) -> dict[str, float]:
    """Train a config's model on 2D images and write its encoder to `out`; returns the metrics."""
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    runner.train()
    metrics = runner.val()
    write_source(runner.model.backbone.model.state_dict(), out)
    return metrics


def write_source(state: dict[str, torch.Tensor], out: Path) -> None:
    """Write an encoder's state dict in the container that published checkpoints use."""
    buffer = io.BytesIO()
    torch.save({'model': state}, buffer)
    write_atomic(out, buffer.getvalue())
