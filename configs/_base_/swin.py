"""Swin-B (window 7) with UPerNet of 512 channels on its four stages."""
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='WindowSegmentor',
    data_preprocessor=dict(type='WindowPreProcessor'),
    backbone=dict(type='InflatedSwin', model='swin_base_patch4_window7_224', drop_path_rate=0.3),
    decode_head=dict(type='UPerHead', in_channels=[128, 256, 512, 1024], in_index=[0, 1, 2, 3],
                     pool_scales=(1, 2, 3, 6), channels=512, dropout_ratio=0.1, num_classes=2,
                     norm_cfg=norm_cfg, align_corners=False,
                     loss_decode=dict(type='DiceFocalLoss', focal='sigmoid')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
