"""DINO's ViT-B/16 on CT slices, for a CT-DINO of one's own (the paper's, on RSNA-CT, was never released).

DINO's recipe: 2 global views of 224 and 10 local ones of 96 pixels, head of 65,536 prototypes, AdamW at 5e-4 per
256 images with linear warm-up. `data_root` may be any prepared CT dataset; one slice is one image.

Paper: Table 2(b), DSC of 8 organs 82.56.
Command: torchrun --standalone --nproc_per_node 8 tools/pretrain.py configs/dino_vitbase16_ct.py \
             --out weights/ct_dino_vitbase16.pth --launcher pytorch --amp
"""
_base_ = ['_base_/windows.py', '_base_/schedule.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/bcv', source=None, inflation='random', slices=1, img_size=224,
                  batch=512, lr=1e-3, steps=100000, warmup=10000, checkpoint_interval=1000)
model = dict(
    type='DinoPretrainer', data_preprocessor=dict(type='WindowPreProcessor'),
    backbone=dict(type='InflatedViT', model='vit_base_patch16_224', drop_path_rate=0.1,
                  sizes=dict(dynamic_img_size=True)),
    head=dict(hidden=2048, bottleneck=256, prototypes=65536),
    crops=dict(local_crops=10, local_size=96, contrast=0.4, brightness=0.4))
optim_wrapper = dict(clip_grad=dict(max_norm=3.0))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadWindow'),
    dict(type='RandomZoomCrop', zoom=(1.0, 1.0), enlarge='area'),  # brings slices of any size to the network's
    dict(type='PackWindow')]))
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
