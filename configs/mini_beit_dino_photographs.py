"""DINO pre-training of the mini BEiT on photographs, without their classes.

Command: python tools/pretrain.py configs/mini_beit_dino_photographs.py \
             --out weights/mini_beit_dino_photographs.pth
(prepare first: python tools/prepare_data.py photographs --raw FOLDER_OR_TAR). About two minutes on one CPU thread.
"""
_base_ = '_base_/mini_dino.py'
experiment = dict(data_root='data/prepared/photographs')
