"""BEiT-B/16, centering inflation, 5 slices on ACDC (cine MRI of the heart).

Paper: Table 5, DSC 92.69.
Command: tools/dist_train.sh configs/beit_centering_acdc.py 8
(prepare first: python tools/prepare_data.py acdc)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/acdc')
