"""What files from elsewhere may say: JSON of a known shape, names that stay names, paths that stay inside."""

import json
import os
import reprlib
import sys
import unicodedata
from collections.abc import Iterable
from itertools import starmap
from pathlib import Path
from typing import Any

from .errors import UserError, nearest

LONGEST_NAME = 100  # characters; file systems allow 255 bytes, and names are joined to longer ones
OTHERS = {str: object}  # for find_fault: a mapping may have other keys


def read_json(path: Path, remedy: str) -> Any:
    """A JSON file's content, in any of Unicode's encodings, with or without a byte-order mark.

    Raises:
        UserError: not JSON, with the remedy; a key stands twice, or a number is none.
        FileNotFoundError: no such file.
    """
    content = path.read_bytes()
    try:
        return json.loads(content, **CHECKED)
    except (ValueError, RecursionError) as error:
        what = _recognise(content)
        raise UserError(f'{path}: {f"{what}, not JSON" if what else f"not readable as JSON ({error})"}; {remedy}'
                        ) from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'the key {key[:LONGEST_NAME]!r} stands twice')
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f'it holds {name}, and {name} is no number')


CHECKED = dict(object_pairs_hook=_each_once, parse_constant=_refuse_constant)  # for json.loads


def _recognise(content: bytes) -> str | None:
    """What the commonest files of a wrong kind are."""
    kinds = {b'<': 'a web page or XML', b'version https://git-lfs': 'a Git LFS pointer',
             b'\x1f\x8b': 'compressed by gzip', b'pk\x03': 'a zip archive'}
    start = content[:200].lstrip().lower()
    return next((kind for beginning, kind in kinds.items() if start.startswith(beginning)),
                None if start else 'an empty file')


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
    """The first place where content of a JSON or YAML file is not as it must be; None: it is.

    Args:
        wanted: a type, None, [each entry's], {key: its value's}, or a tuple of alternatives. `float` is any finite
            number, `object` is anything, and true is no number. A key with `...` among its alternatives may be
            missing; `str` stands for all keys that are not named, which are else refused.
        where: what of the file is looked at, as `cost`.
    """
    for kind in wanted if isinstance(wanted, tuple) else (wanted,):
        if isinstance(kind, dict) and isinstance(found, dict):
            for key in [*found, *kind]:
                if key not in kind and str not in kind:
                    return f'unknown key {f"{where}.{key}".lstrip(".")[:LONGEST_NAME]!r}{nearest(key, kind)}'
                if key not in found and key is not str and not (isinstance(kind[key], tuple) and ... in kind[key]):
                    return f'{where or "the record"} has no {key!r}'
            parts = [(value, kind.get(key, kind.get(str)), f'{where}.{key}'.lstrip('.'))
                     for key, value in found.items()]
            return next(filter(None, starmap(find_fault, parts)), None)
        if isinstance(kind, list) and isinstance(found, list):
            parts = [(entry, kind[0], f'{where}[{i}]') for i, entry in enumerate(found)]
            return next(filter(None, starmap(find_fault, parts)), None)
        if kind is float:
            fits = type(found) in (int, float) and abs(found) <= sys.float_info.max
        else:
            fits = kind is object or type(found) is (kind or type(None))  # itself: true is an int to Python
        if fits:
            return None
    return f'{where or "the record"} cannot be {_show(found)}'


def _show(value: Any) -> str:
    """As JSON has it, shortened: content may be many times larger in print than in a file."""
    scalar = value is None or isinstance(value, str | int | float)
    return (json.dumps(value) if scalar else reprlib.repr(value))[:40]
