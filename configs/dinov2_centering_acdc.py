"""DINOv2 ViT-S/14, centering inflation, 5 slices on ACDC (cine MRI of the heart).

Paper: Table 5, 92.69 with BEiT-B/16 (85 M parameters; this encoder has 22 M).
Command: python tools/train.py configs/dinov2_centering_acdc.py
(prepare first: python tools/prepare_data.py acdc --raw <folder of ACDC>)
"""
_base_ = '_base_/vit_small.py'
experiment = dict(data_root='data/prepared/acdc', img_size=168)
model = dict(decode_head=dict(loss_decode=dict(focal_weight=8.0)))  # a mean over 4 classes too
