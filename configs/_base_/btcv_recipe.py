"""How UNETR and Swin UNETR were trained on BTCV, which is BCV, by their authors' code.

| what | value | where from |
| --- | --- | --- |
| voxels | 1.5 x 1.5 x 2.0 mm, crops of 96 x 96 x 96 | main.py: space_x, space_y, space_z, roi_x, roi_y, roi_z |
| intensities | -175 to 250 HU become 0 to 1 | main.py: a_min, a_max, b_min, b_max |
| optimizer | AdamW, rate 1e-4, weight decay 1e-5, no clipping | main.py: optim_lr, reg_weight; trainer.py |
| schedule | 50 epochs of warm-up, half a cosine until epoch 5000 | main.py: warmup_epochs, max_epochs |
| steps | 90,000: 5000 epochs of the 18 training cases | main.py: batch_size 1 |
| batch | 4 crops, half of them around a labelled voxel | data_utils.py: RandCropByPosNegLabeld |
| augmentation | flips 0.2, turns by 90 degrees 0.2, shift by 0.1 0.1 | main.py: Rand...d_prob |
| inference | overlap 0.5 | main.py: infer_overlap |

The code is github.com/Project-MONAI/research-contributions, UNETR/BTCV and SwinUNETR/BTCV, commit 21ed8e5.
What differs: its four crops of a step are of one volume, these of four; it crops volumes to what is brighter than
-175 HU, draws the other half of the crops around background voxels, and scales intensities by up to 0.1 in a tenth
of the crops; it trains in half precision (here: experiment.precision=fp16), and weighs overlapping crops alike.
"""
_base_ = ['crops.py', 'runtime.py']
experiment = dict(crop=(96, 96, 96), spacing=(2.0, 1.5, 1.5), batch=4, lr=1e-4, steps=90_000, warmup=900,
                  power='cosine')
model = dict(crops=4, overlap=0.5, data_preprocessor=dict(scaled=(0.0, 1.0)),
             loss_decode=dict(_delete_=True, type='MonaiLoss', name='DiceCELoss'))
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', weight_decay=1e-5))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadCrop', foreground=0.5),
    dict(type='RandomWindowFlip', prob=0.2),
    dict(type='RandomRotate90', prob=0.2),
    dict(type='RandomIntensityShift', offset=0.1, prob=0.1),
    dict(type='PackWindow')]))
