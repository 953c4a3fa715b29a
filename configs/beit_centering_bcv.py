"""BEiT-B/16, centering inflation, 5 slices on BCV: the paper's best practice ("Ours").

Paper: Table 2(a), DSC of 8 organs 87.13 (seeds: 87.13, 86.52, 86.29); about 8 hours on 8 Titan RTX.
Command: tools/dist_train.sh configs/beit_centering_bcv.py 8
"""
_base_ = ['_base_/beit.py', '_base_/windows.py', '_base_/schedule.py', '_base_/runtime.py']
experiment = dict(
    data_root='data/prepared/bcv',
    source='weights/beit_base_patch16_224_pt22k_ft22k.pth', inflation='centering', slices=5)
