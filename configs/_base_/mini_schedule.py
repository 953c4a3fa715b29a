"""A few hundred steps on one CPU thread: higher rates, the decoder's ten times the encoder's."""
_base_ = 'schedule.py'
experiment = dict(lr=6e-4, steps=150, warmup=15, img_size=64, checkpoint_interval=50)
optim_wrapper = dict(
    optimizer=dict(betas=(0.9, 0.99)),
    paramwise_cfg=dict(custom_keys=dict(neck=dict(lr_mult=10.0), decode_head=dict(lr_mult=10.0))))
