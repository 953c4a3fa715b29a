"""BEiT-B/16 on single slices of BCV: transfer without depth ("Ours w/o D").

Paper: Table 2(a), DSC of 8 organs 85.18 (seeds: 85.18, 84.88, 85.36).
Command: tools/dist_train.sh configs/beit_2d_bcv.py 8
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(slices=1)
