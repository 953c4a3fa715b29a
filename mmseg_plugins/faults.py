"""What is behind an error that by itself says little: a loader's worker that died, memory that ran out."""

import ctypes
import gc
import os
import re
import resource
import signal
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from .errors import UserError

LIKELY = {'SIGKILL': ', most likely for want of memory', 'SIGSEGV': ': it crashed in compiled code',
          'SIGBUS': ', most likely for want of shared memory (/dev/shm)'}


def explain(error: Exception, dataloaders: Iterable[DataLoader]) -> Exception:
    """The fault as one line where it is one of these, else the error itself.

    Args:
        error: raised while these loaders were at work.
    """
    if worker := next(filter(None, map(_find_dead_worker, dataloaders)), None):
        return UserError(f'a worker process of the loader {worker}; take fewer (train_dataloader.num_workers=1); '
                         'with none (0) the fault shows where it happens')
    if 'DataLoader worker process' in str(error):  # its own error, wrapped into its traceback
        if found := re.search(r'UserError: (.*)\s*\Z', str(error)):
            return UserError(found[1])
    return error


def lack_of_memory(when: str, loader: str) -> UserError:
    """The line for an evaluation that memory does not suffice for.

    Args:
        loader: the config's name of it.
    """
    return UserError(f'out of memory {when}; take a smaller {loader}.batch_size, or of a network of crops a '
                     'smaller model.crops, or experiment.inference_precision=bf16')


def _find_dead_worker(dataloader: DataLoader) -> str | None:
    for worker in getattr(getattr(dataloader, '_iterator', None), '_workers', ()):
        code = worker.exitcode
        if code and code < 0:
            name = signal.Signals(-code).name
            return f'was ended by {name}{LIKELY.get(name, "")}'
        if code:
            return f'left with exit status {code}'
    return None


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in (
            "can't allocate memory", 'out of memory', 'STATUS_ALLOC_FAILED')))


GPU, PROCESS = 'GPU, training', 'training process'  # what the peak of one training is of, as records have it


class TrainingMemory:
    """The peak of one training, though its process has had others before it.

    Attributes:
        peak: bytes, at the last look: of tensors on this process's GPU, else of all that the process holds.
        of: which of the two, or what else there was to be had.
    """

    def __init__(self):
        self.peak, self.of = 0, GPU if torch.cuda.is_available() else PROCESS
        try:
            if self.of == PROCESS:
                gc.collect()
                ctypes.CDLL(None).malloc_trim(0)  # what the process no longer needs, it no longer holds
            self.begin()
        except (OSError, AttributeError):  # neither of these is to be had beside Linux
            self.of = 'worker process, all its runs so far'

    def begin(self) -> None:
        """Peaks from before now do not count."""
        if self.of == GPU:
            torch.cuda.reset_peak_memory_stats()
        elif self.of == PROCESS:
            Path('/proc/self/clear_refs').write_text('5')  # proc(5)

    def look(self) -> None:
        now = peak_memory()
        if self.of == PROCESS:
            now = 1024 * int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1])
        self.peak = max(self.peak, now)


def peak_memory() -> int:
    """In bytes: of this process's GPU since its peak was last reset, else of the process since its start."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def total_memory() -> int:
    """In bytes: of this process's GPU, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
