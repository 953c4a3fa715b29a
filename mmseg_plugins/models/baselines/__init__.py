"""Networks that the inflated encoders are compared with."""

from .cotr import CoTr
from .monai_networks import OrderedMerging, SwinUNETR, UNet2D, build_mednext, build_unet, build_unetr

__all__ = ['CoTr', 'OrderedMerging', 'SwinUNETR', 'UNet2D', 'build_mednext', 'build_unet', 'build_unetr']
