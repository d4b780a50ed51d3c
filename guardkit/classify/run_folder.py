"""A run's state on disk: a manifest, and one part for each shard that is done.

    OUT.parts/manifest.json     what is read, by what, and with which settings
    OUT.parts/part-00000012     the shard's output lines, and a footer with their count and checksum

A part appears under its name by one rename, after its bytes are on disk, and the folder's entry
with it: what is there is whole, what is not there is done again. The state grows with the
shards, not with the rows. Once all parts are there they become the output, again by one rename.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import msgspec
from pydantic import ValidationError

from guardkit.classify.manifest import Manifest
from guardkit.errors import OutputError, UsageError
from guardkit.files import UNFINISHED, flush_to_disk, locked, write_atomically

MANIFEST = "manifest.json"
_LOCK = "lock"
#: There while a run goes on: how many parts there were when it began. One that died leaves it.
_RUNNING = "running"
_PART = "part-{:08d}"
_A_PART = re.compile(r"part-[0-9]{8,}")
#: The footer is the part's last line, no longer than this.
_FOOTER_BYTES = 2**16
_COPY_BYTES = 2**20
#: Parts merged when one is done: a run that goes on catches up with its old ones little by little.
_MERGED_AT_ONCE = 4


class RunFolder:
    """The folder of a run's state, open for this process alone (``held``)."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.with_name(f"{out.name}.parts")
        #: Parts that the run before this one had done when its process died; None if it ended.
        self.died_after: int | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder; UsageError where another run does. It goes where it holds no part."""
        with ExitStack() as stack:
            with reporting(self.path):
                self._refuse_what_is_not_ours()
                self.path.mkdir(exist_ok=True)
                alone = stack.enter_context(locked(self.path / _LOCK))
            if not alone:
                raise UsageError(
                    f"{self.path}: another run is writing {self.out.name}; let it end, or choose "
                    "another --out"
                )
            running = self.path / _RUNNING
            with reporting(self.path):
                done, began = len(self._parts()), _number(running)
                self.died_after = None if began is None else done - began
                write_atomically(running, str(done).encode())
            left = None
            try:
                yield
            except UsageError:
                left = began  # refused: what the run before has left stays as it is
                raise
            finally:
                with suppress(OSError):
                    if left is not None:
                        write_atomically(running, str(left).encode())
                    elif running.exists():  # not where all of it has gone
                        running.unlink()
                self._remove_if_nothing_was_done()

    def _refuse_what_is_not_ours(self) -> None:
        """Raise UsageError where the folder is no run's: it may be anything of the user's."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            what = "a link" if self.path.is_symlink() else "no folder"
            raise UsageError(
                f"{self.path}: is {what}; the work of a run is kept in a folder of this name. "
                "Move it away, or choose another --out"
            )
        if not self.path.exists() or _is_manifest(self.path / MANIFEST):
            return
        # a crash at the very beginning or end can leave some of ours without a manifest
        for entry in sorted(self.path.iterdir()):
            if not self._is_ours(entry) or entry.name == MANIFEST or not _is_left_over(entry):
                raise UsageError(
                    f"{entry}: was not written by guardkit, or by another version: "
                    f"{self.path.name} has no {MANIFEST} of a run. Move the folder away, or "
                    "choose another --out"
                )

    @staticmethod
    def _is_ours(entry: Path) -> bool:
        """Whether ``entry`` is a file of a name that runs give; nothing else is ever removed."""
        name = entry.name
        named = (
            name in (MANIFEST, _LOCK, _RUNNING)
            or name.startswith(UNFINISHED)
            or _A_PART.fullmatch(name)
        )
        return bool(named) and entry.is_file() and not entry.is_symlink()

    def _ours(self) -> list[Path]:
        """Return what is in the folder of ours."""
        return [entry for entry in self.path.iterdir() if self._is_ours(entry)]

    def _remove_if_nothing_was_done(self) -> None:
        """Let the next run begin with whatever it is told, where this one did no shard."""
        with suppress(OutputError):  # the run's own error is the one to tell
            if not self._parts():
                self.clear()

    def manifest(self) -> Manifest | None:
        """Return the manifest of an interrupted run; None where there is none, or no shard is
        done: nothing is lost then if another run takes the folder."""
        if not self._parts():
            return None
        return read_manifest(self.path) if (self.path / MANIFEST).is_file() else None

    def begin(self, manifest: Manifest) -> None:
        """Write the manifest: from here on the run can be resumed."""
        with reporting(self.path):
            # without a manifest, parts are what a crash left of a run that had ended: not ours
            for path in self._ours():
                if path.name.startswith("part-"):
                    path.unlink(missing_ok=True)
            flush_to_disk(self.path)
            write_atomically(self.path / MANIFEST, manifest.model_dump_json(indent=1).encode())

    def done(self) -> set[int]:
        """Return which shards have their part; what a crash left half-written is removed."""
        with reporting(self.path):
            for path in self._ours():
                if path.name.startswith(UNFINISHED):
                    path.unlink(missing_ok=True)
        return self._parts()

    def _parts(self) -> set[int]:
        with reporting(self.path):
            names = (entry.name for entry in os.scandir(self.path))
            return {int(n.removeprefix("part-")) for n in names if _A_PART.fullmatch(n)}

    def facts(self, index: int) -> dict[str, Any]:
        """Return the facts that were stored with a part."""
        path = self.path / _PART.format(index)
        with reporting(path, "read"):
            facts: dict[str, Any] = _footer(path)[0]["facts"]
            return facts

    def remove(self, index: int) -> None:
        """Forget a shard: it will be done again."""
        with reporting(self.path):
            (self.path / _PART.format(index)).unlink(missing_ok=True)

    @contextmanager
    def merging(self, done: set[int]) -> Iterator[Merging]:
        """Yield what makes the output of the parts, of which those of ``done`` are there."""
        temporary = self.path / f"{UNFINISHED}merged"
        with reporting(self.out):
            output = temporary.open("wb")
        try:
            yield Merging(self, output, done)
        finally:
            with reporting(self.out):
                output.close()

    def clear(self) -> None:
        """Remove the state of a run that is finished; the folder too, unless more is in it."""
        with reporting(self.path, "removed"):
            # the manifest last: a folder with one can be resumed
            for entry in sorted(self._ours(), key=lambda path: path.name == MANIFEST):
                entry.unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()


