"""Mini Swin, centering inflation, 5 slices on the embedded phantom.

Command: python tools/train.py configs/swin_centering_phantom.py
(prepare first: python tools/prepare_data.py phantom; the source is made by benchmarks/run_grid.py)
"""
_base_ = 'beit_centering_phantom.py'
experiment = dict(source='weights/mini_swin_layout.pth')
model = dict(
    backbone=dict(_delete_=True, type='InflatedSwin', drop_path_rate=0.0,
                  sizes=dict(patch_size=2, window_size=4, embed_dim=16, depths=(2, 2, 2, 2),
                             num_heads=(1, 2, 4, 8))),
    neck=None,
    decode_head=dict(in_channels=[16, 32, 64, 128]))
