"""Memory of large tensors on a CPU is kept for the next one."""

import ctypes
import os
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _MMAP_MAX = -3, -1, -4  # of malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse what a tensor has freed; whether that could be asked for.

    glibc maps every block above 32 MB anew and gives it back at once, so that each operation on
    large logits first waits for empty pages: at 151 classes and 512 pixels half of an iteration.
    Until it ends the process then holds the most that it ever needed. A user's own
    MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ or GLIBC_TUNABLES stays; without glibc nothing
    is done.
    """
    theirs = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    if sys.platform != "linux" or any(name in os.environ for name in theirs):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # An older glibc refuses a threshold above 32 MB: then nothing at all is mapped.
    mapped = mallopt(_MMAP_THRESHOLD, _LARGEST) or mallopt(_MMAP_MAX, 0)
    trimmed = mallopt(_TRIM_THRESHOLD, _LARGEST)
    return bool(mapped and trimmed)
