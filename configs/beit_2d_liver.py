"""BEiT-B/16 on single slices of the Decathlon's Task03 (liver and tumours, CT): w/o depth.

Paper: Table 5, DSC 87.24.
Command: tools/dist_train.sh configs/beit_2d_liver.py 8
(prepare first: python tools/prepare_data.py liver)
"""
_base_ = 'beit_centering_liver.py'
experiment = dict(slices=1)
