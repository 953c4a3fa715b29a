"""TransUNet as published, on BCV; at 512 pixels, which is the row of the tables.

Recipe: published (Chen et al. 2021, arXiv:2102.04306, and their code at 02ef001, github.com/Beckschen/TransUNet).
The paper was not at hand: what is said to be from it is from memory, and to be checked against it.

| what | value | where from |
| --- | --- | --- |
| source | R50+ViT-B_16.npz, ImageNet-21k | paper, implementation details; code, vit_seg_configs.py |
| input | 512 x 512 | paper, table on the input resolution: 84.36 (at 224, the code's default, 77.48) |
| intensity | clipped to -125..275 HU, scaled to 0..1 | code, datasets/README.md |
| augmentation | p 1/2 a turn by k x 90 degrees and a flip; else p 1/2 a rotation by up to 20 degrees | code |
| loss | 0.5 cross-entropy + 0.5 Dice (of the batch, squared denominators, with background) | code, trainer.py |
| optimizer | SGD, rate 0.01, momentum 0.9, weight decay 1e-4 of all weights, no clipping | paper; code |
| schedule | polynomial, power 0.9, no warm-up | code, trainer.py |
| batch | 24 | paper, implementation details; code, train.py |
| steps | 13,950: 150 epochs of 93 | code, train.py; paper: 14,000 |
| dropout | 0.1 of tokens and in MLPs | code, vit_seg_configs.py |

What differs here: all 13 organs are learned (theirs: 8); slices shrink by area and not by cubic splines, and
logits are enlarged, not label maps (at 512 pixels neither). Figures are of the last weights, as theirs.

Paper: Table 2(a), DSC of 8 organs 84.36, a mean per case.
Command: tools/dist_train.sh configs/transunet_bcv.py 8
At 224 pixels: the same with --cfg-options experiment.img_size=224
"""
_base_ = ['_base_/transunet.py', '_base_/synapse_recipe.py']
experiment = dict(
    data_root='data/prepared/bcv', source='weights/R50+ViT-B_16.npz', inflation='centering', slices=1,
    img_size=512)
model = dict(
    data_preprocessor=dict(clip=(-125.0, 275.0), scaled=(0.0, 1.0)),
    decode_head=dict(loss_decode=[
        dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.5),
        dict(type='BatchDiceLoss', loss_weight=0.5)]))
