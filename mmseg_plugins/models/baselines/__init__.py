"""Networks that the inflated encoders are compared with."""

from .cotr import CoTr
from .monai_networks import OrderedMerging, SwinUNETR, UNet2D, build_mednext, build_unet, build_unetr
from .swinunet import SwinUNet, SwinUNetHead
from .transunet import TransUNet, TransUNetHead

__all__ = ['CoTr', 'OrderedMerging', 'SwinUNETR', 'SwinUNet', 'SwinUNetHead', 'TransUNet', 'TransUNetHead',
           'UNet2D', 'build_mednext', 'build_unet', 'build_unetr']
