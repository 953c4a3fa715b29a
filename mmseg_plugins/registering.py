"""How a name is given to what this project or a user adds: an inflation, a metric, a layout, an executor."""

from collections.abc import Callable
from typing import TypeVar

Entry = TypeVar('Entry')


def register_once(known: dict[str, Entry], name: str, what: str) -> Callable[[Entry], Entry]:
    """A decorator that enters what it stands above into `known`.

    Raises:
        KeyError: there is one of this name, which nothing may silently replace.
    """
    def register(entry: Entry) -> Entry:
        if name in known:
            raise KeyError(f'{what} {name!r} is registered already')
        known[name] = entry
        return entry
    return register
