"""Progress of a grid: a bar with the time left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Hashable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress:
    """Steps of all jobs together; `bars` would be in a debugger's way."""

    def __init__(self, bars: bool = True):
        self.console = Console(soft_wrap=True, highlight=False)
        self._bars = Bars(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                          TimeRemainingColumn(), console=self.console, transient=True, speed_estimate_period=120,
                          disable=not bars)
        self._steps: dict[Hashable, int] = {}
        self._done: dict[Hashable, int] = {}
        self._first: dict[Hashable, int] = {}
        self._task = None

    def __enter__(self) -> 'Progress':
        self._bars.start()
        return self

    def __exit__(self, *_) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def counter(self, title: str) -> Callable[[int, int, str], None]:
        """A bar for work that is counted in items; it goes when all are done and none is named any more."""
        task = self._bars.add_task(title, total=None)

        def count(done: int, total: int, item: str) -> None:
            self._bars.update(task, completed=done, total=total, description=f'{title} {item}')
            if done == total and not item:
                self._bars.remove_task(task)
        return count

    def begin(self, steps: dict[Hashable, int]) -> None:
        self._steps, self._start = steps, time.monotonic()
        if steps:
            self._task = self._bars.add_task('training steps', total=sum(steps.values()))

    def advance(self, name: Hashable, step: int) -> None:
        self._first.setdefault(name, step)
        self._done[name] = step
        self._bars.update(self._task, completed=sum(self._done.values()))

    def finish(self, name: Hashable, line: str = '') -> None:
        self._done[name] = self._steps[name]
        self._bars.update(self._task, completed=sum(self._done.values()))
        if line:
            self.say(line if self.console.is_terminal else f'{line}  {self._left()}')

    def _left(self) -> str:
        done = sum(self._done.values()) - sum(self._first.values())
        rest = sum(self._steps.values()) - sum(self._done.values())
        minutes = (time.monotonic() - self._start) * rest / max(done, 1) / 60
        left = f', {minutes:.1f} min left' if done >= 50 else ''  # fewer tell nothing of the rate
        return f'[{sum(self._done.values())}/{sum(self._steps.values())} steps{left}]'
