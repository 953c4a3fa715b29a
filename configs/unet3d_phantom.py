"""Mini 3D U-Net on the embedded phantom: about a minute on one CPU thread.

Command: python tools/train.py configs/unet3d_phantom.py
(prepare first: python tools/prepare_data.py phantom)
"""
_base_ = ['_base_/mini_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/phantom')
model = dict(network=dict(type='UNet3D', channels=(8, 16, 32, 48), strides=((1, 2, 2), (2, 2, 2), (2, 2, 2))))
