"""BEiT-B/16 on single slices of ACDC (cine MRI of the heart): w/o depth.

Paper: Table 5, DSC 92.62.
Command: tools/dist_train.sh configs/beit_2d_acdc.py 8
(prepare first: python tools/prepare_data.py acdc)
"""
_base_ = 'beit_centering_acdc.py'
experiment = dict(slices=1)
