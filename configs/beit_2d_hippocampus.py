"""BEiT-B/16 on single slices of the Decathlon's Task04 (hippocampus, MRI): w/o depth.

Paper: Table 5, DSC 86.24.
Command: tools/dist_train.sh configs/beit_2d_hippocampus.py 8
(prepare first: python tools/prepare_data.py hippocampus)
"""
_base_ = 'beit_centering_hippocampus.py'
experiment = dict(slices=1)
