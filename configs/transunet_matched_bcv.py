"""TransUNet on BCV with this project's recipe: its loss, optimizer, steps, augmentation and input size.

Recipe: matched (docs/recipe.md); `transunet_bcv.py` is as published.

Paper: none; Table 2(a) has the published 84.36, a mean per case.
Command: tools/dist_train.sh configs/transunet_matched_bcv.py 8
"""
_base_ = ['_base_/transunet.py', '_base_/windows.py', '_base_/schedule.py', '_base_/runtime.py']
experiment = dict(
    data_root='data/prepared/bcv', source='weights/R50+ViT-B_16.npz', inflation='centering', slices=1)
