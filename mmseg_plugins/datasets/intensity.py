"""Which intensities of a channel become -1 and 1: by modality and protocol.

| protocol | CT | MRI |
| --- | --- | --- |
| `sound` | -175 to 250 HU | 0.5th to 99.5th percentile of each volume's channel |
| `paper` | -175 to 250 HU | 0 to the maximum of each volume's channel |

MRI has no unit: within one dataset (Task04) maxima differ by four orders of magnitude, so that a fixed range
cannot serve it, and a single bright voxel sets a maximum.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import UserError, nearest
from .catalogue import DatasetInfo

PROTOCOLS = ('sound', 'paper')
CT_RANGE = (-175.0, 250.0)
STATISTICS = ('minimum', 'low', 'median', 'high', 'maximum')
PERCENTILES = (0.0, 0.5, 50.0, 99.5, 100.0)


def intensity_rules(info: DatasetInfo) -> dict:
    """A dataset's rule by protocol: (low, high), `percentiles`, or `maximum`."""
    sound, paper = (CT_RANGE, CT_RANGE) if info.modality == 'CT' else ('percentiles', 'maximum')
    return dict(sound=sound, paper=info.paper_intensity or paper)


def channel_statistics(image: np.ndarray) -> dict[str, list[float]]:
    """Minimum, 0.5th, 50th and 99.5th percentile (`low`, `median`, `high`) and maximum per channel.

    Args:
        image: (D, C, H, W).
    """
    values = [_percentiles(image[:, channel]) for channel in range(image.shape[1])]
    return {name: [float(channel[i]) for channel in values] for i, name in enumerate(STATISTICS)}


def _percentiles(voxels: np.ndarray) -> np.ndarray:
    """Nearest-rank percentiles; integers are counted, which is several times faster than sorting them."""
    ranks = np.floor(np.array(PERCENTILES) / 100 * (voxels.size - 1) + 0.5).astype(np.int64)
    if voxels.dtype.kind == 'f':
        return np.partition(voxels, ranks, axis=None)[ranks]
    lowest = int(voxels.min())
    counts = np.bincount(voxels.ravel().astype(np.int32) - lowest)
    return np.searchsorted(np.cumsum(counts), ranks, side='right') + lowest


def intensity_ranges(index: dict, protocol: str, statistics: dict) -> list[tuple[float, float]]:
    """Per channel of a volume: what maps to -1 and 1.

    Args:
        index: the prepared dataset's, for its rules.
        protocol: `sound` or `paper`.
        statistics: the volume's `channel_statistics`.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f'unknown protocol {protocol!r}{nearest(protocol, PROTOCOLS)}')
    rule = index['intensity'][protocol]
    if isinstance(rule, Sequence) and not isinstance(rule, str):
        return [tuple(rule)] * len(statistics['maximum'])
    if rule == 'maximum':
        return [(0.0, most) if most > 0 else (least, most)
                for least, most in zip(statistics['minimum'], statistics['maximum'], strict=True)]
    # where nearly every voxel has one value, the percentiles meet: the whole range is what is left
    channels = zip(*(statistics[name] for name in ('minimum', 'low', 'high', 'maximum')), strict=True)
    return [(low, high) if high > low else (least, most) for least, low, high, most in channels]
