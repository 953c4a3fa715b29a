from .encoders import InflatedEncoder, InflatedSwin, InflatedViT
from .losses import DiceFocalLoss
from .preprocessor import WindowPreProcessor, scale_intensity
from .segmentor import WindowSegmentor

__all__ = ['DiceFocalLoss', 'InflatedEncoder', 'InflatedSwin', 'InflatedViT', 'WindowPreProcessor',
           'WindowSegmentor', 'scale_intensity']
