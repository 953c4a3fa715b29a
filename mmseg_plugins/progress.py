"""What a log is told of long work, where no terminal shows a bar: a plain line about every half a minute."""

import time
from collections.abc import Callable, Sequence

from mmengine.hooks import LoggerHook
from mmengine.registry import HOOKS

EVERY = 30.0  # seconds


class Pace:
    """How long work that is counted still takes, by what has been done of it since this was made."""

    def __init__(self):
        self.start = time.monotonic()

    def left(self, done: int, rest: int) -> str:
        """Words to add to a line; none while nothing is done, which tells nothing of the rate.

        Args:
            done: items since this was made.
            rest: items to do.
        """
        return f', {(time.monotonic() - self.start) * rest / done / 60:.1f} min left' if done > 0 else ''


class Lines:
    """Tells of items as they get done, called with (done, total, item) for each: a line when `EVERY` has passed.

    Args:
        title: what is done with them.
        say: prints a line.
    """

    def __init__(self, title: str, say: Callable[[str], None]):
        self.title, self.say = title, say
        self.pace, self.last, self.first = Pace(), time.monotonic(), None

    def __call__(self, done: int, total: int, item: str) -> None:
        self.first = done if self.first is None else self.first
        if time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            left = self.pace.left(done - self.first, total - done)
            self.say(f'{self.title} {item}: {done} of {total}{left}')


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
