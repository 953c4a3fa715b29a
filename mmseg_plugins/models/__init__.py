from .dino import DinoHead, DinoPretrainer
from .encoders import InflatedEncoder, InflatedSwin, InflatedViT
from .losses import DiceFocalLoss
from .multi_crop import MultiCrop
from .preprocessor import WindowPreProcessor, scale_intensity
from .segmentor import WindowSegmentor

__all__ = ['DiceFocalLoss', 'DinoHead', 'DinoPretrainer', 'InflatedEncoder', 'InflatedSwin', 'InflatedViT',
           'MultiCrop', 'WindowPreProcessor', 'WindowSegmentor', 'scale_intensity']
