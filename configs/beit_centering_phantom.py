"""Mini BEiT, centering inflation, 5 slices on the embedded phantom: about a minute on one CPU thread.

Command: python tools/train.py configs/beit_centering_phantom.py
(prepare first: python tools/prepare_data.py phantom; the source is made by benchmarks/run_grid.py)
"""
_base_ = ['_base_/mini_beit.py', '_base_/mini_windows.py', '_base_/mini_schedule.py',
          '_base_/runtime.py']
experiment = dict(data_root='data/prepared/phantom', source='weights/mini_beit_layout.pth',
                  inflation='centering', slices=5)
