"""2D U-Net on BCV, slice by slice, with the recipe of nnU-Net (_base_/nnunet_recipe.py) and a fixed plan.

Recipe: published. Paper: not in it; nnU-Net itself is a row of its own.
Command: tools/dist_train.sh configs/unet2d_bcv.py 4

| what | value | where from |
| --- | --- | --- |
| network | seven levels, residual units | MONAI's UNet, filters chosen here |
| voxels | as stored, slices of 512 x 512 | chosen here |
| batch | 12 slices | chosen here |

What differs from nnU-Net beside that: there is no deep supervision.
"""
_base_ = '_base_/nnunet_recipe.py'
experiment = dict(data_root='data/prepared/bcv', crop=(1, 512, 512), batch=12)
model = dict(network=dict(type='UNet2D'), crops=8, overlap=0.0)
