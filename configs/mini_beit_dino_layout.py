"""DINO pre-training of the mini BEiT on the embedded procedural RGB images, without their labels.

Command: python tools/pretrain.py configs/mini_beit_dino_layout.py --out weights/mini_beit_dino_layout.pth
(prepare first: python tools/prepare_data.py layout). About a minute on one CPU thread.
"""
_base_ = '_base_/mini_dino.py'
experiment = dict(data_root='data/prepared/layout')
