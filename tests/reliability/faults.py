"""Calls that touch files below one folder: recorded, and made to fail one at a time.

A call is known by its name, its path and how often that pair came before, not by a running number:
threads take turns as they like, and a fault must hit the same call every time.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

#: Functions of os by the position of the path (or descriptor) that they act on.
_OF_OS = {"open": 0, "fsync": 0, "replace": 1, "rename": 1, "mkdir": 0, "unlink": 0, "rmdir": 0,
          "scandir": 0, "listdir": 0, "chmod": 0}  # fmt: skip


class Call(NamedTuple):
    name: str
    path: str
    time: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.path} ({self.time})"


#: Sees a call before it is made, with what it is about to write (of other calls, b""). It may
#: raise, and for a write return how many bytes of it to let through.
Before = Callable[[Call, bytes], int | None]


def failing(which: Callable[[Call], bool], number: int, *, short: bool = False) -> Before:
    """Return what makes calls below the working folder fail with an errno; ``short``: after half of
    a write went through."""
    halved: set[Call] = set()

    def before(call: Call, data: bytes) -> int | None:
        if not which(call):
            return None
        if short and len(data) > 1 and call not in halved:
            halved.add(call)
            return len(data) // 2
        # as the system has it: who names a descriptor is told no path
        path = () if call.name in ("write", "read", "fsync") else (str(Path.cwd() / call.path),)
        raise OSError(number, os.strerror(number), *path)

    return before


@contextmanager
def watched(root: Path, before: Before) -> Iterator[list[Call]]:
    """Show ``before`` every call on a file below ``root``; yield the list of those made."""
    root, calls, seen, lock = root.resolve(), [], Counter[tuple[str, str]](), threading.Lock()
    originals: dict[Any, Any] = {name: getattr(os, name) for name in _OF_OS}
    real_open = io.open

    def place(of: Any) -> str | None:
        """Return the path below ``root``, process numbers left out; None for what is elsewhere."""
        if isinstance(of, int):
            of = os.readlink(f"/proc/self/fd/{of}")
        path = Path(os.path.abspath(os.fsdecode(of)))
        if not path.is_relative_to(root):
            return None
        return re.sub(r"\.\d+(?=$|\.partial)", ".PID", str(path.relative_to(root)))

    def announce(name: str, of: Any, data: bytes = b"") -> int | None:
        try:
            path = place(of)
        except (OSError, TypeError, ValueError):
            path = None
        if path is None:
            return None
        with lock:
            call = Call(name, path, seen[name, path])
            seen[name, path] += 1
            calls.append(call)
        return before(call, data)

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:  # type: ignore[override]
            view = memoryview(data)
            part = announce("write", self.name, bytes(view))
            return super().write(view if part is None else view[:part])

        def readinto(self, buffer: Any) -> int:  # type: ignore[override]
            announce("read", self.name)
            return super().readinto(buffer)  # type: ignore[return-value]

        def readall(self) -> bytes:
            announce("read", self.name)
            return super().readall()

    def opening(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, int) or place(file) is None:
            return real_open(file, mode, *args, **kwargs)
        announce("create" if "w" in mode else "open", file)
        if mode not in ("rb", "wb"):
            return real_open(file, mode, *args, **kwargs)
        raw = Raw(os.fspath(file), mode)
        return io.BufferedReader(raw) if mode == "rb" else io.BufferedWriter(raw)

    def of_os(name: str, at: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if "dir_fd" not in kwargs or kwargs["dir_fd"] is None:
                announce(name, args[at] if len(args) > at else ".")
            return originals[name](*args, **kwargs)

        return call

    try:
        io.open = builtins.open = opening  # type: ignore[assignment]
        for name, at in _OF_OS.items():
            setattr(os, name, of_os(name, at))
        yield calls
    finally:
        io.open = builtins.open = real_open
        for name, original in originals.items():
            setattr(os, name, original)


#: What a call can fail with that a machine really answers.
ERRORS = {
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "fsync": (errno.EIO, errno.ENOSPC),
    "create": (errno.ENOSPC, errno.EMFILE, errno.EACCES),
    "open": (errno.EMFILE, errno.EIO),
    "read": (errno.EIO,),
    "replace": (errno.ENOSPC, errno.EIO),
    "mkdir": (errno.ENOSPC, errno.EACCES),
}
OTHERS = (errno.EIO,)
