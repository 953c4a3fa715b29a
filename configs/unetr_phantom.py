"""Mini UNETR on the embedded phantom: about a minute on one CPU thread.

Command: python tools/train.py configs/unetr_phantom.py
(prepare first: python tools/prepare_data.py phantom)
"""
_base_ = ['_base_/mini_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/phantom')
model = dict(network=dict(type='UNETR', feature_size=4, hidden_size=96, mlp_dim=192, num_heads=3))
