"""MedNeXt-L, kernels of 3, on BCV, with the recipe of nnU-Net (_base_/nnunet_recipe.py) but for the optimizer.

Recipe: published. Paper: not in it. What its authors report is of five folds (docs/baselines.md).
Command: tools/dist_train.sh configs/mednext_bcv.py 2

| what | value | where from |
| --- | --- | --- |
| network | L: 32 filters, 3 to 8 blocks a stage, five outputs supervised | nnUNetTrainerV2_MedNeXt.py |
| voxels | 1 mm, crops of 128 x 128 x 128 | README.md |
| optimizer | AdamW, rate 1e-3, eps 1e-4, weight decay 3e-5, clipped at 12 | nnUNetTrainerV2_MedNeXt.py |
"""
_base_ = '_base_/nnunet_recipe.py'
experiment = dict(data_root='data/prepared/bcv', crop=(128, 128, 128), spacing=(1.0, 1.0, 1.0), lr=1e-3)
model = dict(network=dict(type='MedNeXt', variant='L'))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', eps=1e-4, weight_decay=3e-5))
