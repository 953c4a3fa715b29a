"""How TransUNet and, after it, SwinUNet were trained on Synapse, which is BCV; their configs tell each number."""
_base_ = ['windows.py', 'schedule.py', 'runtime.py']
experiment = dict(batch=24, lr=0.01, power=0.9, warmup=0, steps=13_950)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', momentum=0.9, weight_decay=1e-4))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadWindow'),
    dict(type='RandomWindowRotFlip', flip_prob=0.5, rotate_prob=0.5, degree=20),
    dict(type='RandomZoomCrop', zoom=(1.0, 1.0)),  # brings slices to the network's size
    dict(type='PackWindow')]))
val_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadWindow'), dict(type='ResizeWindow'), dict(type='PackWindow')]))
test_dataloader = val_dataloader
