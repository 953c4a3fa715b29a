"""Both objectives: supervised pre-training on the procedural RGB images, from the encoder that DINO made of them.

Command: python tools/pretrain.py configs/mini_beit_dino_layout_supervised.py \
             --out weights/mini_beit_dino_layout_supervised.pth
(make its source first: configs/mini_beit_dino_layout.py). It costs what configs/mini_beit_layout.py does.
"""
_base_ = 'mini_beit_layout.py'
experiment = dict(source='weights/mini_beit_dino_layout.pth', inflation='none')
