"""Progress of a grid: a bar with the time left on a terminal, plain lines elsewhere."""

import threading
from collections.abc import Callable, Hashable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mmseg_plugins import progress
from mmseg_plugins.progress import Lines, Pace

NAMED = 4  # jobs that a line names; of the others it gives the number


class Progress:
    """Steps of all jobs together; `bars` would be in a debugger's way."""

    def __init__(self, bars: bool = True):
        self.console = Console(soft_wrap=True, highlight=False)
        self._lines = bars and not self.console.is_terminal
        self._bars = Bars(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                          TimeRemainingColumn(), console=self.console, transient=True, speed_estimate_period=120,
                          disable=not bars or self._lines)
        self._steps: dict[Hashable, int] = {}
        self._done: dict[Hashable, int] = {}
        self._first: dict[Hashable, int] = {}
        self._ended: set[Hashable] = set()
        self._task = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> 'Progress':
        self._bars.start()
        if self._lines:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._bars.stop()
        self._over.set()
        if self._lines:
            self._thread.join()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def counter(self, title: str) -> Callable[[int, int, str], None]:
        """For work that is counted in items; its bar goes when all are done and none is named any more."""
        if self._lines:
            return Lines(title, self.say)
        task = self._bars.add_task(title, total=None)

        def count(done: int, total: int, item: str) -> None:
            self._bars.update(task, completed=done, total=total, description=f'{title} {item}')
            if done == total and not item:
                self._bars.remove_task(task)
        return count

    def begin(self, steps: dict[Hashable, int]) -> None:
        self._pace, self._steps = Pace(), steps
        if steps:
            self._task = self._bars.add_task('training steps', total=sum(steps.values()))

    def advance(self, name: Hashable, step: int) -> None:
        self._first.setdefault(name, step)
        self._done[name] = step
        self._bars.update(self._task, completed=sum(self._done.values()))

    def finish(self, name: Hashable, line: str = '') -> None:
        self._done[name] = self._steps[name]
        self._ended.add(name)
        self._bars.update(self._task, completed=sum(self._done.values()))
        if line:
            self.say(f'{line}  [{self._left()}]' if self._lines else line)

    def _tell(self) -> None:
        """Say what is running, until all is over."""
        while not self._over.wait(progress.EVERY):
            if len(self._ended) == len(self._steps):
                continue
            running = [name for name in list(self._done) if name not in self._ended]
            named = [f'{" ".join(name) if isinstance(name, tuple) else name} ({self._done[name]}/'
                     f'{self._steps[name]})' for name in running[:NAMED]]
            others = [f'{len(running) - NAMED} more'] * (len(running) > NAMED)
            self.say(f'{len(self._ended)} of {len(self._steps)} ended, running: '
                     f'{", ".join(named + others) or "nothing yet"}  [{self._left()}]')

    def _left(self) -> str:
        done, total = sum(list(self._done.values())), sum(self._steps.values())
        since = done - sum(list(self._first.values()))
        steady = since >= 50  # fewer tell nothing of the rate
        return f'{done}/{total} steps' + (self._pace.left(since, total - done) if steady else '')
