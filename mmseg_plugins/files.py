"""Files are written whole or not at all, and a folder has one writer."""

import fcntl
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from .errors import FULL, Busy, UserError


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether both lead to one file that is there, by whatever path or link."""
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces; once per process, unless it is written anew."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@cache
def _sha256(path: Path, *_stat: int) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_output(path: Path, what: str, inputs: Iterable[str | Path], overwrite: bool = False,
                 within: Iterable[str | Path] = ()) -> None:
    """Refuse a file to write that would cost another, or that cannot be written, before work is done for it.

    Its folder is made.

    Args:
        what: is to be written there, to be read before `would overwrite`.
        inputs: files that the work reads; the output is none of them.
        overwrite: whether it may be there already.
        within: folders that the work reads; it is in none of them.

    Raises:
        UserError: it is an input or a folder, or it is there.
        OSError: it cannot be written; names it.
    """
    if any(is_same_file(path, file) for file in inputs) or any(
            path.resolve().is_relative_to(Path(folder).resolve()) for folder in within):
        raise UserError(f'{path}: {what} would overwrite this input; name another file to write')
    if path.is_dir():
        raise UserError(f'{path}: a folder, {what} is a file; name one in it')
    if os.path.lexists(path) and not overwrite:
        raise UserError(f'{path}: {what} would overwrite this file; name another to write, or give --overwrite')
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _open_beside(path)
    os.close(handle)
    os.unlink(temporary)


def write_atomic(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file beside its final place, sync it, and rename: never half written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = _open_beside(path)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    sync_folder(path.parent)


def _open_beside(path: Path) -> tuple[int, str]:
    """A new file in the folder of another, which will be renamed to that: (descriptor, path)."""
    try:
        return tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write content as JSON, which has no word for a figure of nothing: NaN becomes null.

    Raises:
        ValueError: an infinite number.
    """
    def without_nan(value):
        if isinstance(value, dict):
            return {key: without_nan(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [without_nan(entry) for entry in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    write_atomic(path, json.dumps(without_nan(content), indent=1, allow_nan=False) + '\n')


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: else a power cut could take a rename back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(path: Path) -> list[int]:
    """Size and time of a file, as long as it can be looked at; reading says what is wrong with it."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


@contextmanager
def only_writer(folder: Path, patience: float = 0) -> Iterator[int]:
    """Hold a folder while the block runs; the lock goes with the process, however it ends.

    Args:
        patience: seconds to wait for another process, which may be about to end.

    Yields:
        The lock's descriptor: a child process that inherits it holds the folder as well.

    Raises:
        Busy: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience
    with open(folder / '.lock', 'w') as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Busy(f'{folder}: another process is at work here; wait for it, or end it and call '
                               'again') from None
                time.sleep(0.2)
            except OSError as error:
                raise UserError(f'{folder}: cannot be locked ({error.strerror}); the disk must know flock: choose '
                                'another, or mount it with locks') from None
        yield file.fileno()
