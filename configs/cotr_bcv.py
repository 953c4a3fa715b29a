"""CoTr on BCV, trained as its authors' code trains it: by nnU-Net's first trainer (_base_/nnunet_recipe.py).

Recipe: published (Xie et al. 2021, arXiv:2103.03024, and their code at 521b4cc, github.com/YtongXie/CoTr; the
paper itself was not at hand).

| what | value | where from |
| --- | --- | --- |
| crop | 48 x 192 x 192 | code, length of the sequence in ResTranUnet.py |
| network | InstanceNorm, leaky ReLU, no weight standardisation | code, run_training.py and the trainer |
| deep supervision | 4 scales, weights halve | code, the trainer |
| prediction | overlap 0.5, Gaussian weights | code, the trainer |

What differs here, beside what that file says: volumes keep their spacing, where nnU-Net resamples them to one;
intensities are shifted too. All 13 organs are learned, where theirs are 11.

Paper: no row. What was published of it: docs/baselines.md.
Command: tools/dist_train.sh configs/cotr_bcv.py 2
"""
_base_ = '_base_/nnunet_recipe.py'
experiment = dict(data_root='data/prepared/bcv', crop=(48, 192, 192))
model = dict(network=dict(type='CoTr'))
train_dataloader = dict(dataset=dict(pipeline=[
    *_base_.train_dataloader.dataset.pipeline[:-1],
    dict(type='RandomIntensityShift', offset=0.2, prob=0.5),
    dict(type='PackWindow')]))
