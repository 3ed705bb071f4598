"""What tensors give back stays with the process, for the next ones."""

from __future__ import annotations

import ctypes
import functools

TRIM, MMAP = -1, -3  # of mallopt: how much may lie free at the heap's end; from which size on a block is apart from it


@functools.cache
def keep_freed_memory() -> None:
    """Ask glibc not to hand freed memory back to the system at once. Once a process; without glibc, nothing.

    The tensors of an update live for moments. Those of 25 agents and more are so large that their pages were fetched
    anew, thousands an update, which took up to a third of it. What is larger than 256 MB still goes back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(TRIM, 2**30)
    mallopt(MMAP, 2**28)
