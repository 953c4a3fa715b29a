"""Commands for the user to paste: they run as they were printed, whatever folder the shell is in."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parents[1]
# the repository's root; installed, what holds its folders (setup.cfg)
REPO = _HERE / 'mmseg_inflation' if (_HERE / 'mmseg_inflation').is_dir() else _HERE


def command(script: str, *arguments: str | Path | tuple[str, Any], modules: Sequence[Path] = (),
            portable: bool = False) -> str:
    """The shell line that calls a script of this repository with the present interpreter.

    Args:
        script: as `tools/train.py`, from the repository's root; one that is not Python's is called by itself.
        arguments: a `Path` names a file or folder, relative to the current folder; a pair is KEY=VALUE; a text
            stands as it is.
        modules: folders that hold modules of the user's own.
        portable: for another machine, from its repository's root: nothing is told of where this one is.
    """
    def place(path: Path) -> str:
        path = Path(os.path.abspath(path))
        return str(path.relative_to(REPO) if portable and path.is_relative_to(REPO) else path)

    def word(argument: str | Path | tuple[str, Any]) -> str:
        if isinstance(argument, tuple):
            return f'{argument[0]}={word(argument[1])}'
        return place(argument) if isinstance(argument, Path) else str(argument)

    folders = os.pathsep.join(dict.fromkeys(map(place, modules)))
    python = ['python' if portable else _interpreter()] if script.endswith('.py') else []
    return shlex.join([*(['env', f'PYTHONPATH={folders}'] if folders else []), *python, place(REPO / script),
                       *map(word, arguments)])


def _interpreter() -> str:
    """`python` where the shell finds the present one by that name, else its path.

    The folders count too: the interpreters of several virtual environments may be links to one file.
    """
    found = shutil.which('python') or ''
    places = {(os.path.realpath(os.path.dirname(path)), os.path.realpath(path))
              for path in (sys.executable, found)}
    return 'python' if len(places) == 1 else sys.executable
