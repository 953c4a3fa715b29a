"""Mini 2D U-Net, slice by slice, on the embedded phantom: about a minute on one CPU thread.

Command: python tools/train.py configs/unet2d_phantom.py
(prepare first: python tools/prepare_data.py phantom)
"""
_base_ = ['_base_/mini_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/phantom', crop=(1, 64, 64), batch=16)
model = dict(network=dict(type='UNet2D', channels=(16, 32, 64, 96), strides=(2, 2, 2)), crops=16)
