"""Classification of 2D images with the parts of segmentation: a decoder that gives a whole image one class."""

from collections.abc import Sequence

from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn


@MODELS.register_module()
class PooledHead(BaseDecodeHead):
    """Mean over the last feature map, LayerNorm, and a linear classifier: the usual head of a pooled ViT or Swin.

    In the place of a WindowSegmentor's decoder it makes supervised pre-training a classification. Of an image's
    label map, which is filled with its class (datasets/photographs.py), the largest id counts: what augmentation
    has brought in is background, 0. The whole image is predicted as one class.

    Args:
        in_channels: E, the width of the last feature map; of several maps' widths the last.
        num_classes: K, background included.
        kwargs: BaseDecodeHead's; `in_index` chooses another feature map.

    Input: feature maps (B, E, H, W). Output: logits (B, K, 1, 1).
    """

    def __init__(self, in_channels: int | Sequence[int], num_classes: int, **kwargs):
        in_channels = in_channels if isinstance(in_channels, int) else in_channels[-1]
        # no class is ignored: mmseg's 255 is one of many here
        super().__init__(in_channels=in_channels, channels=in_channels, num_classes=num_classes, ignore_index=-1,
                         **kwargs)
        self.norm = nn.LayerNorm(in_channels)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        pooled = self._transform_inputs(inputs).mean((2, 3))
        return self.cls_seg(self.norm(pooled)[..., None, None])

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """The configured loss of logits (B, K, 1, 1) against the images' classes."""
        images = [SegDataSample(gt_sem_seg=PixelData(data=sample.gt_sem_seg.data.amax((1, 2), keepdim=True)))
                  for sample in batch_data_samples]
        return super().loss_by_feat(seg_logits, images)
