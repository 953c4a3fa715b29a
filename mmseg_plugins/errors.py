"""A user's mistake is one line on standard error and exit status 2, never a traceback."""

import difflib
import errno
import math
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """What is wrong and what to do about it, in one line that names the file or the option."""


class Busy(UserError):
    """Another process is at this work."""


class OutOfMemory(UserError):
    """A step did not fit; `facts` say the peak in MiB, and the windows of a pass."""

    def __init__(self, message: str, **facts):
        super().__init__(message)
        self.facts = facts


class Stopped(BaseException):
    """A signal asked for the end. Like KeyboardInterrupt no fault, so that nothing records it as one."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...` for a misspelt name, else the list of known ones, or of the first of very many."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), known, n=1)
    return f'; did you mean {close[0]!r}?' if close else f'; known: {some(known, 40)}' if known else ''


def check_number(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """The value of a constructor's argument, if it is a number in a range.

    Raises:
        ValueError: names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f'{name}={value!r} must be a number from {least} to {most}')
    return value


def some(names: Iterable[str], most: int = 5) -> str:
    """Names in a row; of many, the first few and how many more there are."""
    names = list(names)
    more = f' and {len(names) - most} more' if len(names) > most + 1 else ''
    return ', '.join(names[:most] if more else names) + more


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and turn its outcome into an exit status (0, 2, or 128 and a signal's number)."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, raise_stopped)  # so that what is under way is tidied up
    try:
        check_given_once(sys.argv[1:])
        sys.exit(main() or 0)
    except UserError as error:
        sys.exit(_fail(f'error: {error}', 2))
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        sys.exit(_fail(f'error: {_describe(error)}', 2))
    except (KeyboardInterrupt, Stopped) as end:
        number = getattr(end, 'number', signal.SIGINT)
        sys.exit(_fail(f'stopped by {signal.Signals(number).name}; to go on from the last checkpoint call again: '
                       'a grid as it was, training with --resume', 128 + number))


def check_given_once(arguments: Iterable[str]) -> None:
    """Of an option that is given twice, argparse would keep the last and say nothing; KEY=VALUE are added up.

    Raises:
        UserError: names it.
    """
    seen = set()
    for option in (word.partition('=')[0] for word in arguments if word.startswith('--')):
        if option in seen and option != '--cfg-options':
            raise UserError(f'{option} is given twice; leave one out')
        seen.add(option)


def raise_stopped(number: int, _frame) -> None:
    """A signal's handler."""
    raise Stopped(number)


def _describe(error: OSError) -> str:
    if error.errno in FULL:
        return f'{error.filename or "disk"}: no space left; free some and call again, nothing is half written'
    remedy = ('allow it (chmod), or name another place' if isinstance(error, PermissionError) else
              'a file is in the way of a folder; name another place'
              if isinstance(error, FileExistsError | NotADirectoryError) else 'name another')
    return f'{error.filename}: {error.strerror.lower()}; {remedy}'


def _fail(line: str, status: int) -> int:
    sys.stderr.write(f'{line}\n')  # at once: several processes may say theirs, and print would break the line
    return status
