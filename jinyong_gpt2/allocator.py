"""The C library's memory, kept between the steps of a run on a CPU.

Every step asks for the same few hundred megabytes and frees them again. glibc hands blocks above 32 MB, and the free
top of its heap, back to the system at once, and the system clears every page anew for the next step: beside other work
on a virtual machine that took up to a third of the time, on a quiet one hardly any (BENCHMARKS.md). See mallopt(3).
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEPT = 2**31 - 1  # bytes: as much of the free top of the heap as an int can say
GROWTH = 1 << 26  # bytes the heap grows by at least


def keep_freed_memory() -> bool:
    """Let this process reuse what it frees, for as long as it lives; whether the C library can (glibc alone does)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEPT, M_TOP_PAD: GROWTH}
    return all(mallopt(option, value) for option, value in settings.items())
