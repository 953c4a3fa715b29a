"""2D U-Net of 1.6 million parameters, slice by slice, on CHAOS (abdominal T2-SPIR MRI).

The matched recipe: loss, optimizer, steps and augmentation of configs/dinov2_centering_chaos.py.
Command: python tools/train.py configs/unet2d_small_chaos.py
(prepare first: python tools/prepare_data.py chaos --raw <folder of CHAOS_T2SPIR>)
"""
_base_ = ['_base_/small_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/chaos', crop=(1, 224, 224), batch=12)
model = dict(network=dict(type='UNet2D', channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2)), crops=12)