class Merging:
    """The output of all parts, in order, every checksum verified; it grows while later parts are
    still being made, so that little is left to do when the last one is there."""

    def __init__(self, folder: RunFolder, output: BinaryIO, done: set[int]) -> None:
        self._folder, self._output = folder, output
        self._there = set(done)
        self._next = 0

    def add(self, index: int) -> None:
        """Take the part ``index``, now or when its turn comes."""
        self._there.add(index)
        for _ in range(_MERGED_AT_ONCE):
            if self._next not in self._there:
                break
            self._copy(self._next)
            self._next += 1

    def finish(self, shards: int) -> None:
        """Give the output, of ``shards`` parts, its name."""
        for index in range(self._next, shards):
            self._copy(index)
        with reporting(self._folder.out):
            self._output.flush()
            os.fsync(self._output.fileno())
            os.replace(self._output.name, self._folder.out)
            flush_to_disk(self._folder.out.parent)

    def _copy(self, index: int) -> None:
        path = self._folder.path / _PART.format(index)
        with reporting(path, "read"):
            footer, left = _footer(path)
            part = path.open("rb")
        digest = hashlib.sha256()
        with part:
            while left:
                with reporting(path, "read"):
                    block = part.read(min(left, _COPY_BYTES))
                if not block:
                    break
                digest.update(block)
                with reporting(self._folder.out):
                    self._output.write(block)
                left -= len(block)
        if digest.hexdigest() != footer["sha256"] or footer["shard"] != index:
            path.unlink()
            raise OutputError(
                f"{path}: damaged on disk, and removed; the same command with --resume does its "
                "lines again"
            )
        with reporting(self._folder.out):
            self._output.flush()
        if hasattr(os, "posix_fadvise"):  # Linux writes it out from now on, and not all at the end
            os.posix_fadvise(self._output.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the run whose folder this is. Raises UsageError where it is none of
    this version, OutputError where it cannot be read."""
    path = folder / MANIFEST
    try:
        with reporting(path, "read"):
            return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(
            f"{path}: not a manifest of this version; finish with the version that wrote it, "
            "or remove the folder and start anew"
        ) from error


def _is_manifest(path: Path) -> bool:
    """Whether the file is a run's manifest, of whatever version."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        found = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError:
        return False
    return isinstance(found, dict) and {"format", "inputs", "settings"} <= found.keys()


def _is_left_over(path: Path) -> bool:
    """Whether a file without a manifest can be what a crash left."""
    if path.name in (_LOCK, _RUNNING):
        return path.stat().st_size == 0 if path.name == _LOCK else _number(path) is not None
    if not _A_PART.fullmatch(path.name):
        return True
    try:
        return _read_footer(path) is not None
    except OSError:
        return False


def _number(path: Path) -> int | None:
    """Return the number that a file holds, None where there is none."""
    with suppress(FileNotFoundError, ValueError):
        return int(path.read_bytes())
    return None


def write_part(folder: Path, index: int, body: bytes, facts: Mapping[str, Any]) -> None:
    """Write a part so that it is there whole or not at all, whatever happens meanwhile."""
    footer = {
        "shard": index,
        "lines": body.count(b"\n"),
        "sha256": hashlib.sha256(body).hexdigest(),
        "facts": dict(facts),
    }
    encoded = msgspec.json.encode(footer) + b"\n"
    assert len(encoded) <= _FOOTER_BYTES, "facts are small"
    write_atomically(folder / _PART.format(index), body, encoded)


def probe(folder: Path) -> str:
    """Leave an empty file, and return its name: who finds it means the same folder. ``done``
    removes it where nobody does."""
    name = f"{UNFINISHED}probe-{uuid4().hex}"
    (folder / name).touch()
    return name


@contextmanager
def reporting(path: Path, what: str = "written") -> Iterator[None]:
    """Turn what the operating system says into an OutputError that names the file, and what is
    left where the disk is full. ``what`` could not be done to it."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        free = ""
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            left = shutil.disk_usage(path if path.exists() else path.parent).free
            free = f" ({left:,} bytes are free there)"
        raise OutputError(
            f"{name}: cannot be {what}: {error.strerror}{free}; what is done is kept, and the "
            "same command with --resume goes on"
        ) from error


def _footer(path: Path) -> tuple[dict[str, Any], int]:
    """Return a part's footer, and how many bytes stand before it."""
    found = _read_footer(path)
    if found is None:
        path.unlink()
        raise OutputError(
            f"{path}: damaged on disk, and removed; the same command with --resume does its lines "
            "again"
        )
    return found


def _read_footer(path: Path) -> tuple[dict[str, Any], int] | None:
    """Return what ``_footer`` does, or None where the file ends in none."""
    with path.open("rb") as part:
        end = part.seek(0, os.SEEK_END)
        part.seek(max(0, end - _FOOTER_BYTES))
        tail = part.read()
    line = tail.rstrip(b"\n").rpartition(b"\n")[2]
    try:
        footer = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    known = isinstance(footer, dict) and {"shard", "lines", "sha256", "facts"} <= footer.keys()
    return (footer, end - len(line) - 1) if known else None
