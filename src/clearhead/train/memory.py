"""Memory. Training frees tensors and asks for others of the same sizes, step after step; let it keep what it has.

The C library gives large blocks back as soon as they are freed, and asks for new ones. Each of their pages is then
cleared by the system when it is first touched: tens of thousands of pages a step, a third of the time of a small one.
"""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names, malloc.h
MOST = 2**31 - 1
OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""What a person may have said of it in the environment; then it is left as they want it."""


def keep_freed() -> bool:
    """Have this process keep the memory that it frees, up to its peak, until it ends. False where that is not in our
    power (another C library than glibc) or was decided in the environment."""
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in OWN):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, MOST) and mallopt(TRIM_THRESHOLD, MOST))
