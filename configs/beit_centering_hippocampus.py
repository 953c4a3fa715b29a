"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task04 (hippocampus, MRI).

Paper: Table 5, DSC 86.83.
Command: tools/dist_train.sh configs/beit_centering_hippocampus.py 8
(prepare first: python tools/prepare_data.py hippocampus)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/hippocampus')
