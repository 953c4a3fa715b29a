"""SwinUNet on BCV with this project's recipe: its loss, optimizer, steps, augmentation and input size.

Recipe: matched (docs/recipe.md); `swinunet_bcv.py` is as published. At 512 pixels windows are 16 x 16.

Paper: none; Table 2(a) has the published 81.12, a mean per case.
Command: tools/dist_train.sh configs/swinunet_matched_bcv.py 8
"""
_base_ = ['_base_/swinunet.py', '_base_/windows.py', '_base_/schedule.py', '_base_/runtime.py']
experiment = dict(
    data_root='data/prepared/bcv', source='weights/swin_tiny_patch4_window7_224.pth', inflation='centering',
    slices=1)
