"""The paper's Table 6: AdamW, 20 warm-up steps, linear decay to 0, batch 16; how many steps is the dataset's.

Biases, position tables, norms and the class token are free of weight decay; matrices and layer scale are not
(docs/recipe.md). Nothing is selected on the evaluated cases: the last weights count.
"""
experiment = dict(batch=16, accumulate=1, lr=3e-5, warmup=20, seed=1234,
                  stride=1, target='center', split='train', protocol='sound', checkpoint_interval=1000)
optim_wrapper = dict(
    type='OptimWrapper', constructor='RatesBesideDecay',
    optimizer=dict(type='AdamW', lr=3e-5, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(
        q_bias=dict(decay_mult=0.0), v_bias=dict(decay_mult=0.0),  # BEiT's, which are no module's `bias`
        relative_position_bias_table=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0),
        pos_embed=dict(decay_mult=0.0))))
train_cfg = dict(type='StepLoop', max_iters=25000, val_interval=25000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
