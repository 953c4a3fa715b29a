"""Mini BEiT, centering inflation, 5 slices on the Decathlon's Task04 (real MRI).

Paper: Table 5, 86.83 with BEiT-B/16 (85 M parameters; this encoder has 0.5 M), without background.
Command: python tools/train.py configs/beit_centering_hippocampus.py
(prepare first: python tools/prepare_data.py hippocampus --raw <folder of Task04_Hippocampus>)
"""
_base_ = 'beit_centering_phantom.py'
experiment = dict(data_root='data/prepared/hippocampus', steps=1000, warmup=50,
                  checkpoint_interval=200)
