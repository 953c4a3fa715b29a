"""Mini BEiT, centering inflation, 5 slices on the Decathlon's Task04 (real MRI).

Paper: Table 5, 86.83 with BEiT-B/16 (85 M parameters; this encoder has 0.5 M), without background.
Command: python tools/train.py configs/mini_beit_centering_hippocampus.py
(prepare first: python tools/prepare_data.py hippocampus --raw <folder of Task04_Hippocampus>)
"""
_base_ = 'beit_centering_phantom.py'
experiment = dict(data_root='data/prepared/hippocampus', steps=1000, warmup=50,
                  checkpoint_interval=200)
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadWindow'),
    dict(type='RandomZoomCrop', zoom=(0.8, 1.25), enlarge='area'),
    dict(type='RandomTranslate', pixels=4),
    dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
    dict(type='PackWindow')]))
# the focal term is a mean over classes too: 3 here, 14 on the phantom
model = dict(decode_head=dict(loss_decode=dict(focal_weight=6.0)))
