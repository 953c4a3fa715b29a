"""Pre-training of a mini ViT on photographs in class folders, as the mini BEiT's.

Heads are 64 wide, as of every published ViT, so that its file alone tells their number.

Command: python tools/pretrain.py configs/mini_vit_photographs.py --out weights/mini_vit_photographs.pth
(prepare first: python tools/prepare_data.py photographs --raw FOLDER_OR_TAR). About two minutes on one CPU thread.
"""
_base_ = 'mini_beit_photographs.py'
experiment = dict(steps=500, warmup=50)
model = dict(
    backbone=dict(model='vit_base_patch16_224', out_indices=(0, 1, 2, 2),
                  sizes=dict(_delete_=True, patch_size=8, embed_dim=128, depth=3, num_heads=2)),
    decode_head=dict(in_channels=128))
