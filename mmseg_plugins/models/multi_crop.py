"""Multi-crop views of a batch, drawn on the training device."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import grid_sample


class MultiCrop(nn.Module):
    """Two global and several local random views per image (Caron et al. 2020 and 2021).

    A view is a random resized crop, flipped, its intensities jittered. Everything is one batched
    bilinear sampling, for any number of channels; contrast and brightness are drawn per channel, so
    that colour alone does not tell which views belong together. Fine detail is that of the batch: a
    crop is enlarged from it, not cut again from the stored slice.

    Args:
        local_crops: n, local views per image.
        global_scale: (least, most) area of a global crop, as a share of the image.
        local_scale: the same for local crops.
        local_size: height and width of local views in pixels; None: the images' own size, which
            encoders with a fixed position table need.
        ratio: (least, most) width / height of a crop.
        flip: probabilities of a horizontal and a vertical flip.
        contrast: c, intensities around the channel's mean are scaled by a factor in [1 - c, 1 + c].
        brightness: b, intensities move by up to b (images are scaled to [-1, 1]).
        noise: largest standard deviation of Gaussian noise.
    """

    def __init__(self, local_crops: int = 8, global_scale: Sequence[float] = (0.4, 1.0),
                 local_scale: Sequence[float] = (0.05, 0.4), local_size: int | None = None,
                 ratio: Sequence[float] = (3 / 4, 4 / 3), flip: Sequence[float] = (0.5, 0.5),
                 contrast: float = 0.4, brightness: float = 0.2, noise: float = 0.1):
        super().__init__()
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale, self.ratio = global_scale, local_scale, ratio
        self.flip, self.contrast, self.brightness, self.noise = flip, contrast, brightness, noise

    def forward(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Views of images (B, C, H, W): global (2 B, C, H, W) and local (n B, C, h, w), view-major."""
        size = tuple(images.shape[2:])
        local_size = (self.local_size,) * 2 if self.local_size else size
        return (self._views(images, 2, self.global_scale, size, generator),
                self._views(images, self.local_crops, self.local_scale, local_size, generator))

    def _views(self, images: Tensor, count: int, scale: Sequence[float], size: tuple[int, int],
               generator: Generator) -> Tensor:
        images = images.repeat(count, 1, 1, 1)
        number, channels = images.shape[:2]

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.empty(number, *shape, device=images.device).uniform_(low, high, generator=generator)

        area, ratio = uniform(*scale), uniform(*torch.tensor(self.ratio).log().tolist()).exp()
        axes = []
        for extent, flip, pixels in (((area * ratio).sqrt(), self.flip[0], size[1]),
                                     ((area / ratio).sqrt(), self.flip[1], size[0])):
            extent = extent.clamp(max=1)  # of the image, whose coordinates run from -1 to 1
            centre = uniform(-1, 1) * (1 - extent)
            signed = torch.where(uniform(0, 1) < flip, -extent, extent)
            steps = (torch.arange(pixels, device=images.device) + 0.5) / pixels * 2 - 1
            axes.append(centre[:, None] + signed[:, None] * steps)
        x, y = axes
        grid = torch.stack([x[:, None].expand(-1, *size), y[:, :, None].expand(-1, *size)], -1)
        views = grid_sample(images, grid, padding_mode='border', align_corners=False)

        mean = views.mean((2, 3), keepdim=True)
        factor = uniform(1 - self.contrast, 1 + self.contrast, channels, 1, 1)
        shift = uniform(-self.brightness, self.brightness, channels, 1, 1)
        grain = torch.empty_like(views).normal_(generator=generator)
        return (views - mean) * factor + mean + shift + uniform(0, self.noise, 1, 1, 1) * grain
