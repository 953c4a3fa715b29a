"""Intensity scaling on the training device: windows and crops travel in the volume's own dtype."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmseg.registry import MODELS
from torch import Tensor

from ..errors import UserError


@MODELS.register_module()
class WindowPreProcessor(BaseDataPreprocessor):
    """Stack a batch, clip each channel to its range, scale to `scaled`, add the augmentation's shift.

    Every sample's metainfo holds `intensity_range` (C pairs low, high) and, in training,
    `intensity_shift` (in units of the scaled image).
    A window has C * S channels, channel-major; so has a crop, whose S slices are all that it spans.

    Args:
        clip: (low, high) of every channel, in the volumes' unit; None: the sample's own range.
        scaled: (low, high) of the scaled image.

    Raises:
        UserError: `clip` or `scaled` does not go from low to high.
    """

    def __init__(self, clip: Sequence[float] | None = None,
                 scaled: Sequence[float] = (-1.0, 1.0), non_blocking: bool = True):
        super().__init__(non_blocking=non_blocking)
        for name, value in (('clip', clip), ('scaled', scaled)):
            if value is not None and not (len(value) == 2 and value[0] < value[1]):
                raise UserError(f'data_preprocessor.{name}={value!r} must be two numbers, the lower first')
        self.clip, self.scaled = clip, scaled
        self.memory_format = torch.contiguous_format

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        windows, samples = data['inputs'], data.get('data_samples')
        inputs = torch.stack([window.float() for window in windows])  # cases may differ in dtype
        ranges = torch.tensor([[self.clip or own for own in sample.intensity_range] for sample in samples],
                              dtype=torch.float32, device=inputs.device)
        ranges = ranges.repeat_interleave(inputs.shape[1] // ranges.shape[1], dim=1)[..., None, None]
        inputs = scale_intensity(inputs, ranges[:, :, 0], ranges[:, :, 1], self.scaled)
        shifts = [sample.get('intensity_shift', 0.0) for sample in samples]
        if any(shifts):
            inputs += inputs.new_tensor(shifts)[:, None, None, None]
        for sample in samples if training else ():
            sample.gt_sem_seg.data = sample.gt_sem_seg.data.long()  # what losses want; they travel as bytes
        return dict(inputs=inputs.contiguous(memory_format=self.memory_format), data_samples=samples)


def scale_intensity(image: Tensor, low: Tensor, high: Tensor, scaled: Sequence[float] = (-1.0, 1.0)) -> Tensor:
    """Clip to [low, high] and map that to `scaled` (paper, table 6: [-1, 1]); a flat range maps to its low end."""
    span = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    return (torch.minimum(torch.maximum(image, low), high) - low) / span * (scaled[1] - scaled[0]) + scaled[0]
