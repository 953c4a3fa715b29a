from .monai_networks import OrderedMerging, SwinUNETR, UNet2D, build_mednext, build_unet, build_unetr

__all__ = ['OrderedMerging', 'SwinUNETR', 'UNet2D', 'build_mednext', 'build_unet', 'build_unetr']
