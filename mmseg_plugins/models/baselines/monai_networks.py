"""Networks of MONAI's that take volumes, as their authors have them where MONAI's defaults differ.

All take (B, C, D, H, W) and give logits (B, K, D, H, W). MONAI is imported when one is built, as that takes
seconds.
"""

import re
from collections.abc import Sequence
from math import prod

import torch
from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import pad

from ...checkpoints import LoadReport, Naming, State, load_volume_source
from ...errors import UserError, nearest

CHANNELS = (32, 64, 128, 256, 320)  # nnU-Net's (Isensee et al. 2021), in 3D and in 2D
CHANNELS_2D = (32, 64, 128, 256, 512, 512, 512)

# Of the eight voxels that become one, which go side by side, as (z, y, x) in MONAI's order of axes.
MERGING = {
    # MONAI's until 1.4, in which Swin UNETR was pre-trained and published: two of them twice, two not at all
    'until 1.4': ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
    # MONAI's from 1.5 on
    'since 1.5': ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))}


@MODELS.register_module(name='UNETR')
def build_unetr(in_channels: int, out_channels: int, crop: Sequence[int], **settings) -> nn.Module:
    """UNETR (Hatamizadeh et al. 2022), whose patches of 16 x 16 x 16 voxels are embedded by a linear layer.

    That is `perceptron`, as in the authors' code; MONAI's default is a convolution. Skips are hidden states 3, 6
    and 9 counted from 0, in MONAI's as in the authors' code: outputs of blocks 4, 7 and 10 of 12, where the paper
    has 3, 6 and 9.

    Args:
        in_channels: C.
        out_channels: K, classes with background.
        crop: (D, H, W), multiples of 16; the position table is made for it.
        settings: MONAI's (feature_size, hidden_size, mlp_dim, num_heads, ...).

    Raises:
        UserError: the patches do not fill the crop.
    """
    from monai.networks.nets import UNETR

    check_crop('UNETR', crop, 16)
    network = UNETR(in_channels, out_channels, tuple(crop), **{'proj_type': 'perceptron'} | settings)
    for block in network.vit.blocks:  # of cross-attention, which UNETR has none of: it would never get a gradient
        block.norm_cross_attn = nn.Identity()
    return network


@MODELS.register_module(name='UNet3D')
def build_unet(in_channels: int, out_channels: int, crop: Sequence[int], channels: Sequence[int] = CHANNELS,
               strides: Sequence[int | Sequence[int]] = (2,) * 4, **settings) -> nn.Module:
    """A 3D U-Net (Çiçek et al. 2016) with residual units: MONAI's UNet.

    Args:
        in_channels: C.
        out_channels: K, classes with background.
        crop: (D, H, W), multiples of the product of the strides.
        channels: of each level, from the finest.
        strides: between two levels, of all axes or of (D, H, W).
        settings: MONAI's (num_res_units, norm, act, ...).

    Raises:
        UserError: the strides do not divide the crop.
    """
    from monai.networks.nets import UNet

    along = [[stride] * 3 if isinstance(stride, int) else stride for stride in strides]
    check_crop('UNet3D', crop, [prod(axis) for axis in zip(*along, strict=True)])
    return UNet(3, in_channels, out_channels, channels, [tuple(stride) for stride in along],
                **{'num_res_units': 2} | settings)


@MODELS.register_module()
class UNet2D(nn.Module):
    """A U-Net (Ronneberger et al. 2015) with residual units, slice by slice: MONAI's UNet.

    Args:
        in_channels: C.
        out_channels: K, classes with background.
        crop: (D, H, W), H and W multiples of the product of the strides.
        channels: of each level, from the finest.
        strides: between two levels.
        settings: MONAI's (num_res_units, norm, act, ...).

    Raises:
        UserError: the strides do not divide the crop.
    """

    def __init__(self, in_channels: int, out_channels: int, crop: Sequence[int],
                 channels: Sequence[int] = CHANNELS_2D, strides: Sequence[int] = (2,) * 6, **settings):
        from monai.networks.nets import UNet

        super().__init__()
        check_crop('UNet2D', crop, (1, prod(strides), prod(strides)))
        self.model = UNet(2, in_channels, out_channels, channels, strides, **dict(num_res_units=2) | settings)

    def forward(self, volumes: Tensor) -> Tensor:
        slices = self.model(volumes.transpose(1, 2).flatten(0, 1))
        return slices.unflatten(0, (len(volumes), -1)).transpose(1, 2)


@MODELS.register_module(name='MedNeXt')
def build_mednext(in_channels: int, out_channels: int, crop: Sequence[int], variant: str | None = 'S',
                  **settings) -> nn.Module:
    """MedNeXt (Roy et al. 2023): one of its four published sizes, with deep supervision.

    MONAI's bare class has kernels of 7 and no residual connections; the published ones have residual connections,
    and kernels of 3, or 5 after UpKern.

    Args:
        in_channels: C.
        out_channels: K, classes with background.
        crop: (D, H, W), multiples of 16.
        variant: `S`, `B`, `M` or `L`; None: a size of one's own, given by settings of MONAI's class.
        settings: MONAI's (kernel_size, deep_supervision; without a variant init_filters, blocks_down, ...).

    Raises:
        UserError: no such variant, or the four halvings do not divide the crop.
    """
    from monai.networks.nets import mednext

    check_crop('MedNeXt', crop, 16)
    chosen = dict(in_channels=in_channels, out_channels=out_channels, kernel_size=3, deep_supervision=True)
    chosen |= settings
    if variant is None:
        return mednext.MedNeXt(**dict(use_residual_connection=True) | chosen)
    if variant not in ('S', 'B', 'M', 'L'):
        raise UserError(f'model.network.variant={variant!r} must be S, B, M or L, or None')
    return mednext.create_mednext(variant, **chosen)


