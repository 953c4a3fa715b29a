"""Checkpoints are read as data: nothing in a file can run, and a damaged file, or one of another format, is named.

What a file is its content tells, whatever its name: torch.save's archive or pickle, safetensors, NumPy's archive.

torch's restricted unpickler runs what it is told is safe, so what it is told matters. What checkpoints hold beside
tensors is not safe as it is: a numpy dtype takes flags from the file that make numbers pointers, and the builtin
`getattr` leads from any object to `__globals__`. Stand-ins under their names build plain numbers and mmengine's
histories, and refuse all else.
"""

import argparse
import io
import json
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from safetensors import safe_open
from safetensors.torch import load_file

from .errors import UserError
from .untrusted import CHECKED

NUMBERS = re.compile(r'(b1|[iu][1248]|f[248])')


def _stands_for(*names: str) -> Callable:
    """Mark a stand-in with the module and name that pickles call it by."""
    def mark(stand_in):
        stand_in.__module__, _, stand_in.__name__ = names[0].rpartition('.')
        stand_in.__qualname__ = stand_in.__name__
        return stand_in
    return mark


def _need(fits: bool, what: str) -> None:
    if not fits:
        raise pickle.UnpicklingError(f'{what} that mmengine does not write')


@_stands_for('numpy.dtype')
class _Dtype:
    """A dtype of plain numbers; `__setstate__` takes its byte order and nothing else."""

    def __init__(self, code: str, *_):
        _need(isinstance(code, str) and NUMBERS.fullmatch(code), 'a dtype')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *rest = state
        _need(order in ('<', '>', '|') and rest == [None, None, None, -1, -1, 0], 'a dtype')
        self.dtype = self.dtype.newbyteorder(order)


def _scalar(dtype: _Dtype, content: bytes) -> np.generic:
    _need(isinstance(dtype, _Dtype) and isinstance(content, bytes), 'a number')
    return np.frombuffer(content, dtype.dtype, 1)[0]


@_stands_for('_codecs.encode')
def _encode(text: str, encoding: str) -> bytes:
    """How the bytes of numbers are pickled; torch 2.4 does not know it."""
    _need(encoding == 'latin1', 'an encoding')
    return text.encode(encoding)


def _named(function: Callable, module: str, name: str) -> Callable:
    """Another function of the same content, as numpy has moved its own."""
    def stand_in(*args):
        return function(*args)
    return _stands_for(f'{module}.{name}')(stand_in)


# mmengine's own checkpoints hold histories of what was logged: numpy arrays, and the builtin `getattr`.

@_stands_for('numpy.ndarray')
class _Array:
    """An array to be; `value` is there once the state was."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        _need(isinstance(dtype, _Dtype) and isinstance(content, bytes), 'an array')
        self.value = np.frombuffer(content, dtype.dtype).reshape(shape, order='F' if fortran else 'C').copy()


def _reconstruct(kind: type, *_) -> _Array:
    _need(kind is _Array, 'an array')
    return _Array()


@_stands_for('mmengine.logging.history_buffer.HistoryBuffer')
class _History(HistoryBuffer):
    """A history, which keeps its statistics methods whatever the file says they are."""

    def __setstate__(self, state: dict) -> None:
        arrays = {name: state[name].value for name in ('_log_history', '_count_history')}
        limit = state['max_length']
        _need(type(limit) is int, 'a history')
        self.__dict__.update(arrays, max_length=limit)
        self._set_default_statistics()
        self.__class__ = HistoryBuffer


@_stands_for('builtins.getattr')
def _getattr(kind: type, name: str) -> str:
    """A history's own method, which is pickled as `getattr(HistoryBuffer, name)`; nothing needs the method."""
    _need(kind is _History and name in ('min', 'max', 'current', 'mean'), 'a look-up')
    return name


def _finish_arrays(value: Any, seen: dict[int, Any]) -> Any:
    """The same containers with numpy's arrays where their stand-ins are."""
    if isinstance(value, _Array):
        return value.value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = value
    if isinstance(value, dict):
        for key in value:
            value[key] = _finish_arrays(value[key], seen)
    elif isinstance(value, list):
        value[:] = [_finish_arrays(entry, seen) for entry in value]
    elif type(value) is tuple:
        seen[id(value)] = value = tuple(_finish_arrays(entry, seen) for entry in value)
    return value


SAFE = [_Dtype, _encode, _Array, _History, _getattr, argparse.Namespace,  # in which DINO's carry their options
        *(_named(function, f'numpy.{core}.multiarray', name) for core in ('core', '_core')
          for function, name in ((_scalar, 'scalar'), (_reconstruct, '_reconstruct')))]


