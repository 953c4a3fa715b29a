"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task10 (colon cancer, CT).

Paper: Table 5, DSC 51.70.
Command: tools/dist_train.sh configs/beit_centering_colon.py 8
(prepare first: python tools/prepare_data.py colon)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/colon')
