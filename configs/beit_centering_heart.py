"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task02 (left atrium, MRI).

Paper: Table 5, DSC 90.78.
Command: tools/dist_train.sh configs/beit_centering_heart.py 8
(prepare first: python tools/prepare_data.py heart)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/heart')
