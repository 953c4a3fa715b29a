"""Dice + Focal, as the paper names its loss, and the Dice of methods that it is compared with.

A loss of one's own is a module that a config names, here or in one that a grid imports; MMSegmentation's do too:

    @MODELS.register_module()
    class Tversky(nn.Module):
        loss_name = 'loss_tversky'

        def forward(self, logits, label, weight=None, ignore_index=None):   # (B, K, H, W), (B, H, W) int64
            return ...                                                      # a number

    model = dict(decode_head=dict(loss_decode=dict(_delete_=True, type='Tversky')))
"""

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..collective import sum_over_processes
from ..errors import check_number


@MODELS.register_module()
class DiceFocalLoss(nn.Module):
    """Soft Dice (Milletari et al. 2016) of the softmax plus focal loss (Lin et al. 2017).

    With the defaults the terms equal MONAI's DiceLoss(softmax, batch=False) and FocalLoss(use_softmax), and with
    `focal='sigmoid'` their sum equals DiceFocalLoss(softmax=True), whose focal term is a sigmoid one all the same:
    so were the paper's runs. Background is included. Nothing is one-hot: a quarter of the time and memory.

    Args:
        gamma: focal exponent.
        focal: `softmax`, a voxel's loss is that of its own class; or `sigmoid`, every class is a binary problem of
            its own, and a voxel's loss is the sum over them.
        class_weight: None, or 'inverse_sqrt': in the focal term every voxel weighs (its class's share of
            the batch)^-1/2, scaled so that the mean weight of a voxel is 1. For tiny budgets, where
            rare organs would otherwise stay at zero.
        present_only: Dice pooled over the batch and averaged over the foreground classes present in
            it, instead of per sample over all classes. The batch is that of a pass over all processes.
        dice_weight: factor of the Dice term.
        focal_weight: factor of the focal term (a mean over voxels and classes).
    """

    def __init__(self, gamma: float = 2.0, class_weight: str | None = None,
                 present_only: bool = False, dice_weight: float = 1.0, focal_weight: float = 1.0,
                 smooth: float = 1e-5, loss_name: str = 'loss_dice_focal', focal: str = 'softmax'):
        super().__init__()
        if focal not in ('softmax', 'sigmoid'):
            raise ValueError(f"focal {focal!r}: must be 'softmax' or 'sigmoid'")
        self.focal = focal
        if class_weight not in (None, 'inverse_sqrt'):
            raise ValueError(f"class_weight {class_weight!r}: None or 'inverse_sqrt'")
        self.class_weight, self.present_only = class_weight, present_only
        self.gamma, self.smooth = check_number('gamma', gamma, 0), check_number('smooth', smooth, 0)
        self.dice_weight = check_number('dice_weight', dice_weight, 0)
        self.focal_weight = check_number('focal_weight', focal_weight, 0)
        self.loss_name = loss_name

    def forward(self, logits: Tensor, label: Tensor, weight=None, ignore_index=None, **_) -> Tensor:
        """Loss of logits (B, K, H, W) against integer labels (B, H, W)."""
        batch, classes = logits.shape[:2]
        logits = logits.float().flatten(2)                           # (B, K, V)
        log_p = logits.log_softmax(1)                                # (B, K, V)
        label = label.long().flatten(1)                              # (B, V)
        log_own = log_p.gather(1, label[:, None])[:, 0]              # (B, V)
        own = log_own.exp()
        counts = _sum_per_class(torch.ones_like(own), label, classes)  # (B, K)
        total = sum_over_processes(counts.sum(0))  # of the whole batch

        focal = (-(1 - own).pow(self.gamma) * log_own if self.focal == 'softmax' else
                 self._binary_losses(logits, label))                 # (B, V)
        if self.class_weight == 'inverse_sqrt':
            weights = (total + 1).rsqrt()
            focal = focal * (weights * total.sum() / (weights * total).sum())[label]

        both, sizes = _sum_per_class(own, label, classes), log_p.exp().sum(2) + counts
        if self.present_only:
            both, sizes = sum_over_processes(both.sum(0)), sum_over_processes(sizes.sum(0))
            present = (total > 0).float()
            present[0] = 0
        dice = 1 - (2 * both + self.smooth) / (sizes + self.smooth)
        dice = ((dice * present).sum() / present.sum().clamp(min=1) if self.present_only
                else dice.mean())
        return self.dice_weight * dice + self.focal_weight * focal.mean() / classes

    def _binary_losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """Sigmoid focal losses of logits (B, K, V), summed over the classes: (B, V)."""
        absent = logits.sigmoid().pow(self.gamma) * softplus(logits)  # as if no voxel had any class
        own = logits.gather(1, label[:, None])
        present = (-own).sigmoid().pow(self.gamma) * softplus(-own)
        return absent.sum(1) + (present - absent.gather(1, label[:, None]))[:, 0]


