from . import baselines
from .classification import PooledHead
from .dino import DinoHead, DinoPretrainer
from .encoders import InflatedEncoder, InflatedSwin, InflatedViT
from .losses import BatchDiceLoss, DiceFocalLoss, MonaiLoss
from .multi_crop import MultiCrop
from .objective import Objective
from .preprocessor import WindowPreProcessor, scale_intensity
from .segmentor import WindowSegmentor
from .video_swin import VideoSwin
from .volume_segmentor import VolumeSegmentor

__all__ = ['BatchDiceLoss', 'DiceFocalLoss', 'DinoHead', 'DinoPretrainer', 'InflatedEncoder', 'InflatedSwin',
           'InflatedViT', 'MonaiLoss', 'MultiCrop', 'Objective', 'PooledHead', 'VideoSwin', 'VolumeSegmentor',
           'WindowPreProcessor', 'WindowSegmentor', 'baselines', 'scale_intensity']
