"""BEiT-B/16, centering inflation, 5 slices on the Decathlon's Task08 (hepatic vessels and tumours, CT).

Paper: Table 5, DSC 70.42.
Command: tools/dist_train.sh configs/beit_centering_vessel.py 8
(prepare first: python tools/prepare_data.py vessel)
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(data_root='data/prepared/vessel')
