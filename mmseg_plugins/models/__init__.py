from . import baselines
from .classification import PooledHead
from .dino import DinoHead, DinoPretrainer
from .encoders import InflatedEncoder, InflatedSwin, InflatedViT
from .losses import DiceFocalLoss
from .multi_crop import MultiCrop
from .objective import Objective
from .preprocessor import WindowPreProcessor, scale_intensity
from .segmentor import WindowSegmentor
from .video_swin import VideoSwin

__all__ = ['DiceFocalLoss', 'DinoHead', 'DinoPretrainer', 'InflatedEncoder', 'InflatedSwin', 'InflatedViT',
           'MultiCrop', 'Objective', 'PooledHead', 'VideoSwin', 'WindowPreProcessor', 'WindowSegmentor',
           'baselines', 'scale_intensity']
