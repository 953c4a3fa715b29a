"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task03 (liver and tumours, CT).

Paper: Table 5, DSC 87.67.
Command: tools/dist_train.sh configs/beit_centering_liver.py 8
(prepare first: python tools/prepare_data.py liver)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/liver')
