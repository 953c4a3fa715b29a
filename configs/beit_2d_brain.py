"""BEiT-B/16 on single slices of the Decathlon's Task01 (brain tumours, MRI of four sequences): w/o depth.

Paper: Table 5, DSC 79.30.
Command: tools/dist_train.sh configs/beit_2d_brain.py 8
(prepare first: python tools/prepare_data.py brain)
"""
_base_ = 'beit_centering_brain.py'
experiment = dict(slices=1)
