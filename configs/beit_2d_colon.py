"""BEiT-B/16 on single slices of the Decathlon's Task10 (colon cancer, CT): w/o depth.

Paper: Table 5, DSC 46.28.
Command: tools/dist_train.sh configs/beit_2d_colon.py 8
(prepare first: python tools/prepare_data.py colon)
"""
_base_ = 'beit_centering_colon.py'
experiment = dict(slices=1)
