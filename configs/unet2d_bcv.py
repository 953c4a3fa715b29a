"""2D U-Net on BCV, slice by slice, with the recipe of nnU-Net and a fixed plan.

Paper: not in it; nnU-Net itself is a row of its own.
Command: tools/dist_train.sh configs/unet2d_bcv.py 4

| number | value | where from |
| --- | --- | --- |
| network | seven levels, residual units | MONAI's UNet, filters chosen here |
| voxels | as stored, slices of 512 x 512 | chosen here |
| loss | Dice of the batch without background + cross-entropy | nnUNetTrainer.py, DC_and_CE_loss |
| optimizer | SGD, rate 0.01, Nesterov momentum 0.99, weight decay 3e-5, clipped at 12 | nnUNetTrainerV2.py |
| schedule | polynomial decay, power 0.9, no warm-up | nnUNetTrainerV2.py, poly_lr |
| steps, batch | 1000 epochs of 250 steps, 12 slices | nnUNetTrainerV2.py, network_trainer.py; chosen here |
| foreground | a third of the crops | nnUNetTrainer.py, oversample_foreground_percent |

The code is github.com/MIC-DKFZ/MedNeXt, commit 0b78ed8, which holds nnU-Net's (V2) trainers.
What differs: of its augmentation zoom and flips are here, rotations by any angle, noise, blur and gamma are not;
intensities are this project's, not z-scores of the labelled voxels; there is no deep supervision.
"""
_base_ = ['_base_/crops.py', '_base_/runtime.py']
experiment = dict(
    data_root='data/prepared/bcv', source=None, crop=(1, 512, 512), batch=12, lr=0.01,
    steps=250000, warmup=0, power=0.9)
model = dict(
    network=dict(type='UNet2D'), crops=8, overlap=0.0,
    loss_decode=[
        dict(type='MonaiLoss', name='DiceLoss', loss_name='loss_dice', include_background=False, batch=True),
        dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_name='loss_ce')])
optim_wrapper = dict(_delete_=True, type='OptimWrapper', clip_grad=dict(max_norm=12.0),
                     optimizer=dict(type='SGD', lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadCrop', foreground=0.33),
    dict(type='RandomZoomCrop', zoom=(0.7, 1.4)),
    dict(type='RandomWindowFlip', prob=0.5),
    dict(type='PackWindow')]))
