"""Commands for the user to paste: they run as they were printed, whatever folder the shell is in."""

import os
import shlex
import shutil
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def command(script: str, *arguments: str | Path) -> str:
    """The shell line that calls a script of this repository with the present interpreter.

    Paths are absolute, except what is below the repository's root where that is the current folder.

    Args:
        script: as `tools/train.py`, from the repository's root; one that is not Python's is called by itself.
        arguments: a `Path` names a file or folder, relative to the current folder; a text stands as it is.
    """
    at_home = Path.cwd() == REPO

    def place(path: Path) -> str:
        path = Path(os.path.abspath(path))
        return str(path.relative_to(REPO) if at_home and path.is_relative_to(REPO) else path)

    interpreter = [_interpreter()] if script.endswith('.py') else []
    return shlex.join([*interpreter, *(place(word) if isinstance(word, Path) else str(word)
                                       for word in (REPO / script, *arguments))])


def _interpreter() -> str:
    """`python` where the shell finds the present one by that name, else its path.

    The folders count too: the interpreters of several virtual environments may be links to one file.
    """
    found = shutil.which('python') or ''
    places = {(os.path.realpath(os.path.dirname(path)), os.path.realpath(path))
              for path in (sys.executable, found)}
    return 'python' if len(places) == 1 else sys.executable
