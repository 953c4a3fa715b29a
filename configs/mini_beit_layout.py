"""Pre-training of the mini BEiT on the embedded 2D source task (procedural RGB images, 9 slots).

Command: python tools/pretrain.py configs/mini_beit_layout.py --out weights/mini_beit_layout.pth
Half a minute on one CPU thread.
"""
_base_ = ['_base_/mini_beit.py', '_base_/mini_windows.py', '_base_/mini_schedule.py',
          '_base_/runtime.py']
experiment = dict(data_root='data/prepared/layout', source=None, inflation='random', slices=1,
                  lr=3e-3, steps=400, warmup=20, seed=20263, checkpoint_interval=200)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(neck=dict(lr_mult=1.0), decode_head=dict(lr_mult=1.0))))
model = dict(decode_head=dict(loss_decode=dict(focal_weight=20.0)))
