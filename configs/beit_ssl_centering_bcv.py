"""BEiT-B/16 pre-trained without labels, centering inflation, 5 slices on BCV.

Paper: Table 2(b), DSC of 8 organs 84.41.
Command: tools/dist_train.sh configs/beit_ssl_centering_bcv.py 8
"""
_base_ = 'beit_centering_bcv.py'
experiment = dict(source='weights/beit_base_patch16_224_pt22k.pth')
