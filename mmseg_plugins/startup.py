"""What importing this package does to the process, beside what it registers."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Any of these says how long OpenMP's threads spin while they wait (GNU's own, everybody's, Intel's).
WAITING = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'KMP_BLOCKTIME')


@contextmanager
def importing() -> Iterator[None]:
    """Around the imports of torch and all that is built on it.

    Threads that wait spin for long by default, and on a busy machine keep the cores from those they wait for: they
    rest soon, unless the user's environment says otherwise. OpenMP reads it when torch is first imported.

    Nothing that is imported is garbage: looking for some would take a fifth of the time, and a part of every later
    collection, of which mmengine makes one with each dataset.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ['GOMP_SPINCOUNT'] = '1000'
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
    gc.freeze()
