"""Pre-training of a mini Swin on the embedded 2D source task, as the mini BEiT's.

Half a million parameters; patch 2, so that its finest map is as fine as the mini BEiT's pyramid.

Command: python tools/pretrain.py configs/mini_swin_layout.py --out weights/mini_swin_layout.pth
About a minute on one CPU thread.
"""
_base_ = 'mini_beit_layout.py'
model = dict(
    backbone=dict(_delete_=True, type='InflatedSwin', drop_path_rate=0.0,
                  sizes=dict(patch_size=2, window_size=4, embed_dim=16, depths=(2, 2, 2, 2),
                             num_heads=(1, 2, 4, 8))),
    neck=None,
    decode_head=dict(in_channels=[16, 32, 64, 128]))
