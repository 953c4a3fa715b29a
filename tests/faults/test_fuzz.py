"""Seeded mutations of every kind of file: each ends in one clear line or in a correct result, and nothing else.

Other seeds than those of every day: FUZZ_SEEDS="100 1100" python -m pytest tests/faults/test_fuzz.py
"""

import copy
import gzip
import io
import json
import os
import random
import signal
import tracemalloc
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from conftest import REPO, write_msd
from safetensors.torch import save

from benchmarks.grid.reader import GRIDS, load_grid
from benchmarks.runs.records import read_records, seal
from mmseg_plugins.checkpoints import read_checkpoint
from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.layouts import describe_folder, find_cases
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.verification import verify_dataset
from mmseg_plugins.datasets.volumes import read_volume
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import read_config
from mmseg_plugins.safe_load import load_checkpoint

SECONDS, MEMORY = 10, 64 * 2**20  # of one input, which is some kilobytes
SEEDS = range(*map(int, os.environ.get('FUZZ_SEEDS', '0 100').split()))
ODD = [None, True, -1, 0, 2**31, 10**400, 1e308, float('inf'), '', '..', '../../etc/passwd', '/dev/zero', 'a\nb',
       'a\0b', '\ud800', '💥' * 300, [], {}, [[]], {'a': {}}, 'NaN', [None], '0', 0.5]


class Hang(BaseException):
    """Not an Exception, so that no handler takes it for a fault of the file."""


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flipped bits, a lost end, lost, doubled or random pieces."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        start = rng.randrange(len(data) + 1) if rng.random() < 0.6 else rng.randrange(min(len(data), 352) + 1)
        piece = slice(start, start + rng.choice([1, 2, 4, 30]))
        kind = rng.randrange(6)
        if kind < 2 and start < len(data):
            data[start] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[start:]
        elif kind == 3:
            del data[piece]
        elif kind == 4:
            data[start:start] = data[piece]
        else:
            data[piece] = rng.randbytes(len(data[piece]))
    return bytes(data)


def mutate_tree(tree, rng: random.Random):
    """JSON or YAML content with a value, type or key exchanged, lost, doubled or nested deep."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 2, 5])):
        places = []

        def collect(node, places=places):
            for key in (node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()):
                places.append((node, key))
                collect(node[key])

        collect(tree)
        if not places:
            return rng.choice(ODD)
        (node, key), (other, its) = rng.choice(places), rng.choice(places)
        kind = rng.randrange(6)
        if kind < 2:
            node[key] = copy.deepcopy(rng.choice(ODD))
        elif kind == 2:
            del node[key]
        elif kind == 3:
            node[key] = copy.deepcopy(other[its])
        elif kind == 4 and isinstance(node, dict):
            node[rng.choice([str(key) + 's', '', '..', '💥', str(key)[1:]])] = node.pop(key)
        else:
            for _ in range(rng.choice([3, 40])):
                node[key] = [node[key]] if rng.random() < 0.5 else {'a': node[key]}
    return tree


def mutate_text(tree, rng: random.Random, dump=json.dumps) -> bytes:
    """Mostly well-formed, sometimes not even that."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice([b'', b'\xff\xfe', b'[' * 10**5, b'{"a":' * 10**5, b'null', b'"text"', b'1' * 5000])
    text = dump(mutate_tree(tree, rng)).encode(errors='surrogatepass')
    return mutate_bytes(text, rng) if kind < 4 else text


