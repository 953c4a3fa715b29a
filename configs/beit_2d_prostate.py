"""BEiT-B/16 on single slices of the Decathlon's Task05 (prostate zones, MRI of two sequences): w/o depth.

Paper: Table 5, DSC 74.29.
Command: tools/dist_train.sh configs/beit_2d_prostate.py 8
(prepare first: python tools/prepare_data.py prostate)
"""
_base_ = 'beit_centering_prostate.py'
experiment = dict(slices=1)
