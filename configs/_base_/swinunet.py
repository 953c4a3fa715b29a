"""SwinUNet (Swin-T with two blocks in each stage, and its mirror) on single slices, with the project's loss."""
model = dict(
    type='WindowSegmentor',
    data_preprocessor=dict(type='WindowPreProcessor'),
    backbone=dict(type='SwinUNet', drop_path_rate=0.2),
    decode_head=dict(type='SwinUNetHead', in_channels=96, channels=96, patch_size=4, num_classes=2,
                     align_corners=False, loss_decode=dict(type='DiceFocalLoss', focal='sigmoid')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
