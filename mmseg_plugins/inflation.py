"""Weight inflation: a 2D patch-embedding kernel becomes a (channels, slices) kernel.

Zhang et al., "Adapting Pre-trained Vision Transformers from 2D to 3D through Weight Inflation
Improves Medical Image Segmentation", ML4H 2022, section 3.3. With G the kernel summed over colour,
C image channels and S slices:

    average     every (channel, slice) gets G / (C S): sees the mean slice
    centering   the centre slice S // 2 of every channel gets G / C, all others zero
    random      the layer keeps its fresh initialization; everything else is loaded
    none        the kernel as it is, for 2D pre-training that goes on: shapes must agree

and beside the paper's, where a number in brackets replaces the default, as in `gaussian(0.5)`:

    triangular(w)       slice k weighs max(0, 1 - |k - S // 2| / w), w = 2; w <= 1 is centering, w to
                        infinity average. The kernel's sum is kept: a constant image gives the 2D features.
                        (The triangle filter of R. Zhang, "Making convolutional networks
                        shift-invariant again", ICML 2019, over depth.)
    gaussian(s)         slice k weighs exp(-(k - S // 2)^2 / (2 s^2)), s = 1 slice; s to 0 is centering, to
                        infinity average. The sum is kept. (The same, with the binomial filter's limit.)
    repeat              every slice gets G / C: filter responses grow S-fold. The first half of I3D's
                        bootstrapping without its division by S (Carreira and Zisserman, CVPR 2017).
    centering_noise(e)  centering, and normal noise on the neighbours with e = 0.01 of G's standard
                        deviation: features are the 2D model's up to the noise, and neighbours start
                        apart from each other (symmetry breaking as in Net2Net, Chen et al., ICLR 2016).
    arp                 slice t = 1..S weighs (2 (S - t + 1) - (S + 1) (H_S - H_t-1)) / S with H the harmonic
                        numbers: for 5 slices -0.74, 0.06, 0.26, 0.26, 0.16. The sum is zero: what is the same in
                        all slices is not seen. A control for keeping the sum. (Approximate rank pooling, Bilen et
                        al., "Dynamic image networks for action recognition", CVPR 2016.)

    separable           one number for each filter and slice, which alone are trained: slice s gets a[e, s] G / C,
                        and a starts as centering does. A trained form; the source's kernel stays as it is.

Add a method with one function; a keyword argument with a default is its number:

    @register_inflation('first')
    def first(gray, slices, channels):          # gray: (E, P, P), G above
        kernel = gray.new_zeros(len(gray), channels, slices, *gray.shape[1:])
        kernel[:, :, 0] = gray[:, None] / channels
        return kernel                           # (E, channels, slices, P, P)

or a trained form with a class, as `Separable` below.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .errors import UserError
from .registering import parse_entry, register_once

Method = Callable[..., Tensor]  # or a class, of a trained form
INFLATIONS: dict[str, Method | None] = {'none': None, 'random': None}
LEAST = {'triangular': 0, 'gaussian': 0, 'centering_noise': 0}  # of their numbers; a user's own may be any


def register_inflation(name: str) -> Callable[[Method], Method]:
    """Register a method `(gray (E, P, P), slices, channels) -> (E, channels, slices, P, P)`."""
    return register_once(INFLATIONS, name, 'inflation method')


def over_depth(gray: Tensor, weights: Tensor, channels: int) -> Tensor:
    """G / C times a weight for each slice: (E, P, P) and (S,) -> (E, C, S, P, P)."""
    kernel = gray[:, None, None] * weights.to(gray)[:, None, None] / channels
    return kernel.repeat(1, channels, 1, 1, 1)


def distances(slices: int) -> Tensor:
    """Of every slice from the centre slice S // 2: (S,) float64."""
    return (torch.arange(slices, dtype=torch.float64) - slices // 2).abs()


@register_inflation('average')
def average(gray: Tensor, slices: int, channels: int) -> Tensor:
    kernel = gray[:, None, None] / (channels * slices)
    return kernel.repeat(1, channels, slices, 1, 1)


@register_inflation('centering')
def centering(gray: Tensor, slices: int, channels: int) -> Tensor:
    return over_depth(gray, distances(slices) == 0, channels)


@register_inflation('triangular')
def triangular(gray: Tensor, slices: int, channels: int, width: float = 2.0) -> Tensor:
    weights = (1 - distances(slices) / max(width, 1.0)).clamp(min=0)
    return over_depth(gray, weights / weights.sum(), channels)


@register_inflation('gaussian')
def gaussian(gray: Tensor, slices: int, channels: int, sigma: float = 1.0) -> Tensor:
    weights = (-(distances(slices) / max(sigma, 1e-6)) ** 2 / 2).exp()
    return over_depth(gray, weights / weights.sum(), channels)


@register_inflation('repeat')
def repeat(gray: Tensor, slices: int, channels: int) -> Tensor:
    return over_depth(gray, torch.ones(slices), channels)


@register_inflation('arp')
def arp(gray: Tensor, slices: int, channels: int) -> Tensor:
    at = torch.arange(1, slices + 1, dtype=torch.float64)
    later = (1 / at).flip(0).cumsum(0).flip(0)  # H_S - H_t-1
    return over_depth(gray, (2 * (slices - at + 1) - (slices + 1) * later) / slices, channels)


@register_inflation('centering_noise')
def centering_noise(gray: Tensor, slices: int, channels: int, scale: float = 0.01) -> Tensor:
    kernel = centering(gray, slices, channels)
    noise = torch.randn_like(kernel) * (scale * gray.std() / channels)
    noise[:, :, slices // 2] = 0
    return kernel + noise


@register_inflation('separable')
class Separable(nn.Module):
    """The weight of a patch embedding, whose kernel is fixed and whose profile over depth is trained.

    Args:
        embed_dim: E.
        slices: S.
    """
    lr_mult = 50.0  # Adam moves every number by the rate, weights of 0.02 and these of 1 alike

    def __init__(self, embed_dim: int, slices: int):
        super().__init__()
        self.profile = nn.Parameter((distances(slices) == 0).float().repeat(embed_dim, 1))

    kernel = staticmethod(repeat)  # of a source's kernel, what the layer holds

    def forward(self, weight: Tensor) -> Tensor:
        """(E, C * S, P, P), channel-major -> the same."""
        slices = self.profile.shape[1]
        return (weight.unflatten(1, (-1, slices)) * self.profile[:, None, :, None, None]).flatten(1, 2)


def trained_form(inflation: str) -> type[nn.Module] | None:
    """The class of an inflation that is one."""
    method = INFLATIONS[parse_inflation(inflation)[0]]
    return method if isinstance(method, type) else None


def parse_inflation(method: str) -> tuple[str, dict[str, float]]:
    """`gaussian(0.5)` -> ('gaussian', {'sigma': 0.5}).

    Raises:
        UserError: no such method, or a number that it does not take.
    """
    return parse_entry(method, INFLATIONS, 'inflation', LEAST)


def check_window(slices: int, channels: int) -> None:
    """Raise UserError where a window of so many slices and channels cannot be."""
    for name, value in (('slices', slices), ('channels', channels)):
        if type(value) is not int or value < 1:
            raise UserError(f'{name}={value!r} must be a whole number, at least 1')


def inflate_kernel(weight: Tensor, slices: int, channels: int, method: str) -> Tensor | None:
    """Inflate a 2D patch-embedding kernel over image channels and slices.

    Args:
        weight: 2D kernel of shape (E, 3, P, P) or (E, 1, P, P).
        slices: S, slices per window.
        channels: C, image channels (1 for CT, e.g. 4 for the Decathlon's brain MRI).
        method: a registered name, with its number in brackets where it takes one.

    Returns:
        Kernel of shape (E, C, S, P, P), or None for `random`: keep what the layer has.

    Raises:
        UserError: unknown method, or a shape that is not one of the two above.
    """
    name, options = parse_inflation(method)
    check_window(slices, channels)
    if name == 'none':
        if weight.ndim != 4 or (weight.shape[1], slices) != (channels, 1):
            raise UserError(f'inflation `none` cannot take a kernel of shape {tuple(weight.shape)}: '
                            f'needed (E, {channels}, P, P) and 1 slice')
        return weight[:, :, None]
    if weight.ndim != 4 or weight.shape[1] not in (1, 3):
        raise UserError(f'cannot inflate a kernel of shape {tuple(weight.shape)}: '
                        'needed (E, 3, P, P) or (E, 1, P, P)')
    if name == 'random':
        return None
    embed_dim, _, height, width = weight.shape
    form = trained_form(method)  # whose number is its constructor's
    make = form.kernel if form else partial(INFLATIONS[name], **options)
    kernel = make(weight.sum(1), slices, channels)
    needed = (embed_dim, channels, slices, height, width)
    if tuple(kernel.shape) != needed:
        raise UserError(f'inflation {method!r} returned shape {tuple(kernel.shape)}: needed {needed}')
    if not kernel.isfinite().all():
        raise UserError(f'inflation {method!r} gives a kernel with numbers that are NaN or infinite; choose '
                        'another')
    if weight.any() and not kernel.any():
        raise UserError(f'inflation {method!r} of {slices} slice(s) is zero at every weight, so that no image '
                        'would be seen; choose another')
    return kernel
