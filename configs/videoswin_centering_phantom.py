"""Mini Video Swin, started from the mini Swin's 2D weights, 5 slices on the embedded phantom.

Command: python tools/train.py configs/videoswin_centering_phantom.py
(prepare first: python tools/prepare_data.py phantom; the source is made by benchmarks/run_grid.py)
"""
_base_ = 'swin_centering_phantom.py'
model = dict(
    backbone=dict(_delete_=True, type='VideoSwin', drop_path_rate=0.0,
                  sizes=dict(patch_size=(2, 2, 2), window_size=(8, 4, 4), embed_dim=16, depths=(2, 2, 2, 2),
                             num_heads=(1, 2, 4, 8))))
