"""A BEiT of half a million parameters, and a decoder without 3x3 convolutions.

With 3x3 convolutions the decoder of a miniature learns the task by itself and hides the encoder. Rare
organs need the class weights: without them they stay at zero and all initializations tie.
"""
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='WindowSegmentor',
    data_preprocessor=dict(type='WindowPreProcessor'),
    backbone=dict(type='InflatedViT', model='beit_base_patch16_224', out_indices=(1, 2, 3, 3),
                  sizes=dict(patch_size=8, embed_dim=96, depth=4, num_heads=3, init_values=1.0)),
    neck=dict(type='Feature2Pyramid', embed_dim=96, rescales=[4, 2, 1, 0.5], norm_cfg=norm_cfg),
    decode_head=dict(type='SegformerHead', in_channels=[96] * 4, in_index=[0, 1, 2, 3], channels=40,
                     dropout_ratio=0.0, num_classes=2, norm_cfg=norm_cfg, align_corners=False,
                     loss_decode=dict(type='DiceFocalLoss', gamma=1.0, class_weight='inverse_sqrt',
                                      present_only=True, focal_weight=28.0)),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
