"""Loading, augmentation (Table 6) and evaluation of windows; size and split come from `experiment`.

Why slices are enlarged by area and intensities shifted by up to 0.2 of -1 to 1: docs/recipe.md.
"""
train_dataloader = dict(
    batch_size=16, num_workers=4,
    sampler=dict(type='WindowSampler'), worker_init_fn=dict(type='start_loader_worker'),
    dataset=dict(type='WindowDataset', pipeline=[
        dict(type='LoadWindow'),
        dict(type='RandomZoomCrop', zoom=(0.5, 2.0), enlarge='area'),
        dict(type='RandomWindowFlip', prob=0.1),
        dict(type='RandomRotate90', prob=0.1),
        dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
        dict(type='PackWindow')]))
val_dataloader = dict(
    batch_size=1, num_workers=4,
    sampler=dict(type='CaseSampler'), worker_init_fn=dict(type='start_loader_worker'),
    dataset=dict(type='WindowDataset', pipeline=[
        dict(type='LoadWindow'), dict(type='ResizeWindow', enlarge='area'), dict(type='PackWindow')]))
test_dataloader = val_dataloader
val_evaluator = dict(type='CaseMetric')
test_evaluator = val_evaluator
