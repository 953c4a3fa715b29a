"""Mini Swin UNETR on the embedded phantom: about a minute on one CPU thread.

Command: python tools/train.py configs/swinunetr_phantom.py
(prepare first: python tools/prepare_data.py phantom)
"""
_base_ = ['_base_/mini_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/phantom', crop=(32, 32, 64), batch=1)
model = dict(network=dict(type='SwinUNETR', feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8),
                          window_size=4))
