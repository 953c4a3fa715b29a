"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task06 (lung tumours, CT).

Paper: Table 5, DSC 70.20.
Command: tools/dist_train.sh configs/beit_centering_lung.py 8
(prepare first: python tools/prepare_data.py lung)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/lung')
