"""Swin-B, centering inflation, 5 slices on BCV.

Paper: Table 2(b), DSC of 8 organs 85.57.
Command: tools/dist_train.sh configs/swin_centering_bcv.py 8
"""
_base_ = ['_base_/swin.py', '_base_/windows.py', '_base_/schedule.py', '_base_/runtime.py']
experiment = dict(
    data_root='data/prepared/bcv',
    source='weights/swin_base_patch4_window7_224_22k.pth', inflation='centering', slices=5)
