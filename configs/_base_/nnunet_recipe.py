"""How nnU-Net's trainer (Isensee et al. 2021) trains a network on crops; whose configs say what they do otherwise.

| what | value | where from |
| --- | --- | --- |
| loss | cross-entropy + Dice, of the batch, without background | nnUNetTrainer.py, DC_and_CE_loss |
| optimizer | SGD, rate 0.01, Nesterov momentum 0.99, weight decay 3e-5, clipped at 12 | nnUNetTrainerV2.py |
| schedule | polynomial decay, power 0.9, no warm-up | nnUNetTrainerV2.py, poly_lr |
| steps | 250,000: 1000 epochs of 250 | nnUNetTrainerV2.py, network_trainer.py |
| batch | 2 crops, a planner's least | a plan |
| foreground | 1 of 2 crops: a third, rounded up | nnUNetTrainer.py, oversample_foreground_percent |

The code is nnU-Net's (V2) trainers as github.com/MIC-DKFZ/MedNeXt, commit 0b78ed8, and github.com/YtongXie/CoTr,
commit 521b4cc, hold them.
What differs: of its augmentation zoom and flips are here, rotations by any angle, noise, blur, gamma and low
resolution are not; every crop is zoomed, and in-plane, not a fifth of them along all axes; a foreground crop is
around any labelled voxel, not around one of a label that was drawn first; intensities are this project's, not
z-scores of the labelled voxels; the rate falls with every step, not every epoch; prediction is not averaged over
flips.
"""
_base_ = ['crops.py', 'runtime.py']
experiment = dict(source=None, batch=2, lr=0.01, steps=250_000, warmup=0, power=0.9)
model = dict(loss_decode=[
    dict(type='BatchDiceLoss', squared=False, background=False),
    dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_name='loss_ce')])
optim_wrapper = dict(_delete_=True, type='OptimWrapper', clip_grad=dict(max_norm=12.0),
                     optimizer=dict(type='SGD', momentum=0.99, nesterov=True, weight_decay=3e-5))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadCrop', foreground=0.5),
    dict(type='RandomZoomCrop', zoom=(0.7, 1.4)),
    dict(type='RandomWindowFlip', prob=0.5),
    dict(type='PackWindow')]))
