"""Signals that ask a run to end: heeded between two steps, then passed on to whoever listened before."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Stopped

# Ctrl-C; kill, scancel and preemption; Slurm's --signal, which submitit sets to USR2.
WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """While the block runs, a signal is noted instead of ending the process.

    `received` is its number, or None. Signals that are ignored stay so: whoever started the process decides.
    """

    def __init__(self):
        self.received: int | None = None
        self._before: dict[int, object] = {}
        self._at_once = False

    def __enter__(self) -> 'StopRequest':
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame) -> None:
        self.received = number
        if self._at_once:
            self.deliver()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this block nothing can be lost, so a signal need not wait for its end."""
        if self.received:
            self.deliver()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def deliver(self) -> None:
        """Let the signal do what it would have done before: submitit requeues the job, Ctrl-C interrupts.

        Raises:
            Stopped: where that did not end the process.
        """
        number = self.received or signal.SIGTERM
        handler = self._before.get(number)
        self.__exit__()
        if callable(handler):
            handler(number, None)
        raise Stopped(number)
