"""CoTr on BCV as this project trains every method: its loss, optimizer, steps and augmentation.

Recipe: matched. The published one is configs/cotr_bcv.py. Crops are the published ones.
Paper: no row. What was published of it: docs/baselines.md.
Command: tools/dist_train.sh configs/cotr_matched_bcv.py 8
"""
_base_ = ['_base_/crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/bcv', crop=(48, 192, 192), source=None)
model = dict(network=dict(type='CoTr'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(scale_embed=dict(decay_mult=0.0))))
