"""3D U-Net on BCV, with the recipe of nnU-Net (_base_/nnunet_recipe.py) and a fixed plan.

Recipe: published. Paper: not in it; nnU-Net itself is a row of its own.
Command: tools/dist_train.sh configs/unet3d_bcv.py 2

| what | value | where from |
| --- | --- | --- |
| network | five levels, residual units | MONAI's UNet, filters chosen here |
| voxels | as stored, crops of 48 x 192 x 192 | chosen here |

What differs from nnU-Net beside that: there is no deep supervision.
"""
_base_ = '_base_/nnunet_recipe.py'
experiment = dict(data_root='data/prepared/bcv', crop=(48, 192, 192))
model = dict(network=dict(type='UNet3D', strides=((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))))
