"""CoTr on BCV, trained as its authors' code trains it.

Recipe: published (Xie et al. 2021, arXiv:2103.03024, and their code at 521b4cc, github.com/YtongXie/CoTr, in which
nnU-Net 1 trains it; the paper itself was not at hand).

| what | value | where from |
| --- | --- | --- |
| source | none | code |
| crop | 48 x 192 x 192 | code, length of the sequence in ResTranUnet.py |
| network | InstanceNorm, leaky ReLU, no weight standardisation | code, run_training.py and the trainer |
| loss | cross-entropy + Dice, of the batch, without background | code, nnUNetTrainer.py |
| deep supervision | 4 scales, weights halve | code, the trainer |
| optimizer | SGD, rate 0.01, Nesterov momentum 0.99 | code, the trainer |
| weight decay, clipping | 3e-5 of all weights, 12 | code, the trainer |
| schedule | polynomial, power 0.9, no warm-up | code, the trainer |
| batch | 2 | nnU-Net's planner: its least, which crops of this size come to |
| steps | 250,000: 1000 epochs of 250 | code, network_trainer.py |
| foreground | a third of the crops is about a labelled voxel | code, nnUNetTrainer.py: 0.33 |
| prediction | overlap 0.5, Gaussian weights | code, the trainer |

What differs here: volumes keep their spacing, where nnU-Net resamples them to one; intensities are scaled as in
every row here, where it takes z-scores; of its augmentation there are zoom (0.7 to 1.4, in the plane), flips and
intensity shifts, not rotations by any angle, noise, blur, gamma and low resolution; prediction is of the volume as
it is, not averaged over its flips; the rate falls with every step, not every epoch. All 13 organs are learned,
where theirs are 11.

Paper: no row. What was published of it: docs/baselines.md.
Command: tools/dist_train.sh configs/cotr_bcv.py 2
"""
_base_ = ['_base_/crops.py', '_base_/runtime.py']
experiment = dict(data_root='data/prepared/bcv', crop=(48, 192, 192), source=None, batch=2, lr=0.01, power=0.9,
                  warmup=0, steps=250_000)
model = dict(
    network=dict(type='CoTr'),
    loss_decode=[dict(type='CrossEntropyLoss', avg_non_ignore=True),
                 dict(type='BatchDiceLoss', squared=False, background=False)])
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', clip_grad=dict(max_norm=12.0),
    optimizer=dict(type='SGD', momentum=0.99, nesterov=True, weight_decay=3e-5))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadCrop', foreground=0.33),
    dict(type='RandomZoomCrop', zoom=(0.7, 1.4)),
    dict(type='RandomWindowFlip', prob=0.5),
    dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
    dict(type='PackWindow')]))
