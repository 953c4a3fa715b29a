"""2D U-Net, slice by slice, on BCV with the loss, optimizer, steps and augmentation of this project's other rows.

Paper: its own recipe is configs/unet2d_bcv.py.
Command: tools/dist_train.sh configs/unet2d_matched_bcv.py 8
"""
_base_ = ['_base_/crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/bcv', source=None, crop=(1, 512, 512))
model = dict(network=dict(type='UNet2D'), crops=8, overlap=0.0)
