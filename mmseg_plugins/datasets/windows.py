"""Windows of prepared cases as an mmseg dataset."""

import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dist import get_dist_info
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from torch.utils.data import Sampler

from ..errors import UserError
from .intensity import intensity_ranges
from .splits import split_cases
from .store import Store, read_index, window_indices


@DATASETS.register_module()
class WindowDataset(BaseSegDataset):
    """One sample per slice of every case of a split: the window around it (Zhang et al. 2022).

    Args:
        data_root: a prepared dataset (tools/prepare_data.py).
        split: a split's name, e.g. `train`, `val`, `test`, or a part of one (`split_cases`).
        slices: S.
        stride: distance of neighbouring window slices, in slices; 0: all are the centre slice.
        target: `center` or `all`: which label planes a sample carries.
        protocol: `sound` or `paper`: which intensities become -1 and 1 (intensity.py).

    A sample starts as dict(case, slice, depth, indices, intensity_range, ...), which LoadWindow reads.
    """

    def __init__(self, data_root: str, split: str, slices: int, stride: int = 1,
                 target: str = 'center', protocol: str = 'sound', pipeline=(), **kwargs):
        if slices < 1 or stride < 0:
            raise UserError(f'slices={slices}, stride={stride}: there must be 1 or more slices, 0 or more apart')
        self.index = read_index(data_root)
        self.cases = split_cases(self.index, split)
        self.split, self.slices, self.stride, self.target = split, slices, stride, target
        self.protocol = protocol
        self.store = Store(data_root)
        metainfo = dict(classes=tuple(self.index['labels']),
                        palette=[[0, 0, 0]] * len(self.index['labels']),
                        nsd_tolerance=self.index['nsd_tolerance'],
                        nominal_spacing=self.index['nominal_spacing'])
        super().__init__(data_root=str(data_root), metainfo=metainfo, pipeline=list(pipeline),
                         reduce_zero_label=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        samples = []
        for case in self.cases:
            entry = self.index['cases'][case]
            depth, _, height, width = entry['shape']
            intensity_range = intensity_ranges(self.index, self.protocol, entry)
            samples += [dict(case=case, slice=z, depth=depth, stride=self.stride, ori_shape=(height, width),
                             indices=window_indices(z, depth, self.slices, self.stride),
                             intensity_range=intensity_range, spacing=entry['spacing'],
                             target=self.target, reduce_zero_label=False) for z in range(depth)]
        return samples

    def prepare_data(self, idx: int | tuple[int, int]) -> dict:
        if isinstance(idx, tuple):
            idx, seed = idx
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
        sample = self.get_data_info(idx)
        sample['store'] = self.store
        return self.pipeline(sample)


@TRANSFORMS.register_module()
class LoadWindow(BaseTransform):
    """Read a window and its label planes.

    Sets `window` (C * S, H, W) in the volume's dtype and `planes` (1 or S, H, W) uint8.
    """

    def transform(self, results: dict) -> dict:
        store = results.pop('store')
        results['window'] = store.window(results['case'], results['indices'])
        planes = [results['slice']] if results['target'] == 'center' else results['indices']
        results['planes'] = store.label(results['case'], planes)
        results['slices'] = len(results['indices'])
        return results


@DATA_SAMPLERS.register_module()
class WindowSampler(Sampler):
    """An endless shuffle of windows, dealt out to the processes in turn.

    Yields (index, seed of its augmentation), both functions of the place in the shuffle: they are the same for any
    number of processes and of loader workers, and after a resumption.

    Args:
        dataset: of N windows.
        seed: of the shuffle.
    """

    def __init__(self, dataset: WindowDataset, seed: int | None = None):
        self.size, self.seed = len(dataset), seed or 0
        self.rank, self.processes = get_dist_info()
        self.first = 0  # place where this epoch, in torch's sense, begins

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = None
        for place in itertools.count(self.first + self.rank, self.processes):
            if epoch != place // self.size:
                epoch = place // self.size
                order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
            seed = np.random.SeedSequence((self.seed, place)).generate_state(1)[0]
            yield int(order[place % self.size]), int(seed)

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """There is only one."""


@DATA_SAMPLERS.register_module()
class CaseSampler(Sampler):
    """Whole cases to each process, in order: evaluation needs every slice of a case in one place,
    once (mmengine's DefaultSampler repeats samples to even processes out, which double-counts)."""

    def __init__(self, dataset: WindowDataset, seed: int | None = None):
        rank, world = get_dist_info()
        cases = np.array([dataset.get_data_info(i)['case'] for i in range(len(dataset))])
        names = list(dict.fromkeys(cases.tolist()))
        self.order = [i for name in names[rank::world] for i in np.flatnonzero(cases == name).tolist()]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """The order never changes."""
