"""BEiT-B/16 on single slices of the Decathlon's Task06 (lung tumours, CT): w/o depth.

Paper: Table 5, DSC 62.01.
Command: tools/dist_train.sh configs/beit_2d_lung.py 8
(prepare first: python tools/prepare_data.py lung)
"""
_base_ = 'beit_centering_lung.py'
experiment = dict(slices=1)
