"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task07 (pancreas and tumours, CT).

Paper: Table 5, DSC 59.94.
Command: tools/dist_train.sh configs/beit_centering_pancreas.py 8
(prepare first: python tools/prepare_data.py pancreas)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/pancreas')
