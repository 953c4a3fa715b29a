"""Networks that the inflated encoders are compared with."""

from .swinunet import SwinUNet, SwinUNetHead
from .transunet import TransUNet, TransUNetHead

__all__ = ['SwinUNet', 'SwinUNetHead', 'TransUNet', 'TransUNetHead']
