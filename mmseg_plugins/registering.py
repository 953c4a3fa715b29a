"""How a name is given to what this project or a user adds: an inflation, a lifting, a metric, a layout, ..."""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from .errors import UserError, nearest

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


def parse_entry(text: str, known: Mapping[str, Callable | None], what: str,
                least: Mapping[str, float] | None = None) -> tuple[str, dict[str, float]]:
    """A name with a number in brackets, which is its first argument that has a default: `gaussian(0.5)` ->
    ('gaussian', {'sigma': 0.5}).

    Args:
        text: as a user wrote it.
        known: what there is by name.
        what: the kind of thing, for the message.
        least: the smallest number of those that have one.

    Raises:
        UserError: there is no such name, or it does not take this number.
    """
    match = re.fullmatch(r'(\w+)(?:\(([^()]*)\))?', str(text))
    name, number = match.groups() if match else (text, None)
    if name not in known:
        raise UserError(f'unknown {what} {text!r}{nearest(name, known)}')
    if number is None:
        return name, {}
    entry, least = known[name], least or {}
    options = [parameter for parameter in inspect.signature(entry).parameters.values()
               if parameter.default is not parameter.empty] if entry else []
    try:
        value = float(number)
        if options and math.isfinite(value) and value >= least.get(name, -math.inf):
            if type(options[0].default) is not int:
                return name, {options[0].name: value}
            if value.is_integer():
                return name, {options[0].name: int(value)}
    except ValueError:
        pass
    number = 'whole' if options and type(options[0].default) is int else 'finite'
    at_least = f', at least {least[name]}' if name in least else ''
    takes = f'takes one number, {options[0].name} ({number}{at_least})' if options else 'takes no number'
    raise UserError(f'{what} {text!r}: {name} {takes}')
