"""Windows of prepared cases as an mmseg dataset."""

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

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
from .store import Store, check_case, read_index, window_indices


class PreparedDataset(BaseSegDataset):
    """Base of samples of a prepared dataset's cases.

    Args:
        data_root: a prepared dataset (tools/prepare_data.py).
        split: a split's name, e.g. `train`, `val`, `test`, or a part of one (`split_cases`).
        protocol: `sound` or `paper`: which intensities become -1 and 1 (intensity.py).
        clip: what these are instead, the preprocessor's `clip`, so that augmentation fills with its low end.

    Raises:
        UserError: no such split, or its cases are not as the index tells of them.
    """

    def __init__(self, data_root: str, split: str, protocol: str = 'sound', clip: Sequence[float] | None = None,
                 pipeline=(), **kwargs):
        self.index = read_index(data_root)
        self.cases = split_cases(self.index, split)
        self.split, self.protocol, self.clip = split, protocol, clip
        for case in self.cases:
            check_case(Path(data_root), self.index, case)
        self.store = Store(data_root)
        metainfo = dict(classes=tuple(self.index['labels']),
                        palette=[[0, 0, 0]] * len(self.index['labels']),
                        nsd_tolerance=self.index['nsd_tolerance'],
                        nominal_spacing=self.index['nominal_spacing'])
        super().__init__(data_root=str(data_root), metainfo=metainfo, pipeline=list(pipeline),
                         reduce_zero_label=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        return [sample for case in self.cases for sample in self.list_samples(case)]

    def list_samples(self, case: str) -> list[dict]:
        raise NotImplementedError

    def describe_case(self, case: str) -> dict:
        """What all samples of a case have in common."""
        entry = self.index['cases'][case]
        depth, channels, height, width = entry['shape']
        ranges = [self.clip] * channels if self.clip else intensity_ranges(self.index, self.protocol, entry)
        return dict(case=case, depth=depth, ori_shape=(height, width), spacing=entry['spacing'],
                    intensity_range=ranges, reduce_zero_label=False)

    def prepare_data(self, idx: int | tuple[int, int]) -> dict:
        if isinstance(idx, tuple):
            idx, seed = idx
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
        sample = self.get_data_info(idx)
        sample['store'] = self.store
        return self.pipeline(sample)


@DATASETS.register_module()
class WindowDataset(PreparedDataset):
    """One sample per slice of every case of a split: the window around it (Zhang et al. 2022).

    Args:
        data_root, split, protocol: PreparedDataset's.
        slices: S.
        stride: distance of neighbouring window slices, in slices; 0: all are the centre slice.
        target: `center` or `all`: which label planes a sample carries.

    A sample starts as dict(case, slice, depth, indices, intensity_range, ...), which LoadWindow reads.
    """

    def __init__(self, data_root: str, split: str, slices: int, stride: int = 1,
                 target: str = 'center', **kwargs):
        if slices < 1 or stride < 0:
            raise UserError(f'slices={slices}, stride={stride}: there must be 1 or more slices, 0 or more apart')
        self.slices, self.stride, self.target = slices, stride, target
        super().__init__(data_root, split, **kwargs)

    def list_samples(self, case: str) -> list[dict]:
        common = self.describe_case(case)
        return [common | dict(slice=z, stride=self.stride, target=self.target, indices=window_indices(
            z, common['depth'], self.slices, self.stride)) for z in range(common['depth'])]


@TRANSFORMS.register_module()
class LoadWindow(BaseTransform):
    """Read a window and its label planes.

    Sets `window` (C * S, H, W) and `planes` (1 or S, H, W), both in the types that they are stored in.
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
    """An endless shuffle of windows, or of the cases of crops, dealt out to the processes in turn.

    Yields (index, seed of its augmentation), both functions of the place in the shuffle: they are the same for any
    number of processes and of loader workers, and after a resumption.

    Args:
        dataset: of N samples.
        seed: of the shuffle.
    """

    def __init__(self, dataset: PreparedDataset, seed: int | None = None):
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

    def __init__(self, dataset: PreparedDataset, seed: int | None = None):
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