def check_crop(network: str, crop: Sequence[int], parts: int | Sequence[int]) -> None:
    """Refuse a crop whose sides are no multiples of what a network divides them into, or that it makes one voxel
    of.

    Raises:
        UserError: says what crops there may be.
    """
    parts = [parts] * 3 if isinstance(parts, int) else list(parts)
    if any(side % part for side, part in zip(crop, parts, strict=True)):
        raise UserError(f'experiment.crop={tuple(crop)}: {network} needs multiples of '
                        f'{" x ".join(map(str, parts))} (slices x height x width)')
    if tuple(crop) == tuple(parts):
        raise UserError(f'experiment.crop={tuple(crop)}: {network} makes one voxel of it, which its norms cannot '
                        'take; choose a larger one')


@MODELS.register_module()
class SwinUNETR(nn.Module):
    """Swin UNETR (Tang et al. 2022), with a patch merging that does not depend on MONAI's version.

    MONAI 1.5 put other voxels side by side under the same names and shapes: weights of one kind give other
    features in the other. Here the order is a setting, and part of a checkpoint, which is refused where it is
    another.

    Args:
        in_channels: C.
        out_channels: K, classes with background.
        crop: (D, H, W), multiples of 32.
        source: the authors' `model_swinvit.pt`, self-supervised on CT; None: random weights.
        merging: `until 1.4` or `since 1.5`, whose patch merging it has. The source has the first.
        settings: MONAI's (feature_size, depths, num_heads, window_size, drop_path_rate, use_checkpoint, ...).

    Raises:
        UserError: a crop that does not divide, or a source that does not fit.
    """

    def __init__(self, in_channels: int, out_channels: int, crop: Sequence[int], source: str | None = None,
                 merging: str = 'until 1.4', **settings):
        from monai.networks.nets import SwinUNETR as Network

        super().__init__()
        check_crop('SwinUNETR', crop, 32)
        if merging not in MERGING:
            raise UserError(f'model.network.merging={merging!r}{nearest(merging, MERGING)}')
        if source and merging != 'until 1.4':
            raise UserError(f'experiment.source={source!r}: was made with the patch merging of MONAI until 1.4, '
                            f"and model.network.merging is {merging!r}; set it to 'until 1.4', or leave the "
                            'source out')

        def merge(dim: int, norm_layer: type[nn.LayerNorm] = nn.LayerNorm, **_) -> OrderedMerging:
            return OrderedMerging(dim, merging, norm_layer)

        self.in_channels, self.source = in_channels, source
        self.load_report: LoadReport | None = None
        with torch.device('cpu'):  # MONAI reads numbers off tensors, which those of the meta device have not
            model = Network(in_channels, out_channels, **dict(feature_size=48) | settings, downsample=merge)
        self.model = model.to(torch.get_default_device())

    def init_weights(self) -> None:
        """Load the source into the encoder; without one, MONAI's own initialization stays."""
        if self.source and self.load_report is None:
            encoder = self.model.swinViT
            self.load_report = load_volume_source(encoder, Naming(frozenset(encoder.state_dict()), _swinvit_keys),
                                                  self.source, self.in_channels)
            print_log(f'source {self.load_report}', logger='current')

    def forward(self, volumes: Tensor) -> Tensor:
        return self.model(volumes)


def _swinvit_keys(state: State) -> State:
    """The authors' names of the two layers of an MLP -> MONAI's."""
    return {re.sub(r'\.mlp\.fc([12])\.', r'.mlp.linear\1.', key): value for key, value in state.items()}


class OrderedMerging(nn.Module):
    """Swin's patch merging in 3D: eight voxels side by side, a norm, a linear layer (B, D, H, W, E) -> 2E
    channels.

    Args:
        dim: E.
        order: of MERGING.

    Raises:
        UserError: on loading a state dict of another order.
    """

    def __init__(self, dim: int, order: str, norm_layer: type[nn.LayerNorm] = nn.LayerNorm):
        super().__init__()
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)
        self.offsets = MERGING[order]
        self.register_buffer('order', torch.tensor(self.offsets, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        *_, depth, height, width, _ = x.shape
        x = pad(x, (0, 0, 0, width % 2, 0, height % 2, 0, depth % 2))
        return self.reduction(self.norm(torch.cat([x[:, i::2, j::2, k::2] for i, j, k in self.offsets], -1)))

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        order = state_dict.get(f'{prefix}order')
        if order is not None and order.tolist() != [list(offset) for offset in self.offsets]:
            raise UserError(f'{prefix}order: the checkpoint was trained with another patch merging (MONAI changed '
                            'it in 1.5); set model.network.merging to that')
        super()._load_from_state_dict(state_dict, prefix, *args)
