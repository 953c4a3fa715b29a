"""Mini SwinUNet from random weights, single slices of the embedded phantom, the miniature's recipe.

Command: python tools/train.py configs/swinunet_phantom.py
(prepare first: python tools/prepare_data.py phantom)
"""
_base_ = 'beit_centering_phantom.py'
experiment = dict(source=None, inflation='random', slices=1)
model = dict(
    backbone=dict(_delete_=True, type='SwinUNet', drop_path_rate=0.0,
                  sizes=dict(patch_size=2, embed_dim=16, num_heads=(1, 2, 4, 8))),
    neck=None,
    decode_head=dict(_delete_=True, type='SwinUNetHead', in_channels=16, channels=16, patch_size=2, num_classes=2,
                     align_corners=False, loss_decode=_base_.model.decode_head.loss_decode))
