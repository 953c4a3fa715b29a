"""Dice + Focal over softmax classes, as the paper names its loss, on MONAI's two parts."""

from mmseg.registry import MODELS
from monai.losses import DiceLoss, FocalLoss
from torch import Tensor, nn


@MODELS.register_module()
class DiceFocalLoss(nn.Module):
    """Soft Dice (Milletari et al. 2016) plus focal loss (Lin et al. 2017), both over the softmax.

    The released code's focal term is a sigmoid one, whatever it is told; this one is what the paper
    says. With the defaults the Dice term is MONAI's: one value per sample and class, background in.

    Args:
        gamma: focal exponent.
        class_weight: None, or 'inverse_sqrt': every class weighs (its share of the batch)^-1/2 in
            the focal term, scaled so that the mean weight of a voxel is 1. For tiny budgets, where
            rare organs would otherwise stay at zero.
        present_only: Dice over the foreground classes present in the batch, pooled over the batch,
            instead of per sample over all classes.
        dice_weight: factor of the Dice term.
        focal_weight: factor of the focal term (mean over voxels and classes, as MONAI's).
    """

    def __init__(self, gamma: float = 2.0, class_weight: str | None = None,
                 present_only: bool = False, dice_weight: float = 1.0, focal_weight: float = 1.0,
                 loss_name: str = 'loss_dice_focal'):
        super().__init__()
        if class_weight not in (None, 'inverse_sqrt'):
            raise ValueError(f"class_weight {class_weight!r}: None or 'inverse_sqrt'")
        self.focal = FocalLoss(use_softmax=True, gamma=gamma, reduction='none')
        self.dice = DiceLoss(softmax=True, batch=present_only, reduction='none')
        self.class_weight, self.present_only = class_weight, present_only
        self.dice_weight, self.focal_weight = dice_weight, focal_weight
        self._loss_name = loss_name

    @property
    def loss_name(self) -> str:
        return self._loss_name

    def forward(self, logits: Tensor, label: Tensor, weight=None, ignore_index=None, **_) -> Tensor:
        """Loss of logits (B, K, H, W) against integer labels (B, H, W)."""
        logits = logits.float()
        onehot = nn.functional.one_hot(label.long(), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
        counts = onehot.sum((0, 2, 3))
        focal = self.focal(logits, onehot)
        if self.class_weight == 'inverse_sqrt':
            weights = (counts + 1).rsqrt()
            weights = weights * counts.sum() / (weights * counts).sum()
            focal = focal * weights[:, None, None]
        dice = self.dice(logits, onehot)[..., 0, 0]  # (K,) where pooled, else (B, K)
        if self.present_only:
            present = (counts > 0).to(dice)
            present[0] = 0
            dice = (dice * present).sum() / present.sum().clamp(min=1)
        return self.dice_weight * dice.mean() + self.focal_weight * focal.mean()
