"""DINO at mini scale: the mini BEiT, a small head, faster schedules; no labels, so nothing to evaluate."""
_base_ = ['mini_beit.py', 'mini_windows.py', 'mini_schedule.py', 'runtime.py']
experiment = dict(source=None, inflation='random', slices=1, lr=2e-3, steps=300, warmup=30,
                  seed=20263, checkpoint_interval=100)
model = dict(
    _delete_=True, type='DinoPretrainer', data_preprocessor=dict(type='WindowPreProcessor'),
    backbone=_base_.model.backbone,
    head=dict(hidden=256, bottleneck=64, prototypes=256),
    crops=dict(local_crops=2, local_scale=(0.1, 0.4), flip=(0.5, 0.0), contrast=0.2, brightness=0.1,
               noise=0.05),
    # Hundreds of steps of 16 images instead of DINO's 100 epochs of 1024: the teacher follows sooner and is
    # sharper, and the centre keeps up with it; with the defaults all outputs become alike within 50 steps.
    teacher_temperature=(0.02, 0.02), momentum=0.99, centre_momentum=0.5)
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadWindow'),
    dict(type='RandomZoomCrop', zoom=(1.0, 1.0), enlarge='area'),  # brings slices of any size to the network's
    dict(type='PackWindow')]))
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
