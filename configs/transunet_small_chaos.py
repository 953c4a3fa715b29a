"""TransUNet of 14 million parameters from random weights, single slices of CHAOS (abdominal T2-SPIR MRI).

The matched recipe: loss, optimizer, steps and augmentation of configs/dinov2_centering_chaos.py.
Command: python tools/train.py configs/transunet_small_chaos.py
(prepare first: python tools/prepare_data.py chaos --raw <folder of CHAOS_T2SPIR>)
"""
_base_ = 'dinov2_centering_chaos.py'
experiment = dict(encoder=None, source=None, inflation='random', slices=1)
model = dict(
    backbone=dict(_delete_=True, type='TransUNet', drop_rate=0.0,
                  sizes=dict(layers=(2, 2, 3), width=32, embed_dim=384, depth=6, num_heads=6)),
    neck=None,
    decode_head=dict(_delete_=True, type='TransUNetHead', in_channels=[32, 128, 256, 384], channels=16, hidden=256,
                     widths=(128, 64, 32), num_classes=2, norm_cfg=_base_.norm_cfg, align_corners=False,
                     loss_decode=_base_.model.decode_head.loss_decode))
