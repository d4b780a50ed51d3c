"""What to do where a batch does not fit into memory."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Sequence

#: Messages of libraries that have no exception for it: torch on a CPU, ONNX Runtime.
_MESSAGES = ("DefaultCPUAllocator: ", "Failed to allocate memory")


def halved_on_oom(rows: Sequence[int], run: Callable[[Sequence[int]], None]) -> None:
    """Call ``run(rows)``; where memory does not hold them, each half of them in turn, and so on.

    ``run`` keeps its own results, by row, and may be called again for a row. Raises what it
    raised where a single row does not fit, or where it failed for another reason.
    """
    pending = [rows]
    while pending:
        part = pending.pop()
        try:
            run(part)
            continue
        except Exception as error:  # passed on unless it is about memory
            if len(part) < 2 or not out_of_memory(error):
                raise
            warnings.warn(
                f"out of memory with {len(part)} texts or windows at once; going on with "
                f"{(len(part) + 1) // 2}",
                RuntimeWarning,
                stacklevel=2,
            )
        # only here is the error gone, and with it the frames that hold the batch's arrays
        _release()
        half = (len(part) + 1) // 2
        pending += [part[half:], part[:half]]


def out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory ran out, a GPU's or the machine's."""
    torch = sys.modules.get("torch")  # not loaded: its error cannot have been raised
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return any(message in str(error) for message in _MESSAGES)


def _release() -> None:
    """Give back the memory that torch keeps in pieces, too small for the next batch."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