AGAIN = 'download it again, or take another'
PYTORCH = 'take the PyTorch file of its authors or of timm'
# How files begin that are taken for checkpoints, and what to do about them.
OTHERS = {
    rb'version https://git-lfs': ('a Git LFS pointer, not the file itself', 'fetch it with git lfs pull'),
    rb'\s*<': ('a page of HTML or XML, as servers send in a file\'s place', 'download it by its direct link'),
    rb'\x1f\x8b': ('compressed by gzip', 'unpack it with gunzip'),
    rb'BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf': ('compressed', 'unpack it first'),
    rb'\x89HDF': ('HDF5, as Keras and TensorFlow write it', PYTORCH),
    rb'\x93NUMPY': ('one NumPy array', PYTORCH),
    rb'GGUF': ('GGUF, of a language model', PYTORCH),
    rb'\x08.{1,40}(?i:onnx|pytorch)': ('ONNX, a graph', 'take the PyTorch file that it was exported from'),
    rb'\s*[\[{]': ('JSON, a description of weights', 'name the file that holds the weights'),
}


def check_format(path: Path) -> str:
    """`safetensors`, `npz`, or `torch` where a file may be torch's.

    Raises:
        UserError: it is none of them; says what it is and what to do.
    """
    with path.open('rb') as file:
        start = file.read(512)
    size = path.stat().st_size
    if not start:
        raise UserError(f'{path}: cannot be read (it is empty); {AGAIN}')
    if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < 2**32:
        return 'safetensors'
    if start.startswith(b'PK'):
        return _check_zip(path)
    for pattern, (what, remedy) in OTHERS.items():
        if re.match(pattern, start, re.DOTALL):
            raise UserError(f'{path}: cannot be read (it is {what}, {size} bytes); {remedy}')
    return 'torch'


def _check_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile has no one class for what is wrong with an archive
        raise UserError(f'{path}: cannot be read (an archive whose end is missing or damaged); {AGAIN}') from error
    ends = {name.rpartition('/')[2] for name in names}
    if 'constants.pkl' in ends:
        fault = ('TorchScript, a program, which is refused since it could run', 'save its state dict alone: '
                 'torch.save(torch.jit.load(FILE).state_dict(), OTHER)')
    elif 'data.pkl' in ends:
        return 'torch'
    elif names and all(end.endswith('.npy') for end in ends):
        return 'npz'
    else:
        fault = (f'a zip archive of {str(names[:3])[:120]}', 'unpack it, and name the checkpoint in it')
    raise UserError(f'{path}: cannot be read (it is {fault[0]}); {fault[1]}')


def load_checkpoint(path: str | Path, map_location: Any = 'cpu') -> Any:
    """What a file holds, of torch.save (containers, text, numbers, tensors, arrays, mmengine's histories),
    safetensors or numpy.savez (tensors of its arrays, on the CPU).

    Raises:
        UserError: missing, damaged, or holding anything else.
    """
    path = Path(path).expanduser()
    others = torch.serialization.get_safe_globals()  # of other packages, which may allow more
    try:
        kind = check_format(path)
        if kind == 'safetensors':
            return load_file(path)
        if kind == 'npz':
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        _check_archive(path)
        # what is no archive is given whole: in a file, a torn length would ask for as much memory; and an archive
        # as an open file, since torch goes by the name of one that is called .safetensors
        content = path.open('rb') if zipfile.is_zipfile(path) else io.BytesIO(path.read_bytes())
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(SAFE)
        with content, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of pickles of odd versions, which are read or refused all the same
            return _finish_arrays(torch.load(content, map_location=map_location, weights_only=True), {})
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f'{path}: checkpoint not found') from None
    except pickle.UnpicklingError as error:
        raise UserError(f'{path}: holds more than tensors, or is no checkpoint; refused, since reading it could '
                        'run code. Save its state dict alone with torch.save') from error
    except Exception as error:  # torch has no one class for what is wrong with a file
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise UserError(f'{path}: cannot be read ({reason}); {AGAIN}') from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def load_trained(path: str | Path) -> Any:
    """What a checkpoint of a training holds, of mmengine's kind or exported (export.py): `state_dict` and `meta`.

    Raises:
        UserError: it is not there, or cannot be read.
    """
    path = Path(path).expanduser()
    content = load_checkpoint(path)
    if check_format(path) != 'safetensors':
        return content
    with safe_open(path, 'pt') as file:
        text = (file.metadata() or {}).get('carried')
    try:
        return dict(state_dict=content, meta=dict(carried=text and json.loads(text, **CHECKED)))
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path}: what it carries cannot be read ({error}); export it again') from error


def _check_archive(path: Path) -> None:
    """Checksums and sizes of a torch file, which torch itself does not look at."""
    if not zipfile.is_zipfile(path):  # torch before 1.6
        if tarfile.is_tarfile(path):  # before 0.1.10; torch before 2.6 unpickles those without restriction
            raise pickle.UnpicklingError('a tar archive')
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if (any(member.compress_type != zipfile.ZIP_STORED for member in members)
                or sum(member.file_size for member in members) > path.stat().st_size):
            raise ValueError('it is compressed, as no checkpoint is')
        if name := archive.testzip():
            raise ValueError(f'damaged: {name} does not have its checksum')