@MODELS.register_module()
class BatchDiceLoss(nn.Module):
    """Soft Dice of the softmax (Milletari et al. 2016), pooled over the batch.

    One Dice for each class, of all voxels of the batch, which is that of a pass over all processes; the loss is
    their mean over the classes. TransUNet and SwinUNet are trained with it and a cross-entropy, nnU-Net with its
    plain form without background. It equals MONAI's DiceLoss(softmax, squared_pred, batch, include_background).

    Args:
        loss_weight: factor.
        smooth: added to numerator and denominator.
        squared: whether the denominator has the probabilities' squares, or themselves.
        background: whether class 0 has a Dice too.
    """

    def __init__(self, loss_weight: float = 1.0, smooth: float = 1e-5, loss_name: str = 'loss_dice',
                 squared: bool = True, background: bool = True):
        super().__init__()
        self.loss_weight = check_number('loss_weight', loss_weight, 0)
        self.smooth = check_number('smooth', smooth, 0)
        self.loss_name, self.squared, self.first = loss_name, squared, 0 if background else 1

    def forward(self, logits: Tensor, label: Tensor, weight=None, ignore_index=None, **_) -> Tensor:
        """Loss of logits (B, K, ...) against integer labels (B, ...)."""
        p, label = logits.float().softmax(1).flatten(2), label.long().flatten(1)      # (B, K, V), (B, V)
        own = p.gather(1, label[:, None])[:, 0]                                       # (B, V)
        both = _sum_per_class(own, label, p.shape[1])
        counts = _sum_per_class(torch.ones_like(own), label, p.shape[1])
        sizes = (p.square() if self.squared else p).sum(2) + counts
        both, sizes = (sum_over_processes(part.sum(0)) for part in (both, sizes))
        return self.loss_weight * (1 - (2 * both + self.smooth) / (sizes + self.smooth))[self.first:].mean()


@MODELS.register_module()
class MonaiLoss(nn.Module):
    """A loss of MONAI's, of the softmax against one-hot labels, for the recipes of methods that were published so.

    Args:
        name: of the class in monai.losses, as `DiceCELoss`.
        settings: its arguments.
    """

    def __init__(self, name: str, loss_name: str = 'loss_monai', **settings):
        import monai.losses  # takes seconds

        super().__init__()
        self.loss = getattr(monai.losses, name)(to_onehot_y=True, softmax=True, **settings)
        self.loss_name = loss_name

    def forward(self, logits: Tensor, label: Tensor, weight=None, ignore_index=None, **_) -> Tensor:
        """Loss of logits (B, K, ...) against integer labels (B, ...)."""
        return self.loss(logits.float(), label[:, None])


def _sum_per_class(values: Tensor, label: Tensor, classes: int) -> Tensor:
    """Sum (B, V) over the voxels of each class: (B, K)."""
    return values.new_zeros(len(values), classes).scatter_add(1, label, values)
