from .encoders import InflatedEncoder, InflatedSwin, InflatedViT
from .losses import DiceFocalLoss
from .preprocessor import WindowPreProcessor, scale_intensity
from .segmentor import WindowSegmentor
from .video_swin import VideoSwin

__all__ = ['DiceFocalLoss', 'InflatedEncoder', 'InflatedSwin', 'InflatedViT', 'VideoSwin',
           'WindowPreProcessor', 'WindowSegmentor', 'scale_intensity']
