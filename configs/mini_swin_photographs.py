"""Pre-training of the mini Swin on photographs in class folders, as the mini BEiT's.

Command: python tools/pretrain.py configs/mini_swin_photographs.py --out weights/mini_swin_photographs.pth
(prepare first: python tools/prepare_data.py photographs --raw FOLDER_OR_TAR). About two minutes on one CPU thread.
"""
_base_ = 'mini_beit_photographs.py'
experiment = dict(steps=250, warmup=25)
model = dict(
    backbone=dict(_delete_=True, type='InflatedSwin', drop_path_rate=0.0,
                  sizes=dict(patch_size=2, window_size=4, embed_dim=16, depths=(2, 2, 2, 2),
                             num_heads=(1, 2, 4, 8))),
    decode_head=dict(in_channels=128))
