"""What importing this package does to the process, beside what it registers."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Any of these says how long OpenMP's threads spin while they wait (GNU's own, everybody's, Intel's).
WAITING = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'KMP_BLOCKTIME')
# Any of these says what glibc does with memory that was freed.
KEEPING = ('MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_', 'GLIBC_TUNABLES')
KEPT = {-3: 1 << 28, -1: (1 << 31) - 1}  # mallopt's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes

try:
    _mallopt = ctypes.CDLL(None).mallopt
except (AttributeError, OSError, TypeError):  # another C library than glibc
    def _mallopt(parameter: int, size: int) -> None:
        """There is nothing to set."""


@contextmanager
def importing() -> Iterator[None]:
    """Around the imports of torch and all that is built on it.

    Threads that wait spin for long by default, and on a busy machine keep the cores from those they wait for: they
    rest soon, unless the user's environment says otherwise. OpenMP reads it when torch is first imported.

    What a training step on a CPU has freed, the next one allocates again: it is kept, unless the environment says
    otherwise. glibc would give megabytes back to the system, which clears each page anew; that is 4 % of a
    miniature's time.

    Nothing that is imported is garbage: looking for some would take a fifth of the time, and a part of every later
    collection, of which mmengine makes one with each dataset.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ['GOMP_SPINCOUNT'] = '1000'
    if not any(name in os.environ for name in KEEPING):
        for parameter, size in KEPT.items():
            _mallopt(parameter, size)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
    gc.freeze()
