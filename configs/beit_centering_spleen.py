"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task09 (spleen, CT).

Paper: Table 5, DSC 95.56.
Command: tools/dist_train.sh configs/beit_centering_spleen.py 8
(prepare first: python tools/prepare_data.py spleen)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/spleen')
