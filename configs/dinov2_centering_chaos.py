"""DINOv2 ViT-S/14, centering inflation, 5 slices on CHAOS (abdominal T2-SPIR MRI).

The paper did not use this dataset.
Command: python tools/train.py configs/dinov2_centering_chaos.py
(prepare first: python tools/prepare_data.py chaos --raw <folder of CHAOS_T2SPIR>)
"""
_base_ = '_base_/vit_small.py'
experiment = dict(data_root='data/prepared/chaos', img_size=224, steps=240)
model = dict(decode_head=dict(loss_decode=dict(focal_weight=10.0)))  # a mean over 5 classes too
