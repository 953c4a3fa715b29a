"""BEiT-B/16 on single slices of the Decathlon's Task07 (pancreas and tumours, CT): w/o depth.

Paper: Table 5, DSC 58.60.
Command: tools/dist_train.sh configs/beit_2d_pancreas.py 8
(prepare first: python tools/prepare_data.py pancreas)
"""
_base_ = 'beit_centering_pancreas.py'
experiment = dict(slices=1)
