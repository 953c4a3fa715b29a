"""Pre-training without labels: the encoder that becomes a source checkpoint, and a loss of images."""

from collections.abc import Sequence

from mmengine.model import BaseModel
from mmseg.registry import MODELS
from torch import Tensor

from ..errors import UserError


class Objective(BaseModel):
    """Base of objectives; DinoPretrainer is one.

    Add one with a class, in a module that a config names under `custom_imports`:

        @MODELS.register_module()
        class MeanColour(Objective):
            def __init__(self, **settings):
                super().__init__(**settings)
                self.guess = nn.Linear(self.backbone.model.num_features, self.backbone.channels)

            def loss(self, images):                         # (B, C, H, W), in [-1, 1]
                tokens = self.backbone.model.forward_features(images)
                return dict(loss=(self.guess(tokens.mean(1)) - images.mean((2, 3))).square().mean())

    and give that config, which may start from configs/_base_/mini_dino.py, to tools/pretrain.py, or to a grid as a
    source's `made_by`:

        model = dict(_delete_=True, type='MeanColour', backbone=_base_.model.backbone,
                     data_preprocessor=dict(type='WindowPreProcessor'))

    Args:
        backbone: config of an encoder of one slice (InflatedViT, InflatedSwin), whose weights are written.
        steps: optimizer steps of the whole training, for schedules.
        accumulate: forward passes per optimizer step.

    Raises:
        UserError: more than one slice.
    """

    def __init__(self, backbone: dict, steps: int, accumulate: int = 1, data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor)
        self.steps, self.accumulate = steps, accumulate
        self.backbone = MODELS.build(backbone)
        if self.backbone.slices != 1:
            raise UserError(f'experiment.slices={self.backbone.slices}: pre-training is 2D, one slice')

    def forward(self, inputs: Tensor, data_samples: Sequence | None = None, mode: str = 'tensor') -> dict | tuple:
        """Losses of images (B, C, H, W), or in mode `tensor` the encoder's feature maps."""
        return self.loss(inputs) if mode == 'loss' else self.backbone(inputs)

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Of images (B, C, H, W) in [-1, 1]. What has `loss` in its name is added up and minimized."""
        raise NotImplementedError
