"""Files in parts small enough to be carried back one by one, and joined again."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: A part's size, and how many there may be: few and small enough to be fetched by any means.
PART_BYTES = 15 * 2**20
MOST_PARTS = 4


def write(files: Mapping[str, bytes | Path], out: Path, name: str) -> dict[str, Any]:
    """Write ``files`` (name in the archive -> content) to ``out`` as NAME.tar.00, .01, ...

    Returns what ``join`` needs. Raises ValueError where they are too large.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for inside, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            entry = tarfile.TarInfo(inside)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    data = buffer.getvalue()
    starts = range(0, len(data), PART_BYTES)
    if len(starts) > MOST_PARTS:
        raise ValueError(f"{name}: {len(data) / 2**20:.0f} MiB make {len(starts)} parts")
    for old in out.glob(f"{name}.tar.*"):
        old.unlink()
    for number, start in enumerate(starts):
        (out / f"{name}.tar.{number:02}").write_bytes(data[start : start + PART_BYTES])
    return {"name": name, "parts": len(starts), "sha256": hashlib.sha256(data).hexdigest()}


def join(about: Mapping[str, Any], out: Path, folder: Path) -> list[Path]:
    """Unpack what ``write`` wrote to ``out`` into ``folder``; plain files only."""
    names = [f"{about['name']}.tar.{number:02}" for number in range(about["parts"])]
    data = b"".join((out / name).read_bytes() for name in names)
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError(f"{out}: the parts of {about['name']} are not of one writing")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(folder, filter="data")
        return [folder / member.name for member in tar.getmembers()]
