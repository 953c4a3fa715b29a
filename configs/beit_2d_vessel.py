"""BEiT-B/16 on single slices of the Decathlon's Task08 (hepatic vessels and tumours, CT): w/o depth.

Paper: Table 5, DSC 67.95.
Command: tools/dist_train.sh configs/beit_2d_vessel.py 8
(prepare first: python tools/prepare_data.py vessel)
"""
_base_ = 'beit_centering_vessel.py'
experiment = dict(slices=1)
