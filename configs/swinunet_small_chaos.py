"""SwinUNet of 12 million parameters from random weights, single slices of CHAOS (abdominal T2-SPIR MRI).

The matched recipe: loss, optimizer, steps and augmentation of configs/dinov2_centering_chaos.py.
Command: python tools/train.py configs/swinunet_small_chaos.py
(prepare first: python tools/prepare_data.py chaos --raw <folder of CHAOS_T2SPIR>)
"""
_base_ = 'dinov2_centering_chaos.py'
experiment = dict(encoder=None, source=None, inflation='random', slices=1)
model = dict(
    backbone=dict(_delete_=True, type='SwinUNet', drop_path_rate=0.0,
                  sizes=dict(embed_dim=64, num_heads=(2, 4, 8, 16))),
    neck=None,
    decode_head=dict(_delete_=True, type='SwinUNetHead', in_channels=64, channels=64, patch_size=4, num_classes=2,
                     align_corners=False, loss_decode=_base_.model.decode_head.loss_decode))
