"""MedNeXt-L, kernels of 3, on BCV: the published recipe.

Paper: not in it. What its authors report is of five folds (docs/baselines.md).
Command: tools/dist_train.sh configs/mednext_bcv.py 2

| number | value | where from |
| --- | --- | --- |
| network | L: 32 filters, 3 to 8 blocks a stage, five outputs supervised | nnUNetTrainerV2_MedNeXt.py |
| voxels | 1 mm, crops of 128 x 128 x 128 | README.md |
| loss | Dice of the batch without background + cross-entropy | nnUNetTrainer.py, DC_and_CE_loss |
| optimizer | AdamW, rate 1e-3, eps 1e-4, weight decay 3e-5, clipped at 12 | nnUNetTrainerV2_MedNeXt.py |
| schedule | polynomial decay, power 0.9, no warm-up | nnUNetTrainerV2.py, poly_lr |
| steps, batch | 1000 epochs of 250 steps, 2 crops | nnUNetTrainerV2.py, network_trainer.py; a plan |
| foreground | a third of the crops | nnUNetTrainer.py, oversample_foreground_percent |

The code is github.com/MIC-DKFZ/MedNeXt, commit 0b78ed8, which holds nnU-Net's (V2) trainers.
What differs: of its augmentation zoom and flips are here, rotations by any angle, noise, blur and gamma are not;
intensities are this project's, not z-scores of the labelled voxels; the batch is what a planner may choose, here
2.
"""
_base_ = ['_base_/crops.py', '_base_/runtime.py']
experiment = dict(
    data_root='data/prepared/bcv', source=None, crop=(128, 128, 128), spacing=(1.0, 1.0, 1.0),
    batch=2, lr=1e-3, steps=250000, warmup=0, power=0.9)
model = dict(
    network=dict(type='MedNeXt', variant='L'),
    loss_decode=[
        dict(type='MonaiLoss', name='DiceLoss', loss_name='loss_dice', include_background=False, batch=True),
        dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_name='loss_ce')])
optim_wrapper = dict(_delete_=True, type='OptimWrapper', clip_grad=dict(max_norm=12.0),
                     optimizer=dict(type='AdamW', lr=1e-3, eps=1e-4, weight_decay=3e-5))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadCrop', foreground=0.33),
    dict(type='RandomZoomCrop', zoom=(0.7, 1.4)),
    dict(type='RandomWindowFlip', prob=0.5),
    dict(type='PackWindow')]))
