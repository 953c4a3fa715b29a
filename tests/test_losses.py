"""The loss against MONAI's, which the paper's runs had."""

import pytest
import torch
from monai.losses import DiceFocalLoss as MonaiDiceFocal
from monai.losses import DiceLoss, FocalLoss

from mmseg_plugins.models import BatchDiceLoss, DiceFocalLoss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(2, 5, 7, 9, generator=generator, dtype=torch.float64)
    return logits.float().requires_grad_(), torch.randint(4, (2, 7, 9), generator=generator)  # label 4 is nowhere


def references(gamma: float, focal: str):
    if focal == 'sigmoid':
        return [MonaiDiceFocal(to_onehot_y=True, softmax=True, gamma=gamma)]
    return [DiceLoss(to_onehot_y=True, softmax=True), FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma)]


@pytest.mark.parametrize('gamma', [0.0, 1.0, 2.0])
@pytest.mark.parametrize('focal', ['softmax', 'sigmoid'])
def test_loss_and_gradient_are_monais(batch, gamma, focal):
    logits, label = batch
    found = DiceFocalLoss(gamma=gamma, focal=focal)(logits, label)
    wanted = sum(reference(logits, label[:, None]) for reference in references(gamma, focal))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, wanted)))


@pytest.mark.parametrize('squared', [True, False])
@pytest.mark.parametrize('background', [True, False])
def test_dice_of_the_batch_and_its_gradient_are_monais(batch, squared, background):
    logits, label = batch
    monais = DiceLoss(to_onehot_y=True, softmax=True, squared_pred=squared, batch=True,
                      include_background=background)
    ours = BatchDiceLoss(loss_weight=0.6, squared=squared, background=background)
    losses = 0.6 * monais(logits, label[:, None]), ours(logits, label)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in losses))


def test_class_weights_are_of_voxels_in_both_forms():
    """A voxel of a rare class weighs more, and a voxel 1 in the mean: where all are alike nothing changes."""
    logits, label = torch.zeros(1, 3, 1, 8), torch.tensor([[[0, 0, 0, 0, 0, 0, 0, 1]]])
    logits[:, 0] = 4.0  # all for background, which the rare class pays for
    for focal in ('softmax', 'sigmoid'):
        even, weighted = (DiceFocalLoss(focal=focal, dice_weight=0.0, class_weight=weight)(logits, label)
                          for weight in (None, 'inverse_sqrt'))
        assert weighted > 1.3 * even
        alike = torch.full_like(logits, 0.5)
        torch.testing.assert_close(*(DiceFocalLoss(focal=focal, dice_weight=0.0, class_weight=weight)(alike, label)
                                     for weight in (None, 'inverse_sqrt')))


def test_another_form_is_refused():
    with pytest.raises(ValueError, match="focal 'sigmoyd': must be 'softmax' or 'sigmoid'"):
        DiceFocalLoss(focal='sigmoyd')
