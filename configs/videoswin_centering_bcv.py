"""Video Swin-B pre-trained on videos, 5 slices on BCV; a 2D Swin's weights are inflated instead.

Paper: Table 2(b), DSC of 8 organs 85.94; section 4.4, DSC of 14 labels 81.83 (9 slices: 81.10).
Command: tools/dist_train.sh configs/videoswin_centering_bcv.py 8
"""
_base_ = ['_base_/videoswin.py', '_base_/windows.py', '_base_/schedule.py', '_base_/runtime.py']
experiment = dict(
    data_root='data/prepared/bcv',
    source='weights/swin_base_patch244_window877_kinetics600_22k.pth', inflation='centering', slices=5)
