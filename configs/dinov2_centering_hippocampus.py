"""DINOv2 ViT-S/14, centering inflation, 5 slices on the Decathlon's Task04 (real MRI).

Paper: Table 5, 86.83 with BEiT-B/16 (85 M parameters; this encoder has 22 M), without background.
Command: python tools/train.py configs/dinov2_centering_hippocampus.py
(prepare first: python tools/prepare_data.py hippocampus --raw <folder of Task04_Hippocampus>)
"""
_base_ = '_base_/vit_small.py'
experiment = dict(data_root='data/prepared/hippocampus', img_size=112)
model = dict(decode_head=dict(loss_decode=dict(focal_weight=6.0)))  # a mean over 3 classes too