@contextmanager
def limits():
    """Time and memory for one input."""
    def stop(*_):
        raise Hang(f'more than {SECONDS} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    except Hang as hang:
        pytest.fail(str(hang))
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*')}


def refusal(call, *names: str) -> str | None:
    """The line that a call ends in; None where it ends well. Any other exception goes on."""
    try:
        call()
    except UserError as error:
        check_line(str(error), *names)
        return str(error)
    return None


def check_line(line: str, *names: str) -> None:
    assert line.isprintable() and len(line) < 1500 and any(name in line for name in names), ascii(line)


@pytest.fixture(scope='module')
def archive(tmp_path_factory) -> Path:
    return write_msd(tmp_path_factory.mktemp('fuzz') / 'Task99_Fuzz', cases=3, shape=(9, 8, 4))


FIELDS = ['dim', 'dim', 'datatype', 'bitpix', 'pixdim', 'vox_offset', 'scl_slope', 'scl_inter', 'qform_code',
          'sform_code', 'srow_x', 'srow_y', 'magic', 'sizeof_hdr', 'quatern_b', 'xyzt_units']
FLOATS = [np.nan, np.inf, -np.inf, 0, -1, 1e30, 1e-30, 3.4e38, 348, 2.5]
INTEGERS = [0, 1, 2, 3, 5, 7, 8, 16, 32, 64, 128, 256, 1536, 1792, 2048, 32767, -1, -32768]


def mutate_volume(content: bytes, rng: random.Random) -> bytes:
    """A header's field, or any bytes, inside the compression or of it."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    plain = bytearray(gzip.decompress(content))
    if rng.random() < 0.7:
        fields = nib.Nifti1Header.template_dtype.fields
        for _ in range(rng.choice([1, 1, 2])):
            kind, start = fields[rng.choice(FIELDS)][:2]
            single = kind.base
            place = start + single.itemsize * rng.randrange(max(kind.itemsize // single.itemsize, 1))
            value = np.frombuffer(rng.randbytes(single.itemsize), 'u1')
            if single.kind in 'fi':
                value = np.array(rng.choice(FLOATS if single.kind == 'f' else INTEGERS)).astype(single)
            data = value.tobytes()[:single.itemsize]
            plain[place:place + len(data)] = data
        mutated = bytes(plain)
    else:
        mutated = mutate_bytes(bytes(plain), rng)
    return gzip.compress(mutated, 1)


@pytest.mark.parametrize('seed', SEEDS)
def test_volumes(archive, tmp_path, seed):
    """Read as for prediction, verification or preparation: refused, or finite and of the header's shape."""
    rng = random.Random(seed)
    broken = rng.choice(['imagesTr', 'labelsTr']), f'case_00{rng.randrange(3)}.nii.gz'
    raw = tmp_path / archive.name
    for part in ('imagesTr', 'labelsTr'):
        (raw / part).mkdir(parents=True)
        for path in (archive / part).iterdir():
            (raw / part / path.name).write_bytes(path.read_bytes())
    (raw / 'dataset.json').write_text((archive / 'dataset.json').read_text())
    path = raw.joinpath(*broken)
    mutated = mutate_volume(path.read_bytes(), rng)
    path.write_bytes(mutated)
    plain = path.with_suffix('')  # the same without compression, as prediction may get it
    try:
        plain.write_bytes(gzip.decompress(mutated))
    except (OSError, EOFError, zlib.error):
        plain.write_bytes(mutated)
    before = files(raw)
    dataset = find_cases(describe_folder(raw, 'msd')[1], raw)
    for file in (path, plain):
        def read(file=file):
            volume = read_volume(file)
            assert np.isfinite(volume.image).all() and min(volume.image.shape) > 0
            header = nib.load(file).header.get_data_shape()
            assert sorted(volume.image.shape) == sorted((*header, 1)[:4]) and min(volume.spacing) > 0
        with limits():
            refusal(read, file.name)
    with limits():
        found = verify_dataset(dataset, workers=1)
        made = prepare_dataset('fuzz', raw, tmp_path / 'out', info=dataset.info, workers=1)
    assert files(raw) == before
    for line in found.lines:
        check_line(line, 'case_')
    assert set(found.facts) | set(found.faults) == set(dataset.cases) and made.cases == len(found.facts)
    assert {path.name for path in (tmp_path / 'out' / 'cases').iterdir()} == set(found.facts)
    assert set(read_index(tmp_path / 'out')['cases']) == set(found.facts)


NNUNET = dict(channel_names={'0': 'm0'}, labels={'background': 0, 'shell 1': 1, 'shell 2': 2}, numTraining=3,
              file_ending='.nii.gz')
FOLDS = [dict(train=['case_000', 'case_001'], val=['case_002'])]


@pytest.mark.parametrize('seed', SEEDS)
def test_descriptions_of_datasets(archive, prepared, tmp_path, seed):
    """dataset.json of both layouts, splits_final.json, and the index of a prepared dataset."""
    rng = random.Random(seed)
    kind = seed % 4
    if kind == 3:
        path = tmp_path / 'index.json'
        path.write_bytes(mutate_text(json.loads((prepared / 'index.json').read_text()), rng))
        with limits():
            refusal(lambda: read_index(tmp_path), 'index.json')
        return
    raw = tmp_path / 'Task99_Fuzz'
    for part in ('imagesTr', 'labelsTr'):
        (raw / part).mkdir(parents=True)
        for file in (archive / part).iterdir():
            name = file.name.replace('.nii', '_0000.nii') if kind and part == 'imagesTr' else file.name
            (raw / part / name).hardlink_to(file)
    content = NNUNET if kind else json.loads((archive / 'dataset.json').read_text())
    spoilt = mutate_text(FOLDS if kind == 2 else content, rng)
    (raw / 'dataset.json').write_bytes(json.dumps(content).encode() if kind == 2 else spoilt)
    if kind == 2:
        (raw / 'splits_final.json').write_bytes(spoilt)
    before = files(tmp_path)

    def read():
        dataset = find_cases(describe_folder(raw, 'nnunet' if kind else 'msd')[1], raw)
        for case in dataset.cases.values():
            assert all(path.resolve().is_relative_to(raw) for path in case.files)
        assert all(case in dataset.cases for names in dataset.split.values() for case in names)
        for line in verify_dataset(dataset, workers=1).lines:
            check_line(line, 'case_', '.nii', str(raw))

    with limits():
        refusal(read, 'splits_final.json' if kind == 2 else 'dataset.json', str(raw))
    assert files(tmp_path) == before


RECORDS = sorted((REPO / 'results').glob('*/records/*.json'))[::9]


@pytest.mark.parametrize('seed', SEEDS)
def test_records(tmp_path, seed):
    """With their checksum made anew in half of the cases; a record that counts has it."""
    rng = random.Random(seed)
    path = rng.choice(RECORDS)
    record = json.loads(path.read_text())
    content = mutate_text(record, rng)
    if seed % 2:
        tree = mutate_tree(record, rng)
        content = json.dumps(seal(tree) if isinstance(tree, dict) else tree).encode(errors='surrogatepass')
    (tmp_path / 'records').mkdir()
    (tmp_path / 'records' / path.name).write_bytes(content)
    before = files(tmp_path)
    with limits():
        records, left_out = read_records(tmp_path)
    assert len(records) + len(left_out) == 1 and files(tmp_path) == before
    for line in left_out.values():
        check_line(line, '')
    for read in records:
        assert read['checksum'] == seal(read)['checksum'] and set(read) <= {*record, 'attempts'}


@pytest.mark.parametrize('seed', SEEDS)
def test_grids(tmp_path, seed):
    """Cells of an accepted grid are whole: names that are files' names, and axes of their kinds."""
    rng = random.Random(seed)
    tree = yaml.safe_load(rng.choice(sorted(GRIDS.glob('*.yaml'))).read_text())
    path = tmp_path / 'fuzz.yaml'
    path.write_bytes(mutate_text(tree, rng, lambda tree: yaml.dump(tree, allow_unicode=True)))

    def read():
        grid = load_grid(str(path))
        for cell in grid.cells():
            config, crop = grid.configs.get(cell.encoder), None
            if isinstance(config, str):
                with suppress(UserError):  # there is none, which is told of when it is to be run
                    crop = read_config(REPO / config.replace('{dataset}', cell.dataset)).experiment.get('crop')
            if isinstance(config, dict) or crop:
                assert cell.slices is None
            else:
                assert type(cell.slices) is int and cell.slices > 0
            assert '/' not in str(cell) and str(cell).isprintable()

    with limits():
        refusal(read, 'fuzz.yaml', 'inflation')
    assert files(tmp_path) == {'fuzz.yaml'}


def checkpoints() -> dict[str, bytes]:
    """A small one in each published format, and what mmengine writes."""
    from mmengine.logging import HistoryBuffer

    state = {'patch_embed.proj.weight': torch.ones(4, 3, 2, 2), 'blocks.0.norm1.bias': torch.arange(9.0)}
    found = {'a.safetensors': save(state)}
    history = dict(log_scalars=dict(loss=HistoryBuffer([1.0, 2.0], [1, 1])), runtime_info=dict(x=np.float64(2)))
    for name, content, new in (('a.pth', dict(model=state), True), ('b.pth', dict(model=state), False), (
            'c.pth', dict(meta=dict(iter=3), state_dict=state, message_hub=history), True)):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=new)
        found[name] = buffer.getvalue()
    return found


@pytest.mark.parametrize('seed', SEEDS)
def test_checkpoints(tmp_path, seed):
    """Where the format has checksums, what is read is what was written."""
    rng = random.Random(seed)
    name, content = rng.choice(sorted(checkpoints().items()))
    path = tmp_path / name
    path.write_bytes(content)
    whole = read_checkpoint(path)
    path.write_bytes(mutate_bytes(content, rng))
    before = files(tmp_path)

    def read():
        state = read_checkpoint(path)
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        if name in ('a.pth', 'c.pth'):
            assert state.keys() == whole.keys() and all(torch.equal(state[key], whole[key]) for key in state)

    with limits():
        refusal(read, name)
        if path.suffix == '.pth':
            refusal(lambda: load_checkpoint(path), name)
    assert files(tmp_path) == before
