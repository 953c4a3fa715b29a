"""BEiT-B/16 with the paper's decoder: taps after blocks 4 6 8 12, pyramid, UPerNet of 768 channels.

Why no drop path, a layer scale of 1 without a source and a sigmoid focal term: docs/recipe.md.
"""
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='WindowSegmentor',
    data_preprocessor=dict(type='WindowPreProcessor'),
    backbone=dict(type='InflatedViT', model='beit_base_patch16_224', out_indices=(3, 5, 7, 11),
                  drop_path_rate=0.0, layer_scale=1.0),
    neck=dict(type='Feature2Pyramid', embed_dim=768, rescales=[4, 2, 1, 0.5], norm_cfg=norm_cfg),
    decode_head=dict(type='UPerHead', in_channels=[768] * 4, in_index=[0, 1, 2, 3],
                     pool_scales=(1, 2, 3, 6), channels=768, dropout_ratio=0.1, num_classes=2,
                     norm_cfg=norm_cfg, align_corners=False,
                     loss_decode=dict(type='DiceFocalLoss', focal='sigmoid')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
