from .catalogue import CATALOGUE, DatasetInfo, dataset_info
from .crops import CropDataset, LoadCrop, LoadVolume
from .layouts import RawCase, RawDataset, register_layout
from .store import Store, read_index, window_indices
from .transforms import (
    PackWindow,
    RandomIntensityShift,
    RandomRotate90,
    RandomTranslate,
    RandomWindowFlip,
    RandomZoomCrop,
    ResizeWindow,
)
from .windows import CaseSampler, LoadWindow, WindowDataset, WindowSampler

__all__ = ['CATALOGUE', 'CaseSampler', 'CropDataset', 'DatasetInfo', 'LoadCrop', 'LoadVolume', 'LoadWindow',
           'PackWindow', 'RandomIntensityShift', 'RandomRotate90', 'RandomTranslate', 'RandomWindowFlip',
           'RandomZoomCrop', 'RawCase', 'RawDataset', 'ResizeWindow', 'Store', 'WindowDataset', 'WindowSampler',
           'dataset_info', 'read_index', 'register_layout', 'window_indices']
