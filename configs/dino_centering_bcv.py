"""DINO's ViT-B/16, centering inflation, 5 slices on BCV.

Paper: Table 2(b), DSC of 8 organs 84.60.
Command: tools/dist_train.sh configs/dino_centering_bcv.py 8
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(source='weights/dino_vitbase16_pretrain.pth')
model = dict(backbone=dict(model='vit_base_patch16_224'))
