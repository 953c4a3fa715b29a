"""Crops for miniatures: a few hundred steps on one CPU thread, with the loss and augmentation of mini windows."""
_base_ = 'crops.py'
experiment = dict(crop=(16, 64, 64), source=None, batch=2, lr=2e-3, steps=150, warmup=15, checkpoint_interval=50)
model = dict(loss_decode=dict(_delete_=True, type='DiceFocalLoss', gamma=1.0, class_weight='inverse_sqrt',
                              present_only=True, focal_weight=28.0))
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.99)))
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=[
    dict(type='LoadCrop', foreground=0.5),
    dict(type='RandomTranslate', pixels=4),
    dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
    dict(type='PackWindow')]))
val_dataloader = dict(num_workers=0)
test_dataloader = dict(num_workers=0)
