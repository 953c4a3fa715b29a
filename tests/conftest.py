"""Shared pieces: a prepared phantom of a few small cases, and where the real data is."""

import gc
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import torch

import mmseg_plugins  # noqa: F401
from mmseg_plugins.datasets.prepare import prepare_dataset

torch.set_num_threads(1)
REPO = Path(__file__).parents[1]


def pytest_collection_finish() -> None:
    gc.freeze()  # what the tests import is no garbage either (mmseg_plugins/startup.py)


@pytest.fixture(autouse=True)
def figures_end_with_their_test():
    yield
    if drawing := sys.modules.get('matplotlib.pyplot'):
        drawing.close('all')


def documentation() -> str:
    """README and the pages of docs/."""
    return '\n'.join(path.read_text() for path in (REPO / 'README.md', *sorted((REPO / 'docs').glob('*.md'))))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def wait_for(condition: Callable, seconds: float, what: str):
    """What `condition` returns as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f'{what} did not happen within {seconds} s'
        time.sleep(0.02)
    return found


def call_script(script: str, *arguments) -> int | None:
    """Run a script of the repository in this process, as its command line would; returns what its `main` does."""
    path = REPO / script
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with mock.patch.object(sys, 'argv', [path.name, *map(str, arguments)]):
        return module.main()


def call_tool(name: str, *arguments) -> int | None:
    return call_script(f'tools/{name}.py', *arguments)


def write_nifti(path: Path, array: np.ndarray, affine=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-2.0, -2.0, 3.0, 1.0]) if affine is None else affine), path)
    return path


def write_msd(root: Path, cases: int = 10, shape=(18, 21, 6), channels: int = 1, labels: int = 3, seed: int = 0
              ) -> Path:
    """A made-up Decathlon task: a bright ball of nested labels."""
    import json

    rng = np.random.default_rng(seed)
    names = [f'case_{number:03d}' for number in range(cases)]
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1)
    for name in names:
        radius = np.linalg.norm((grid - np.array(shape) / 2 - rng.normal(size=3)) / [5, 5, 3], axis=-1)
        label = sum((radius < 1 / k).astype(np.uint8) for k in range(1, labels))
        image = rng.normal(size=(*shape, channels)) * 5 + 100 + 50 * label[..., None]
        image = image[..., 0] if channels == 1 else image
        write_nifti(root / 'imagesTr' / f'{name}.nii.gz', image.astype(np.float32))
        write_nifti(root / 'labelsTr' / f'{name}.nii.gz', label)
    (root / 'dataset.json').write_text(json.dumps(dict(
        modality={str(i): f'm{i}' for i in range(channels)},
        labels={'0': 'background'} | {str(k): f'shell {k}' for k in range(1, labels)},
        training=[dict(image=f'./imagesTr/{n}.nii.gz', label=f'./labelsTr/{n}.nii.gz')
                  for n in names])))
    return root


@pytest.fixture(scope='session')
def msd_raw(tmp_path_factory) -> Path:
    return write_msd(tmp_path_factory.mktemp('raw') / 'Task04_Hippocampus')


@pytest.fixture(scope='session')
def prepared(msd_raw, tmp_path_factory) -> Path:
    """A prepared dataset of ten small cases in the Decathlon's layout."""
    folder = tmp_path_factory.mktemp('prepared') / 'hippocampus'
    assert prepare_dataset('hippocampus', msd_raw, folder).cases == 10
    return folder


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get('DATA_ROOT', REPO.parent / 'shared' / 'data'))
    if not (root / 'Task04_Hippocampus' / 'dataset.json').is_file():
        pytest.skip(f'no real data under {root} (set DATA_ROOT)')
    return root
