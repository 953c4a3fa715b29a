"""What is written on a command line becomes paths and, with `--cfg-options KEY=VALUE`, a config's values."""

import argparse
import ast
import os
import re
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from .errors import UserError
from .keys import KEYS


class ConfigOptions(argparse.Action):
    """KEY=VALUE arguments as a dict of a config's places and their values; with `const`, an option that is one.

    Text of `experiment` is taken as it is written, so that a path may hold anything. Other values are Python's, or
    mmengine's short forms (`a=1,2`, `a=[x,y]`).

    Raises:
        UserError: no KEY=VALUE, the same key twice, or a value that could be taken in two ways.
    """

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for argument in values or [self.const]:
            key, equals, text = argument.partition('=')
            if not equals or not key:
                raise UserError(f'{option_string} {argument}: write it as KEY=VALUE, and quote what holds blanks')
            if key in options:
                raise UserError(f'{option_string}: {key} is given twice; leave one out')
            options[key] = parse_value(key, text)
        setattr(namespace, self.dest, options)


def path(text: str) -> Path:
    """A file or folder; `~`, which shells leave alone in `--option=~/file` and in quotes, is the user's home."""
    return Path(os.path.expanduser(text))


def add_config_options(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, default={}, metavar='KEY=VALUE',
                        help=f'override settings, e.g. {example}')


def add_amp(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--amp', dest='cfg_options', nargs=0, action=ConfigOptions, default={},
                        const='experiment.precision=bf16',
                        help='bfloat16 mixed precision: short for --cfg-options experiment.precision=bf16')


def parse_value(key: str, text: str) -> Any:
    """What the text of an option says.

    Raises:
        UserError: names the option.
    """
    part, _, name = key.partition('.')
    if part == 'experiment' and name in KEYS and KEYS[name].text:
        return None if text == 'None' else text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    if ',' not in text and not text.startswith(('[', '(')):
        return DictAction._parse_int_float_bool(text.strip('\'"'))
    if re.search(r'[^\s,\[(]\s+[^\s,\])]', text):  # mmengine's form would lose the blank
        raise UserError(f'--cfg-options {key}={text}: a blank within a list; put its texts into quotes: '
                        f'\'{key}=["a b", 1]\'')
    try:
        return DictAction._parse_iterable(text)
    except AssertionError:
        raise UserError(f'--cfg-options {key}={text}: its brackets do not match') from None


def format_value(key: str, value: Any) -> str:
    """A value as the text that `parse_value` takes for it."""
    text = str(value)
    return text if parse_value(key, text) == value else repr(value)
