"""3D U-Net of 1.2 million parameters on CHAOS (abdominal T2-SPIR MRI).

The matched recipe: loss, optimizer, steps and augmentation of configs/dinov2_centering_chaos.py.
Command: python tools/train.py configs/unet3d_small_chaos.py
(prepare first: python tools/prepare_data.py chaos --raw <folder of CHAOS_T2SPIR>)
"""
_base_ = ['_base_/small_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/chaos')
model = dict(network=dict(type='UNet3D', channels=(8, 16, 32, 64, 128),
                          strides=((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))))
