"""A function over many items in forked processes, with progress; nothing is left behind by a kill."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from .errors import UserError

Result = TypeVar('Result')
MOST_WORKERS = 8  # each holds a whole volume, and disks do not get faster


def available_cores() -> int:
    """Those that this process may use, which a cluster's job may have fewer of than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def default_workers() -> int:
    return min(available_cores(), MOST_WORKERS)


def map_items(function: Callable[[Any], Result], items: Mapping[Hashable, Any], workers: int | None = None,
              progress: Callable[[int, int, str], None] = lambda *_: None) -> dict[Hashable, Result]:
    """`{key: function(item)}` in the order of `items`.

    Args:
        function: of one item; must not touch torch, whose threads do not survive a fork.
        items: by key.
        workers: processes; 1 works in this one.
        progress: called with (done, total, key) before the last is done, and once with all done and no key.

    Raises:
        UserError: a process was killed.
    """
    workers = min(workers or default_workers(), len(items))
    results = {}
    if workers <= 1:
        for key, item in items.items():
            progress(len(results), len(items), str(key))
            results[key] = function(item)
    else:
        context = multiprocessing.get_context('fork')  # a fresh interpreter would take 10 s to import torch
        with ProcessPoolExecutor(workers, context, _begin_worker, (os.getpid(), function)) as pool:
            futures = {pool.submit(_call, item): key for key, item in items.items()}
            try:
                for future in as_completed(futures):
                    progress(len(results), len(items), str(futures[future]))
                    results[futures[future]] = future.result()
            except BrokenProcessPool:
                raise UserError('a process was killed, most likely for want of memory; call again with fewer: '
                                '--workers 1') from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    progress(len(items), len(items), '')
    return {key: results[key] for key in items}


def _begin_worker(parent: int, function: Callable) -> None:
    global _function
    _function = function  # comes with the fork: unlike what is sent, it need not be picklable
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides

    def leave_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _call(item: Any) -> Any:
    return _function(item)
