"""Mini CoTr on the embedded phantom: about a minute on one CPU thread.

Command: python tools/train.py configs/cotr_phantom.py
(prepare first: python tools/prepare_data.py phantom)
"""
_base_ = ['_base_/mini_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/phantom')
model = dict(network=dict(type='CoTr', widths=(8, 24, 48), blocks=(1, 1, 1), layers=2, heads=3))
