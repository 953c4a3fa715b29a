"""DINO pre-training of the mini ViT on photographs; its local views are of a quarter of the pixels, as DINO's are.

Command: python tools/pretrain.py configs/mini_vit_dino_photographs.py \
             --out weights/mini_vit_dino_photographs.pth
(prepare first: python tools/prepare_data.py photographs --raw FOLDER_OR_TAR). About two minutes on one CPU thread.
"""
_base_ = 'mini_beit_dino_photographs.py'
model = dict(
    backbone=dict(model='vit_base_patch16_224', out_indices=(0, 1, 2, 2),
                  sizes=dict(_delete_=True, patch_size=8, embed_dim=128, depth=3, num_heads=2,
                             dynamic_img_size=True)),
    crops=dict(local_size=32))
