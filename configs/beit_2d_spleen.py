"""BEiT-B/16 on single slices of the Decathlon's Task09 (spleen, CT): w/o depth.

Paper: Table 5, DSC 95.12.
Command: tools/dist_train.sh configs/beit_2d_spleen.py 8
(prepare first: python tools/prepare_data.py spleen)
"""
_base_ = 'beit_centering_spleen.py'
experiment = dict(slices=1)
