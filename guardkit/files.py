"""Files that appear whole or not at all, are still there after a power cut, and have one writer."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

#: What the name of a file begins with until it is whole; a crash can leave such a file behind.
UNFINISHED = ".writing-"


def write_atomically(path: Path, *blocks: bytes) -> None:
    """Write a file, or replace it, as ``replacing`` does."""
    with replacing(path) as file:
        for block in blocks:
            file.write(block)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to, which becomes ``path`` at the end: its bytes are flushed to disk
    first, and the folder's entry afterwards.

    Where anything fails, ``path`` is what it was. A file that is replaced hands on its mode; a
    link stays a link, to the new file; a pipe or a device is not replaced but written to.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    unfinished = path.with_name(f"{UNFINISHED}{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            if path.exists():
                unfinished.chmod(path.stat().st_mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        flush_to_disk(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def flush_to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk: a rename is durable only then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Yield whether this process has the lock that the file ``path`` stands for; it is let go at
    the end, also where the process is killed. The file is made, or emptied."""
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another has it
            yield False
        else:
            yield True
