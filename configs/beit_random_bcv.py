"""BEiT-B/16 loaded, its patch embedding left at random, 5 slices at stride 2 on BCV.

Paper: Table 4(b), DSC of 14 labels 72.49 (centering 84.30).
Command: tools/dist_train.sh configs/beit_random_bcv.py 8
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(inflation='random', stride=2)
