"""How far long work is: a bar on a terminal; elsewhere, as in a log, a plain line every half minute."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mmengine.hooks import LoggerHook
from mmengine.registry import HOOKS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

EVERY = 30.0  # seconds


class Progress(Bars):
    """Counters of what is under way, and lines said beside them, while the block runs.

    Args:
        shown: False where bars or lines would be in a debugger's way.
        stderr: for a script whose standard output is its result.
    """

    def __init__(self, shown: bool = True, stderr: bool = False):
        console = Console(stderr=stderr, soft_wrap=True, highlight=False)
        item = TextColumn('{task.fields[item]}', markup=False, table_column=Column(ratio=1, no_wrap=True))
        super().__init__('{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), item,
                         console=console, transient=True, expand=True, speed_estimate_period=3600,
                         disable=not (shown and console.is_terminal))
        self._over = threading.Event()
        self._teller = threading.Thread(target=self._tell, daemon=True)
        self._tells = shown and not console.is_terminal

    def start(self) -> None:
        super().start()
        if self._tells:
            self._teller.start()

    def stop(self) -> None:
        super().stop()
        self._over.set()
        if self._tells:
            self._teller.join()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def counter(self, title: str) -> Callable[[int, int, str], str]:
        """A function to call with (done, total, item at hand), which returns that in words, with the time left.

        What it shows goes away when all is done and no item is at hand any more.
        """
        task = None

        def count(done: int, total: int, item: str) -> str:
            nonlocal task
            if task is None:
                task = self.add_task(title, total=total, item=item)
            self.update(task, completed=done, total=total, item=item)
            words = _describe(next(one for one in self.tasks if one.id == task))
            if done == total and not item:
                self.remove_task(task)
                task = None
            return words
        return count

    def _tell(self) -> None:
        while not self._over.wait(EVERY):
            for task in self.tasks:
                item = task.fields['item']
                self.say(f'{task.description}: {_describe(task)}{item and f"; {item}"}')


def _describe(task) -> str:
    left = task.time_remaining
    return f'{task.completed} of {task.total}' + (f', {left / 60:.1f} min left' if left else '')


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int, str], str]]:
    """One counter on standard error, for as long as the block runs."""
    with Progress(stderr=True) as progress:
        yield progress.counter(title)


@HOOKS.register_module()
class PunctualLogger(LoggerHook):
    """mmengine's, which also logs a step when it has logged none for `EVERY` seconds: some take minutes for 50."""

    def before_run(self, runner) -> None:
        super().before_run(runner)
        self.last = time.monotonic()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self._log_if_due(runner, batch_idx, 'train')

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs: Sequence | None = None) -> None:
        super().after_val_iter(runner, batch_idx, data_batch, outputs)
        self._log_if_due(runner, batch_idx, 'val')

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs: Sequence | None = None) -> None:
        super().after_test_iter(runner, batch_idx, data_batch, outputs)
        self._log_if_due(runner, batch_idx, 'test')

    def _log_if_due(self, runner, batch_idx: int, mode: str) -> None:
        now = time.monotonic()
        if self.every_n_inner_iters(batch_idx, self.interval):
            self.last = now
        elif now - self.last >= EVERY:
            self.last = now
            runner.logger.info(runner.log_processor.get_log_after_iter(runner, batch_idx, mode)[1])
