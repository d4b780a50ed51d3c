"""How the C library hands out the memory of a network's layers."""

from __future__ import annotations

import ctypes
import os
import sys

#: Parameters of glibc's mallopt(3), and values: the most that it takes on 64 bits, and 1 GiB.
_MMAP_THRESHOLD, _LARGEST = -3, 32 << 20
_TRIM_THRESHOLD, _KEPT = -1, 1 << 30
#: Whoever sets one of these has chosen; other MALLOC_ variables do not conflict with our settings.
_CHOSEN_BY_USER = (
    "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_",
    "GLIBC_TUNABLES",
)  # fmt: skip


def keep_freed_memory() -> bool:
    """Keep the memory that a layer frees for the next layer; return whether that works here.

    Otherwise glibc gives large blocks back at once, and gets them again page by page, each
    cleared by the kernel: a tenth and more of the time of a network on a CPU
    (docs/results/engine.md). What stays unused is at most 1 GiB more than was needed at once.
    Nothing changes with another C library, or where the environment sets malloc's options.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _CHOSEN_BY_USER):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGEST) and libc.mallopt(_TRIM_THRESHOLD, _KEPT))
