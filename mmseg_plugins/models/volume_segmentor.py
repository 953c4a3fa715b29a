"""Segmentation of volumes by networks that take them: of crops in training, of overlapping crops in prediction."""

import inspect
from collections.abc import Sequence

import torch
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Tensor
from torch.nn.functional import interpolate

from ..acceleration import check_inference_precision, compile_in_training, half_precision
from ..errors import UserError, check_number, nearest


@MODELS.register_module()
class VolumeSegmentor(BaseModel):
    """A network that maps volumes to logits.

    A network of one's own is a module that a config names under `custom_imports`:

        @MODELS.register_module()
        class Shallow(nn.Module):
            def __init__(self, in_channels, out_channels):     # and crop, (D, H, W), or source, a path
                super().__init__()
                self.layer = nn.Conv3d(in_channels, out_channels, 3, padding=1)

            def forward(self, volumes):                        # (B, C, D, H, W), scaled
                return self.layer(volumes)                     # (B, K, D, H, W)

        model = dict(network=dict(type='Shallow'))

    In training it may return several maps of logits, the finest first: deep supervision.

    Args:
        network: its config.
        crop: (D, H, W) in voxels that it takes at a time.
        loss_decode: config of a loss, or several, as mmseg's heads have them; several are added. Of several maps
            the losses are averaged with weights that halve from one to the next (nnU-Net, Isensee et al. 2021),
            each against the label's nearest voxels.
        overlap: share of a crop that neighbouring ones have in common in prediction, which are averaged with
            Gaussian weights (sigma 1/8 of the crop).
        crops: that are predicted at a time.
        compile: whether training compiles the network.
        inference_precision: of predictions, see acceleration.py.

    Input (B, C * D, H, W), channel-major, as WindowPreProcessor gives it; labels (B, D, H, W). A prediction holds
    a volume's logits in float32 in the CPU's memory, 4 (K + 1) bytes a voxel, and on the device no more than the
    volume and the crops at hand: of 512 x 512 x 130 voxels and 14 classes 2.0 GB (with volume and crops of 64 x
    256 x 256 on the CPU too, 2.7 GB were measured).
    """

    def __init__(self, network: dict, crop: Sequence[int], loss_decode: dict | Sequence[dict],
                 overlap: float = 0.5, crops: int = 1, compile: bool = False,
                 inference_precision: str = 'fp32', data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor)
        self.channels, self.crop = network['in_channels'], tuple(crop)
        self.overlap, self.crops = check_number('overlap', overlap, 0, 0.99), int(check_number('crops', crops, 1))
        self.inference_precision = check_inference_precision(inference_precision)
        self.network = MODELS.build(network)
        losses = loss_decode if isinstance(loss_decode, list | tuple) else [loss_decode]
        self.losses = torch.nn.ModuleList(MODELS.build(loss) for loss in losses)
        if compile:
            compile_in_training(self, [self.network.forward])

    def forward(self, inputs: Tensor, data_samples: SampleList | None = None, mode: str = 'tensor'):
        """Losses, label maps of whole volumes, or in mode `tensor` what the network returns."""
        volumes = inputs.unflatten(1, (self.channels, -1))
        if mode == 'tensor':
            return self.network(volumes)
        return self.loss(volumes, data_samples) if mode == 'loss' else self.predict(volumes, data_samples)

    def loss(self, volumes: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        outputs = self.network(volumes)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        label = torch.stack([sample.gt_sem_seg.data for sample in data_samples])
        weights, found = [0.5 ** level for level in range(len(outputs))], {}
        for weight, logits in zip(weights, outputs, strict=True):
            target = label
            if logits.shape[2:] != label.shape[1:]:
                target = interpolate(label[:, None].float(), logits.shape[2:], mode='nearest-exact')[:, 0].long()
            for loss in self.losses:
                value = weight / sum(weights) * loss(logits, target)
                found[loss.loss_name] = found.get(loss.loss_name, 0) + value
        return found

    def predict(self, volumes: Tensor, data_samples: SampleList) -> SampleList:
        """`pred_sem_seg` of every sample, (D, H, W) at its native resolution."""
        from monai.inferers import sliding_window_inference  # takes seconds

        outside = self.data_preprocessor.scaled[0]  # what augmentation fills with too
        for volume, sample in zip(volumes, data_samples, strict=True):
            logits = sliding_window_inference(
                volume[None], self.crop, self.crops, self._finest, self.overlap, mode='gaussian', cval=outside,
                sw_device=volume.device, device='cpu')[0]
            label = native_label(logits, (sample.depth, *sample.ori_shape))
            sample.pred_sem_seg = PixelData(data=label)
        return data_samples

    def _finest(self, crops: Tensor) -> Tensor:
        with half_precision(crops.device, self.inference_precision):
            outputs = self.network(crops)
        return (outputs if isinstance(outputs, Tensor) else outputs[0]).float()


def native_label(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (K, D, H, W) -> label ids of a size (D, H, W), of trilinearly resized logits, a slice at a time."""
    classes, depth, *plane = logits.shape
    label = torch.empty(tuple(size), dtype=torch.uint8 if classes <= 256 else torch.int32)
    for z in range(size[0]):
        place = min(max((z + 0.5) * depth / size[0] - 0.5, 0), depth - 1)
        lower = int(place)
        found = logits[:, lower]
        if place > lower:
            found = torch.lerp(found, logits[:, lower + 1], place - lower)
        if plane != list(size[1:]):
            found = interpolate(found[None], tuple(size[1:]), mode='bilinear', align_corners=False)[0]
        label[z] = found.argmax(0)
    return label


def fill_network(network: dict, **facts) -> None:
    """Hand a network's config what its constructor takes of the facts; every one takes channels and classes.

    Args:
        network: its config.
        facts: `in_channels`, `out_channels`, `crop`, `source`.

    Raises:
        UserError: there is no such network, or it cannot start from a source.
    """
    kind = MODELS.get(network['type'])
    if kind is None:
        raise UserError(f'model.network.type: nothing is called {network["type"]!r}'
                        f'{nearest(network["type"], MODELS.module_dict)}')
    parameters = inspect.signature(kind).parameters
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if facts['source'] and 'source' not in parameters:
        raise UserError(f'experiment.source={facts["source"]!r}: {network["type"]} starts from random weights; '
                        'leave it out')
    network.update({name: value for name, value in facts.items() if name in ('in_channels', 'out_channels')
                    or name in parameters or any_name and name == 'crop'})
