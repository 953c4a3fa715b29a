"""MedNeXt-L on BCV with the loss, optimizer, steps and augmentation of this project's other rows.

Paper: its own recipe is configs/mednext_bcv.py.
Command: tools/dist_train.sh configs/mednext_matched_bcv.py 8
"""
_base_ = ['_base_/crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/bcv', source=None, crop=(128, 128, 128), spacing=(1.0, 1.0, 1.0))
model = dict(network=dict(type='MedNeXt', variant='L'), crops=4)
