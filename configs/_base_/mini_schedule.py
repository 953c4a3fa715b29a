"""A few hundred steps on one CPU thread: higher rates, the decoder's ten times the encoder's."""
_base_ = 'schedule.py'
experiment = dict(lr=6e-4, steps=150, warmup=15, img_size=64, checkpoint_interval=50)
optim_wrapper = dict(
    optimizer=dict(betas=(0.9, 0.99)),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(
        relative_position_bias_table=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0),
        pos_embed=dict(decay_mult=0.0), neck=dict(lr_mult=10.0), decode_head=dict(lr_mult=10.0))))
