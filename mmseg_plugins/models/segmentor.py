"""Segmentation of windows on mmseg's EncoderDecoder: centre slice or all slices."""

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList
from torch import Tensor

from ..acceleration import check_inference_precision, compile_in_training, half_precision, lay_channels_last
from ..errors import UserError


@MODELS.register_module()
class WindowSegmentor(EncoderDecoder):
    """Encoder -> neck -> decoder over windows (Zhang et al. 2022, figure 1).

    Args:
        target: `center`: the logits are those of slice S // 2. `all`: the decoder predicts K
            classes for each of the S slices, and the metric averages overlapping predictions.
        slices: S; must be the encoder's.
        decode_head, auxiliary_head: mmseg's configs, with `num_classes` = K; the latter for `center` alone.
        compile: whether training compiles encoder, neck and decoder.
        channels_last: memory layout of images, feature maps and kernels.
        inference_precision: of predictions, see acceleration.py.

    Input (B, C * S, H, W); labels (B, 1, H, W) for `center`, (B, S, H, W) for `all`.
    """

    def __init__(self, *args, decode_head: dict, auxiliary_head: dict | Sequence[dict] | None = None,
                 target: str = 'center', slices: int = 1, compile: bool = False, channels_last: bool = False,
                 inference_precision: str = 'fp32', test_cfg: dict | None = None, **kwargs):
        if target not in ('center', 'all'):
            raise UserError(f"target {target!r}: must be 'center' or 'all'")
        if (mode := (test_cfg or {}).get('mode', 'whole')) not in ('whole', 'slide'):
            raise ValueError(f"test_cfg.mode={mode!r}: must be 'whole' or 'slide'")
        self.target, self.slices, self.classes = target, slices, decode_head['num_classes']
        self.inference_precision = check_inference_precision(inference_precision)
        if (channels := decode_head.get('out_channels')) not in (None, self.classes):
            raise UserError(f'model.decode_head.out_channels={channels}: there is one for each of {self.classes} '
                            'classes, background too; leave it out')
        if target == 'all':
            decode_head = dict(decode_head, num_classes=self.classes * slices)
            if auxiliary_head:
                raise UserError("model.auxiliary_head: predicts one slice, experiment.target='all' asks for all; "
                                'leave one of the two out')
        super().__init__(*args, decode_head=decode_head, auxiliary_head=auxiliary_head, test_cfg=test_cfg,
                         **kwargs)
        encoder_slices = getattr(self.backbone, 'slices', slices)
        if encoder_slices != slices:
            raise UserError(f'the encoder takes {encoder_slices} slices, the segmentor {slices}')
        if channels_last:
            lay_channels_last(self)
        if compile:
            compile_in_training(self, [part.forward for name, part in self.named_children()
                                       if name in ('backbone', 'neck', 'decode_head')])

    def _decode_head_forward_train(self, inputs: list[Tensor], data_samples: SampleList) -> dict:
        if self.target == 'center':
            return super()._decode_head_forward_train(inputs, data_samples)
        logits = self.decode_head(inputs).unflatten(1, (self.slices, self.classes)).flatten(0, 1)
        planes = [SegDataSample(gt_sem_seg=PixelData(data=plane[None]))
                  for sample in data_samples for plane in sample.gt_sem_seg.data]
        losses = self.decode_head.loss_by_feat(logits, planes)
        return {f'decode.{name}': value for name, value in losses.items()}

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits of a prediction, at the input's size."""
        if self.inference_precision == 'fp32':
            return super().encode_decode(inputs, batch_img_metas)
        with half_precision(inputs.device, self.inference_precision):
            logits = self.decode_head(self.extract_feat(inputs))
        return self.decode_head.predict_by_feat(logits.float(), batch_img_metas)

    def postprocess_result(self, seg_logits: Tensor, data_samples: SampleList) -> Sequence:
        """Bring logits to native resolution; `pred_sem_seg` is (1, H, W), or for `all`
        `seg_logits` stays, as probabilities of shape (S, K, H, W), for averaging over windows."""
        for logits, sample in zip(seg_logits, data_samples, strict=True):
            native = resize(logits[None], size=sample.ori_shape[:2], mode='bilinear',
                            align_corners=self.align_corners)[0]
            if self.target == 'all':
                native = native.unflatten(0, (self.slices, self.classes)).softmax(1)
                sample.seg_logits = PixelData(data=native.flatten(0, 1))
            else:
                ids = torch.uint8 if self.classes <= 256 else torch.int32
                sample.pred_sem_seg = PixelData(data=native.argmax(0, keepdim=True).to(ids))
        return data_samples
