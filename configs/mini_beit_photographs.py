"""Pre-training of the mini BEiT on photographs in class folders: supervised classification.

Command: python tools/pretrain.py configs/mini_beit_photographs.py --out weights/mini_beit_photographs.pth
(prepare first: python tools/prepare_data.py photographs --raw FOLDER_OR_TAR). About two minutes on one CPU thread.
"""
_base_ = ['_base_/mini_beit.py', '_base_/mini_windows.py', '_base_/mini_schedule.py',
          '_base_/runtime.py']
experiment = dict(data_root='data/prepared/photographs', source=None, inflation='random', slices=1,
                  batch=32, lr=2e-3, steps=400, warmup=40, seed=20263, checkpoint_interval=100)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(neck=dict(lr_mult=1.0), decode_head=dict(lr_mult=1.0))))
model = dict(neck=None, decode_head=dict(_delete_=True, type='PooledHead', in_channels=96, num_classes=2))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadWindow'),
    dict(type='RandomZoomCrop', zoom=(1.0, 1.5), enlarge='area'),
    dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
    dict(type='PackWindow')]))
val_evaluator = dict(type='ImageAccuracy')
test_evaluator = dict(type='ImageAccuracy')
