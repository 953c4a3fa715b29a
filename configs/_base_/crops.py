"""Random crops with the augmentation of windows, and whole volumes in evaluation, for networks that take volumes.

Loss, optimizer, steps, batch and augmentation are those of windows (_base_/beit.py, schedule.py, windows.py): this
is the `matched` recipe of the baselines.
"""
_base_ = ['windows.py', 'schedule.py']
experiment = dict(stride=None, target=None)  # of windows
model = dict(
    type='VolumeSegmentor',
    data_preprocessor=dict(type='WindowPreProcessor'),
    loss_decode=dict(type='DiceFocalLoss', focal='sigmoid'), overlap=0.5)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(position_embeddings=dict(decay_mult=0.0))))
train_dataloader = dict(dataset=dict(type='CropDataset', pipeline=[
    dict(type='LoadCrop', foreground=0.5), *_base_.train_dataloader.dataset.pipeline[1:]]))
val_dataloader = dict(dataset=dict(type='CropDataset', pipeline=[
    dict(type='LoadVolume'), dict(type='PackWindow')]))
test_dataloader = val_dataloader
