"""UNETR on BCV with the loss, optimizer, steps and augmentation of this project's other rows.

Paper: its own recipe is configs/unetr_bcv.py.
Command: tools/dist_train.sh configs/unetr_matched_bcv.py 8
"""
_base_ = ['_base_/crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/bcv', source=None, crop=(96, 96, 96), spacing=(2.0, 1.5, 1.5))
model = dict(network=dict(type='UNETR'), crops=4)
