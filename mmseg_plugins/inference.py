"""Whole-volume prediction with a trained checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from torch import nn

from .acceleration import prepare_acceleration
from .building import build_model
from .carried import test_pipeline
from .datasets.crops import resample, resampled_shape
from .datasets.intensity import channel_statistics, intensity_ranges
from .datasets.planes import Planes, resize_planes
from .datasets.store import window_indices
from .datasets.volumes import Volume
from .errors import UserError
from .evaluation import OverlapAverage
from .experiment import leave_source_out
from .faults import is_out_of_memory
from .keys import sides
from .work_dir import check_weights

APPLIED = ('LoadWindow', 'ResizeWindow', 'LoadVolume', 'PackWindow')  # of a test pipeline, by predict_volume


def load_model(cfg: Config, checkpoint: Any, path: Path, device: str) -> nn.Module:
    """The config's model with a checkpoint's weights, ready to predict in the config's precision.

    Args:
        checkpoint: what `path` holds.

    Raises:
        UserError: the checkpoint is not this model's, or its images go through more than is done here.
    """
    for part in test_pipeline(cfg):
        if part['type'] not in APPLIED:
            raise UserError(f'{path}: its test pipeline has {part["type"]}, which is not done here; evaluate it '
                            'with tools/test.py, or name a config without it')
    leave_source_out(cfg)
    if torch.device(device).type != 'cpu':
        prepare_acceleration(cfg, train=False)
    model = build_model(cfg).to(device).eval()
    load_weights(model, checkpoint, path)
    return model


def check_device(device: str) -> None:
    """Raise a UserError where there is no such device, before anything is read for it."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {device}: {str(error).splitlines()[0]}') from error


def load_weights(model: nn.Module, checkpoint: Any, path: Path) -> None:
    """Fill a segmentor from what a training checkpoint holds, whole or not at all.

    Raises:
        UserError: no checkpoint, or not this model's.
    """
    weights = checkpoint.get('state_dict') if isinstance(checkpoint, dict) else None
    check_weights(model, weights, path)
    model.load_state_dict(weights)


@torch.no_grad()
def predict_volume(model: nn.Module, volume: Volume, cfg: Config, index: dict, batch: int = 8,
                   progress: Callable[[int, int, str], None] = lambda *_: None) -> np.ndarray:
    """Segment every slice of a volume at its native resolution.

    Args:
        model: from load_model.
        volume: image (D, C, H, W).
        cfg: the model's config, carried through by load_config.
        index: the prepared dataset's, for its intensity rules.
        batch: windows at a time, where they do not fit into memory fewer; crops are as many as the config says.
        progress: called with (slices done, slices, '').

    Returns:
        Label ids (D, H, W) uint8.
    """
    experiment = cfg.experiment
    depth, channels, *native = volume.image.shape
    taken = getattr(model, 'backbone', model).channels
    if channels != taken:
        raise UserError(f'the image has {channels} channels, the model takes {taken}')
    ranges = intensity_ranges(index, experiment.protocol, channel_statistics(volume.image))
    if experiment.get('crop'):
        size = resampled_shape((depth, *native), volume.spacing, experiment.get('spacing'))
        whole = torch.from_numpy(resample(Planes(volume.image, list(range(depth))), size))
        sample = SegDataSample(metainfo=dict(depth=depth, ori_shape=tuple(native), intensity_range=ranges))
        [sample] = model.test_step(dict(inputs=[whole], data_samples=[sample]))
        progress(depth, depth, '')
        return sample.pred_sem_seg.data.numpy()
    resize = next((part for part in test_pipeline(cfg) if part['type'] == 'ResizeWindow'), None)
    size = sides(experiment.img_size if resize else native)
    labels = np.zeros((depth, *native), np.uint8)
    overlap = OverlapAverage(depth, experiment.slices, experiment.stride)
    start = 0
    while start < depth:
        windows, samples, end = [], [], min(start + batch, depth)
        for centre in range(start, end):
            indices = window_indices(centre, depth, experiment.slices, experiment.stride)
            window = volume.image[indices].swapaxes(0, 1).reshape(-1, *native)
            window = np.ascontiguousarray(window)
            windows.append(torch.from_numpy(
                resize_planes(window, size, enlarge=resize.get('enlarge', 'bilinear')) if resize else window))
            samples.append(SegDataSample(metainfo=dict(
                ori_shape=tuple(native), img_shape=size, intensity_range=ranges, slice=centre,
                indices=indices)))
        try:
            predicted = model.test_step(dict(inputs=windows, data_samples=samples))
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            batch //= 2
            continue
        for sample in predicted:
            if 'pred_sem_seg' in sample:
                labels[sample.slice] = sample.pred_sem_seg.data[0].cpu().numpy()
                continue
            planes = sample.seg_logits.data.unflatten(0, (experiment.slices, -1))
            for z, total in overlap.add(sample.slice, sample.indices, planes):
                labels[z] = total.argmax(0).cpu().numpy()
        progress(end, depth, '')
        start = end
    return labels
