"""Random crops with the augmentation of windows, and whole volumes in evaluation, for networks that take volumes.

Loss, optimizer, steps, batch and augmentation are those of windows (_base_/beit.py, schedule.py, windows.py): this
is the `matched` recipe of the baselines.
"""
_base_ = 'schedule.py'
experiment = dict(stride=None, target=None)  # of windows
model = dict(
    type='VolumeSegmentor',
    data_preprocessor=dict(type='WindowPreProcessor'),
    loss_decode=dict(type='DiceFocalLoss', focal='sigmoid'), overlap=0.5)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(position_embeddings=dict(decay_mult=0.0))))
train_dataloader = dict(
    batch_size=16, num_workers=4,
    sampler=dict(type='WindowSampler'), worker_init_fn=dict(type='start_loader_worker'),
    dataset=dict(type='CropDataset', pipeline=[
        dict(type='LoadCrop', foreground=0.5),
        dict(type='RandomZoomCrop', zoom=(0.5, 2.0), enlarge='area'),
        dict(type='RandomWindowFlip', prob=0.1),
        dict(type='RandomRotate90', prob=0.1),
        dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
        dict(type='PackWindow')]))
val_dataloader = dict(
    batch_size=1, num_workers=4,
    sampler=dict(type='CaseSampler'), worker_init_fn=dict(type='start_loader_worker'),
    dataset=dict(type='CropDataset', pipeline=[dict(type='LoadVolume'), dict(type='PackWindow')]))
test_dataloader = val_dataloader
val_evaluator = dict(type='CaseMetric')
test_evaluator = val_evaluator
