"""What a power cut may leave of a folder: whatever was flushed, and some of the rest.

A model of a file system that promises only what POSIX does (Pillai et al. 2014, "All file systems
are not created equal"): bytes are safe once their file was flushed, names once their folder was.
Of what was not, any part may be there: half the bytes, or zeroes in their place; a rename without
the unlink before it, or neither.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .faults import Call


@dataclass
class _File:
    content: bytes = b""
    flushed: bytes = b""


@dataclass
class Disk:
    """Follows the calls of one run, each shown to ``see``; ``crash`` after any of them."""

    root: Path
    #: Names on the disk for certain, and the changes to names that came since, in order.
    safe: dict[str, _File | None] = field(default_factory=dict)  # None: a folder
    pending: list[tuple[str, str, _File | None]] = field(default_factory=list)
    now: dict[str, _File | None] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        for path in self.root.rglob("*"):
            content = None if path.is_dir() else path.read_bytes()
            entry = None if content is None else _File(content, content)
            self.safe[str(path.relative_to(self.root))] = entry
        self.now = dict(self.safe)

    def see(self, call: Call, data: bytes, source: str | None = None) -> None:
        self.calls += 1
        path = call.path
        if call.name == "create":
            if path not in self.now:
                self._change("link", path, _File())
            elif (file := self.now[path]) is not None:
                file.content = b""
        elif call.name == "write":
            file = self.now[path]
            assert file is not None
            file.content += data
        elif call.name == "mkdir" and path not in self.now:
            self._change("link", path, None)
        elif call.name == "replace":
            assert source is not None
            self._change("move", path, self.now[source])
            self.pending[-1] = (f"move {source}", path, self.now.pop(source))
        elif call.name in ("unlink", "rmdir"):
            self._change("unlink", path, None)
            del self.now[path]
        elif call.name == "fsync":
            entry = self.now.get(path)
            if entry is not None:
                entry.flushed = entry.content
            else:
                self._flush_names(path)

    def _change(self, what: str, path: str, entry: _File | None) -> None:
        self.pending.append((what, path, entry))
        if what != "unlink":
            self.now[path] = entry

    def _flush_names(self, folder: str) -> None:
        left = []
        for change in self.pending:
            if os.path.dirname(change[1]) == ("" if folder == "." else folder):
                _apply(self.safe, change)
            else:
                left.append(change)
        self.pending = left

    def crash(self, chance: random.Random, to: Path) -> None:
        """Write to ``to`` what may be there if the power failed now."""
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir()
        names = dict(self.safe)
        luck = chance.choice([0.0, 0.5, 1.0])
        for change in self.pending:
            if chance.random() < luck:
                _apply(names, change)
        for name in sorted(names):  # a folder before what is in it
            entry, path = names[name], to / name
            if not path.parent.is_dir():
                continue
            if entry is None:
                path.mkdir()
            else:
                path.write_bytes(_torn(entry, chance))


def _apply(names: dict[str, _File | None], change: tuple[str, str, _File | None]) -> None:
    what, path, entry = change
    if what == "unlink":
        names.pop(path, None)
    else:
        names[path] = entry
        names.pop(what.removeprefix("move "), None)


def _torn(file: _File, chance: random.Random) -> bytes:
    """Return what may be there of a file: its flushed bytes, and of later ones anything."""
    if file.content == file.flushed:
        return file.flushed
    kept = chance.randint(0, len(file.content))
    whole, zeroes = file.content, bytes(len(file.content) - kept)
    tears: list[Callable[[], bytes]] = [
        lambda: file.flushed, lambda: whole, lambda: whole[:kept], lambda: whole[:kept] + zeroes,
    ]  # fmt: skip
    return chance.choice(tears)()
