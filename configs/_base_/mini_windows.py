"""Windows for the miniature: in the process itself, and only augmentation that 150 steps can use."""
_base_ = 'windows.py'
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=[
    dict(type='LoadWindow'),
    dict(type='RandomZoomCrop', zoom=(1.0, 1.0), enlarge='area'),  # brings slices of any size to the network's
    dict(type='RandomTranslate', pixels=4),
    dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
    dict(type='PackWindow')]))
val_dataloader = dict(num_workers=0, batch_size=16)
test_dataloader = dict(num_workers=0, batch_size=16)
