"""Mini ViT, centering inflation, 5 slices on the embedded phantom.

Command: python tools/train.py configs/dino_centering_phantom.py
(prepare first: python tools/prepare_data.py phantom; the source is made by benchmarks/run_grid.py)
"""
_base_ = 'beit_centering_phantom.py'
experiment = dict(source='weights/mini_vit_dino_photographs.pth')
model = dict(
    backbone=dict(model='vit_base_patch16_224', out_indices=(0, 1, 2, 2),
                  sizes=dict(_delete_=True, patch_size=8, embed_dim=128, depth=3, num_heads=2)),
    neck=dict(embed_dim=128),
    decode_head=dict(in_channels=[128] * 4))
