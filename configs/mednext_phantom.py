"""Mini MedNeXt on the embedded phantom: about a minute on one CPU thread.

Command: python tools/train.py configs/mednext_phantom.py
(prepare first: python tools/prepare_data.py phantom)
"""
_base_ = ['_base_/mini_crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/phantom')
model = dict(network=dict(type='MedNeXt', variant=None, init_filters=8, blocks_down=(1, 1, 1, 1),
                          blocks_bottleneck=1, blocks_up=(1, 1, 1, 1)))
