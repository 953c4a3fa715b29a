"""3D U-Net on BCV with the loss, optimizer, steps and augmentation of this project's other rows.

Paper: its own recipe is configs/unet3d_bcv.py.
Command: tools/dist_train.sh configs/unet3d_matched_bcv.py 8
"""
_base_ = ['_base_/crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/bcv', source=None, crop=(48, 192, 192))
model = dict(network=dict(type='UNet3D', strides=((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))), crops=4)
