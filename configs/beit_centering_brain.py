"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task01 (brain tumours, MRI of four sequences).

Paper: Table 5, DSC 80.13.
Command: tools/dist_train.sh configs/beit_centering_brain.py 8
(prepare first: python tools/prepare_data.py brain)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/brain')
