"""BEiT-B/16, average inflation, 5 slices at stride 2 on BCV.

Paper: Table 4(b), DSC of 14 labels 76.33 (centering 84.30).
Command: tools/dist_train.sh configs/beit_average_bcv.py 8
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(inflation='average', stride=2)
