"""Swin UNETR on BCV, self-supervised on CT before: the published recipe, UNETR's (_base_/btcv_recipe.py).

Recipe: published. Paper: not in it. Its authors' README has 81.86 (mean DSC of 6 cases and 13 organs).
Command: tools/dist_train.sh configs/swinunetr_bcv.py 4

| what | value | where from |
| --- | --- | --- |
| network | feature size 48, patch merging of MONAI until 1.4 | README.md of the code; its MONAI |
| loss | Dice + cross-entropy, of the softmax, background included | main.py: DiceCELoss |
"""
_base_ = '_base_/btcv_recipe.py'
experiment = dict(data_root='data/prepared/bcv', source='weights/model_swinvit.pt')
model = dict(network=dict(type='SwinUNETR'))
