"""DINO pre-training of the mini BEiT on the phantom's training slices (one channel), as the paper's CT-DINO.

Command: python tools/pretrain.py configs/mini_beit_dino_phantom.py --out weights/mini_beit_dino_phantom.pth
(prepare first: python tools/prepare_data.py phantom). About a minute on one CPU thread.
"""
_base_ = '_base_/mini_dino.py'
experiment = dict(data_root='data/prepared/phantom')
