"""TransUNet (R50 + ViT-B/16 and its cascaded upsampler) on single slices, with the project's loss."""
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='WindowSegmentor',
    data_preprocessor=dict(type='WindowPreProcessor'),
    backbone=dict(type='TransUNet', drop_rate=0.1),
    decode_head=dict(type='TransUNetHead', in_channels=[64, 256, 512, 768], channels=16, hidden=512,
                     widths=(256, 128, 64), num_classes=2, norm_cfg=norm_cfg, align_corners=False,
                     loss_decode=dict(type='DiceFocalLoss', focal='sigmoid')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
