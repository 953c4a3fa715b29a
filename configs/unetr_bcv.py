"""UNETR on BCV: the published recipe, which Swin UNETR shares (_base_/btcv_recipe.py).

Recipe: published. Paper: Table 2(a), 80.07 (DSC of 8 organs, pooled). What its authors report is of other splits
(docs/baselines.md).
Command: tools/dist_train.sh configs/unetr_bcv.py 4

| what | value | where from |
| --- | --- | --- |
| network | feature size 16, ViT-B with linear patch embedding | README.md of the code |
| loss | Dice (squared) + cross-entropy, of the softmax, background included | main.py: DiceCELoss |
"""
_base_ = '_base_/btcv_recipe.py'
experiment = dict(data_root='data/prepared/bcv', source=None)
model = dict(network=dict(type='UNETR'), loss_decode=dict(squared_pred=True, smooth_nr=0.0, smooth_dr=1e-6))
