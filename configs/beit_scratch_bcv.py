"""BEiT-B/16 from random weights, 5 slices on BCV: depth without transfer ("Ours w/o T").

Paper: Table 2(a), DSC of 8 organs 74.70.
Command: tools/dist_train.sh configs/beit_scratch_bcv.py 8
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(source=None, inflation='random')
