"""A complete ViT-S of timm's with the miniature's light decoder, at batches that two CPU cores can train.

With 3x3 convolutions the decoder would be most of the work and learn the task by itself (mini_beit.py). Why a
layer scale of 1 without a source: docs/recipe.md; DINOv2's own 1e-5 would keep random blocks out of the features
for longer than these trainings last.
"""
_base_ = ['mini_beit.py', 'mini_windows.py', 'mini_schedule.py', 'runtime.py']
experiment = dict(encoder='vit_small_patch14_dinov2.lvd142m', source='weights/dinov2_vits14.safetensors',
                  inflation='centering', slices=5, batch=4, lr=3e-4, steps=160, warmup=20,
                  checkpoint_interval=100)
model = dict(backbone=dict(layer_scale=1.0), decode_head=dict(channels=128))
optim_wrapper = dict(optimizer=dict(fused=True))  # on a CPU, twice as fast as torch's usual loop
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadWindow'),
    dict(type='RandomZoomCrop', zoom=(0.8, 1.25), enlarge='area'),
    dict(type='RandomTranslate', pixels=8),
    dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
    dict(type='PackWindow')]))
