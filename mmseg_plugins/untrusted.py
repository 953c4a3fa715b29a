"""What files from elsewhere may say: JSON of a known shape, names that stay names, paths that stay inside."""

import json
import os
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import UserError, nearest

NUMBER = (int, float)  # for find_fault
LONGEST_NAME = 100  # characters; file systems allow 255 bytes, and names are joined to longer ones


def read_json(path: Path, remedy: str) -> Any:
    """A JSON file's content, in any of Unicode's encodings, with or without a byte-order mark.

    Raises:
        UserError: not JSON, with the remedy; a key stands twice, or a number is none.
        FileNotFoundError: no such file.
    """
    content = path.read_bytes()
    try:
        return json.loads(content, object_pairs_hook=each_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        what = _recognise(content)
        raise UserError(f'{path}: {f"{what}, not JSON" if what else f"not readable as JSON ({error})"}; {remedy}'
                        ) from error


def each_once(pairs: list[tuple[str, Any]]) -> dict:
    """A mapping of JSON, as `json.loads` takes an `object_pairs_hook`.

    Raises:
        ValueError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f'the key {twice[:LONGEST_NAME]!r} stands twice')
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is no number')


def _recognise(content: bytes) -> str | None:
    """What the commonest files of a wrong kind are."""
    start = content[:200].lstrip().lower()
    if not start:
        return 'an empty file'
    for beginning, kind in ((b'<', 'a web page or XML'), (b'version https://git-lfs', 'a Git LFS pointer'),
                            (b'\x1f\x8b', 'compressed by gzip'), (b'pk\x03', 'a zip archive')):
        if start.startswith(beginning):
            return kind
    return None


def check_name(name: str, where: str) -> str:
    """A name that becomes a folder's and is printed: one visible line that leads nowhere else.

    Raises:
        UserError: begins with `where`.
    """
    if (not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME or name.startswith('.')
            or set(name) & set('/\\')):
        raise UserError(f'{where}: {name[:LONGEST_NAME]!r} cannot be a name, which becomes a folder\'s; use '
                        'letters, digits, - and _')
    return name


def find_twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are equal but for capitals, spaces or how accents are composed; None: all differ."""
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize('NFC', ' '.join(name.split())).casefold()
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def check_inside(root: Path, relative: str, named_by: Path) -> Path:
    """The file below `root` that another file names.

    `root` itself may be a link to wherever the archive is; a link in it that leads out of it may not.

    Raises:
        UserError: it is not below `root`.
    """
    path = root / relative
    parts = Path(relative).parts
    if (relative.isprintable() and not os.path.isabs(relative) and '..' not in parts
            and max((len(part.encode()) for part in parts), default=0) <= 255):
        try:
            if path.resolve().is_relative_to(root.resolve()):
                return path
        except (OSError, RuntimeError):  # a link to itself
            pass
    raise UserError(f'{named_by}: names {relative[:LONGEST_NAME]!r}, outside its own folder; bring it below '
                    '(a link may lead to the whole folder, none out of it)')


def find_fault(found: Any, wanted: Any, where: str = '') -> str | None:
    """The first place where JSON content is not as a table wants it; None: it is.

    Args:
        wanted: by key, a type, None, a tuple of either, [each entry's], or such a table of its own.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        faults = (find_fault(found[key], kind, f'{where}.{key}'.lstrip('.')) if key in found else
                  f'{where or "the record"} has no {key!r}' for key, kind in wanted.items())
    elif isinstance(wanted, list) and isinstance(found, list):
        faults = (find_fault(entry, wanted[0], f'{where}[{i}]') for i, entry in enumerate(found))
    else:
        # by type itself, as true is no number
        fits = any(isinstance(found, type(kind)) and not find_fault(found, kind) if isinstance(kind, dict | list)
                   else type(found) is (kind or type(None))
                   for kind in (wanted if isinstance(wanted, tuple) else [wanted]))
        faults = () if fits else (f'{where} cannot be {_show(found)}',)
    return next(filter(None, faults), None)


def _show(value: Any) -> str:
    """As JSON has it, shortened: content may be many times larger in print than in a file."""
    scalar = value is None or isinstance(value, str | int | float)
    return (json.dumps(value) if scalar else reprlib.repr(value))[:40]


def find_unknown(found: dict, known: dict, where: str = '') -> str | None:
    """The first key of JSON content that a table does not have, with the nearest that it has; None: none."""
    for key, value in found.items():
        if key not in known:
            return f'unknown key {f"{where}.{key}".lstrip(".")[:LONGEST_NAME]!r}{nearest(key, known)}'
        entries: Iterable = value if isinstance(value, list) else [value]
        kind = known[key][0] if isinstance(known[key], list) else known[key]
        for entry in entries:
            if isinstance(kind, dict) and isinstance(entry, dict):
                if fault := find_unknown(entry, kind, f'{where}.{key}'.lstrip('.')):
                    return fault
    return None
