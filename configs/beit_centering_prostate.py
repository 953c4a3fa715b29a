"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task05 (prostate zones, MRI of two sequences).

Paper: Table 5, DSC 75.20.
Command: tools/dist_train.sh configs/beit_centering_prostate.py 8
(prepare first: python tools/prepare_data.py prostate)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/prostate')
