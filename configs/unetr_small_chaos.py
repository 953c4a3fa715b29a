"""UNETR of 6 million parameters on CHAOS (abdominal T2-SPIR MRI).

The matched recipe: loss, optimizer, steps and augmentation of configs/dinov2_centering_chaos.py.
Command: python tools/train.py configs/unetr_small_chaos.py
(prepare first: python tools/prepare_data.py chaos --raw <folder of CHAOS_T2SPIR>)
"""
_base_ = ['_base_/small_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/chaos', crop=(16, 128, 128))
model = dict(network=dict(type='UNETR', feature_size=4, hidden_size=192, mlp_dim=768, num_heads=3))
