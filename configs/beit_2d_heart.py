"""BEiT-B/16 on single slices of the Decathlon's Task02 (left atrium, MRI): w/o depth.

Paper: Table 5, DSC 91.22.
Command: tools/dist_train.sh configs/beit_2d_heart.py 8
(prepare first: python tools/prepare_data.py heart)
"""
_base_ = 'beit_centering_heart.py'
experiment = dict(slices=1)
