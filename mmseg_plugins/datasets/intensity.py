"""Which intensities of a channel become -1 and 1: by modality and protocol.

| protocol | CT | MRI |
| --- | --- | --- |
| `sound` | -175 to 250 HU | 0.5th to 99.5th percentile of each volume's channel |
| `paper` | -175 to 250 HU | 0 to the maximum of each volume's channel |

MRI has no unit: within one dataset (Task04) maxima differ by four orders of magnitude, so that a fixed range
cannot serve it, and a single bright voxel sets a maximum.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import UserError, nearest, some
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


def doubt_modality(volumes: Mapping[str, dict], modality: str | None, channels: Sequence[str]) -> list[str]:
    """Volumes whose intensities cannot be what the modality says, one line for each kind of doubt.

    In HU, air is -1000, fat -100 and contrast or bone several hundred, so that a CT goes below 0 and over some
    hundreds. In MRI no voxel is far below 0, and none is what CTs are padded with.

    Args:
        volumes: `channel_statistics` by name of the case or file.
        modality: `CT` or `MRI`; others raise no doubt.
        channels: their names.
    """
    lines = []
    for channel, name in enumerate(channels):
        doubted = defaultdict(list)
        for volume, statistics in volumes.items():
            values = {key: statistics[key][channel] for key in STATISTICS}
            if values['minimum'] < values['maximum'] and (doubt := _doubt(modality, **values)):
                doubted[doubt].append(volume)
        lines += [f'{some(named)}: channel {name} is declared {modality}, but {doubt}'
                  + (f' ({len(named)} of {len(volumes)})' if len(volumes) > 1 else '')
                  for doubt, named in doubted.items()]
    return lines


def _doubt(modality: str | None, minimum: float, low: float, high: float, maximum: float, **_) -> str | None:
    if modality == 'CT':
        if maximum - minimum <= 100:
            return 'its values span no more than 100, so are scaled already; give the Hounsfield units'
        if low < -4096 or high > 32767:
            return ('its values go far beyond what scanners give (-1024 to 3071, padding to -3024), so were '
                    'scaled; give the Hounsfield units')
        if -128 <= minimum < -100 and 100 < maximum <= 127:
            return 'its values are -128 to 127, so were cut to bytes; give the Hounsfield units'
        if low >= 0 and maximum <= 255:
            return 'its values are 0 to 255, so were windowed to bytes; give the Hounsfield units'
        if low >= 0:
            return ('hardly a value is below 0, where air (-1000) and fat (-100) are in Hounsfield units; '
                    'subtract the offset, most often 1024')
    if modality == 'MRI' and -3100 <= low <= -900 and high <= 4000:
        return 'it has the air or padding of a CT (-1000 to -3024); declare it as CT'
    return None
