"""Weight inflation: a 2D patch-embedding kernel becomes a (channels, slices) kernel.

Zhang et al., "Adapting Pre-trained Vision Transformers from 2D to 3D through Weight Inflation
Improves Medical Image Segmentation", ML4H 2022, section 3.3. With G the kernel summed over colour,
C image channels and S slices:

    average     every (channel, slice) gets G / (C S): sees the mean slice
    centering   the centre slice S // 2 of every channel gets G / C, all others zero
    random      the layer keeps its fresh initialization; everything else is loaded

Both of the first two keep the kernel's sum. Add a method with one function:

    @register_inflation('first')
    def first(gray, slices, channels):          # gray: (E, P, P), G above
        kernel = gray.new_zeros(len(gray), channels, slices, *gray.shape[1:])
        kernel[:, :, 0] = gray[:, None] / channels
        return kernel                           # (E, channels, slices, P, P)
"""

from collections.abc import Callable

from torch import Tensor

from .errors import UserError, nearest

Method = Callable[[Tensor, int, int], Tensor]
INFLATIONS: dict[str, Method | None] = {}


def register_inflation(name: str) -> Callable[[Method], Method]:
    """Register a method `(gray (E, P, P), slices, channels) -> (E, channels, slices, P, P)`."""
    def register(method: Method) -> Method:
        if name in INFLATIONS:
            raise KeyError(f'inflation method {name!r} is registered already')
        INFLATIONS[name] = method
        return method
    return register


INFLATIONS['random'] = None


@register_inflation('average')
def average(gray: Tensor, slices: int, channels: int) -> Tensor:
    embed_dim, *patch = gray.shape
    kernel = gray[:, None, None] / (channels * slices)
    return kernel.expand(embed_dim, channels, slices, *patch).clone()


@register_inflation('centering')
def centering(gray: Tensor, slices: int, channels: int) -> Tensor:
    embed_dim, *patch = gray.shape
    kernel = gray.new_zeros(embed_dim, channels, slices, *patch)
    kernel[:, :, slices // 2] = gray[:, None] / channels
    return kernel


def check_inflation(method: str) -> None:
    """Raise UserError when no such method is registered."""
    if method not in (*INFLATIONS, 'none'):  # `none` takes the kernel as it is (checkpoints.py)
        raise UserError(f'unknown inflation {method!r}{nearest(method, INFLATIONS)}')


def inflate_kernel(weight: Tensor, slices: int, channels: int, method: str) -> Tensor | None:
    """Inflate a 2D patch-embedding kernel over image channels and slices.

    Args:
        weight: 2D kernel of shape (E, 3, P, P) or (E, 1, P, P).
        slices: S, slices per window.
        channels: C, image channels (1 for CT, e.g. 4 for the Decathlon's brain MRI).
        method: a registered name.

    Returns:
        Kernel of shape (E, C, S, P, P), or None for `random`: keep what the layer has.

    Raises:
        UserError: unknown method, or a shape that is not one of the two above.
    """
    check_inflation(method)
    if weight.ndim != 4 or weight.shape[1] not in (1, 3):
        raise UserError(f'cannot inflate a kernel of shape {tuple(weight.shape)}: '
                        'needed (E, 3, P, P) or (E, 1, P, P)')
    if slices < 1 or channels < 1:
        raise UserError(f'cannot inflate to {slices} slices and {channels} channels: '
                        'both must be at least 1')
    function = INFLATIONS[method]
    if function is None:
        return None
    embed_dim, _, height, width = weight.shape
    kernel = function(weight.sum(1), slices, channels)
    needed = (embed_dim, channels, slices, height, width)
    if tuple(kernel.shape) != needed:
        raise UserError(f'inflation {method!r} returned shape {tuple(kernel.shape)}: needed {needed}')
    return kernel
