"""How this process's memory allocator treats large blocks: tasks and results of megabytes, again and again."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGEST_FROM_HEAP = 32 * 1024 * 1024  # bytes; the most that glibc takes
KEPT_FREE = 24 * 1024 * 1024


def keep_freed_memory() -> None:
    """Use freed memory again, where glibc would give each large block back to the system at once.

    To get it anew, page by page, takes longer than all that is done with it: half of the time for a task of 1 MB.
    Other C libraries have nothing of the kind, and are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_FREE)


def share_one_heap() -> None:
    """No heap for each thread: Python lets one thread run at a time, so they would only lie beside each other.

    To be called before there are threads.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back_freed_memory() -> None:
    """Give the system what is free, for a process that has nothing to do; takes a millisecond."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
