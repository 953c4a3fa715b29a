"""SwinUNet as published, on BCV; at 384 pixels, which is the row of the tables.

Recipe: published (Cao et al. 2021, arXiv:2105.05537; their code, github.com/HuCaoFighting/Swin-Unet, at f48f623).
The paper was not at hand: what is said to be from it is from memory, and to be checked against it.

| what | value | where from |
| --- | --- | --- |
| source | Swin-T, ImageNet-1k; encoder stage k also initializes decoder stage 3 - k | code |
| input | 384 x 384, window 12 | paper, table on the input size: 81.12 (at 224 and window 7, the code's, 79.13) |
| intensity | clipped to -125..275 HU, scaled to 0..1 | TransUNet's data, which the code takes |
| augmentation | p 1/2 a turn by k x 90 degrees and a flip; else p 1/2 a rotation by up to 20 degrees | code |
| loss | 0.4 cross-entropy + 0.6 Dice (of the batch, squared denominators, with background) | code, trainer.py |
| optimizer | SGD, rate 0.05, momentum 0.9, weight decay 1e-4 of all, no clipping | paper; rate: train.sh |
| schedule | polynomial, power 0.9, no warm-up | code, trainer.py |
| batch | 24 | paper, implementation details; code, train.sh |
| steps | 13,950: 150 epochs of 93 | code, train.sh |
| drop path | 0.2 | code, configs/swin_tiny_patch4_window7_224_lite.yaml |

For 384 pixels the paper names no other settings. What differs here: all 13 organs are learned (theirs: 8); slices
shrink by area and not by cubic splines; logits are enlarged, not label maps; Swin-T's position tables are resized
to window 12, where the code leaves them random; figures are of the last weights, not of those with the least loss
on the training slices.

Paper: Table 2(a), DSC of 8 organs 81.12, a mean per case.
Command: tools/dist_train.sh configs/swinunet_bcv.py 8
At 224 pixels: the same with --cfg-options experiment.img_size=224
"""
_base_ = ['_base_/swinunet.py', '_base_/synapse_recipe.py']
experiment = dict(
    data_root='data/prepared/bcv', source='weights/swin_tiny_patch4_window7_224.pth', inflation='centering',
    slices=1, img_size=384, lr=0.05)
model = dict(
    data_preprocessor=dict(clip=(-125.0, 275.0), scaled=(0.0, 1.0)),
    decode_head=dict(loss_decode=[
        dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
        dict(type='BatchDiceLoss', loss_weight=0.6)]))
