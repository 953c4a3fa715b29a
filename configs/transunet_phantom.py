"""Mini TransUNet from random weights, single slices of the embedded phantom, the miniature's recipe.

Command: python tools/train.py configs/transunet_phantom.py
(prepare first: python tools/prepare_data.py phantom)
"""
_base_ = 'beit_centering_phantom.py'
experiment = dict(source=None, inflation='random', slices=1)
model = dict(
    backbone=dict(_delete_=True, type='TransUNet', drop_rate=0.0,
                  sizes=dict(layers=(1, 1, 1), width=32, embed_dim=96, depth=2, num_heads=3)),
    neck=None,
    decode_head=dict(_delete_=True, type='TransUNetHead', in_channels=[32, 128, 256, 96], channels=16, hidden=64,
                     widths=(48, 32, 16), num_classes=2, norm_cfg=_base_.norm_cfg, align_corners=False,
                     loss_decode=_base_.model.decode_head.loss_decode))
