"""How the C library hands out the memory of a network's layers."""

from __future__ import annotations

import ctypes
import os
import sys

#: Parameters of glibc's mallopt(3), and values: the most that it takes on 64 bits, and 1 GiB.
_MMAP_THRESHOLD, _LARGEST = -3, 32 << 20
_TRIM_THRESHOLD, _KEPT = -1, 1 << 30
#: Who sets one of these has a policy; other MALLOC_ variables, of arenas say, go well with ours.
_OWN_POLICY = (
    "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_",
    "GLIBC_TUNABLES",
)  # fmt: skip


def keep_freed_memory() -> bool:
    """Let what a layer frees stay with the process, for the next one; tell whether it will.

    Otherwise glibc gives large blocks back at once, and gets them again page by page, each
    cleared by the kernel: a tenth and more of the time of a network on a CPU
    (docs/results/engine.md). At the heap's end stays at most what was needed at once, and 1 GiB.
    Of another C library nothing is changed, nor where the environment sets malloc's options.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _OWN_POLICY):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGEST) and libc.mallopt(_TRIM_THRESHOLD, _KEPT))
