"""An input cut into shards: pieces small enough to do again, the same whoever does them.

A shard is at most SHARD_ROWS rows or SHARD_BYTES of one file. Plain files of lines are cut by
byte offsets, found in one pass that also hashes the file, so that every worker reads its own
piece. What can only be read from its start (compressed, CSV, parquet, standard input) is cut as
it is read. Either way the cut depends on the input alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic, iglob
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from guardkit.classify.manifest import InputFile
from guardkit.classify.rows import lines_of, read_lines, read_rows
from guardkit.data.files import kind_of
from guardkit.data.spec import split_delimiter
from guardkit.errors import ChangedError, InputFileError
from guardkit.types import Progress, Row

SHARD_ROWS = 2_000
SHARD_BYTES = 64 * 2**20
_BLOCK_BYTES = 4 * 2**20
STDIN = "-"
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of one file, by where they are (``count`` lines, ``size`` bytes from byte ``start``) or
    as they were read (``rows``). ``first`` is the first row's number in its file, from 1."""

    index: int
    path: str
    first: int
    count: int
    start: int = 0
    size: int = 0
    sha256: bytes = b""  # of those bytes, the first half
    rows: tuple[Row, ...] | None = None
    piece: tuple[int, int] | None = None  # only its rows from here to there, counted from 0

    def halves(self) -> list[Shard]:
        """Return its two halves, pieces of the same shard; it must have two rows."""
        start, end = self.piece or (0, self.count)
        middle = (start + end) // 2
        pieces = ((start, middle), (middle, end))
        return [dataclasses.replace(self, piece=piece) for piece in pieces]

    @property
    def size_in_rows(self) -> int:
        start, end = self.piece or (0, self.count)
        return end - start

    @property
    def row_names(self) -> str:
        """Return which rows of its file it has, in words."""
        start, end = self.piece or (0, self.count)
        if end - start == 1:
            return f"row {self.first + start:,}"
        return f"rows {self.first + start:,} to {self.first + end - 1:,}"

    def read(self, keep: Sequence[str], *, with_names: bool) -> list[Row]:
        """Return its rows, ``with_names`` as ``named`` has it."""
        rows = self._lines(keep) if self.rows is None else list(self.rows)
        if len(rows) != self.count:
            raise ChangedError(
                f"{self.path}: has {len(rows):,} lines from line {self.first:,} on where it had "
                f"{self.count:,}; it was changed while it was read"
            )
        if self.piece is not None:
            rows = rows[slice(*self.piece)]
        return [named(row, self.path) for row in rows] if with_names else rows

    def _lines(self, keep: Sequence[str]) -> list[Row]:
        """Return its rows, made of the bytes that were there when the run began. Raises
        ChangedError where others are there now."""
        digest = hashlib.sha256()
        place = (self.start, self.size, self.first, self.count)
        with _reading(self.path):
            rows = list(read_lines(Path(self.path), *place, keep=keep, seen=digest.update))
        now = digest.digest()[:_DIGEST_BYTES]
        if now != self.sha256:
            last = self.first + self.count - 1
            name = f"{self.path}, lines {self.first:,} to {last:,}"
            raise ChangedError.of(name, now.hex(), self.sha256.hex())
        return rows

    def fingerprint(self) -> str:
        """Return a hash of its rows, as they were read: of all that their output depends on."""
        digest = hashlib.sha256()
        for row in self.rows or ():
            # an id or a kept field may be JSON as it was written
            rest = [row.id, row.kept, row.error, len(row.texts), row.origins]
            digest.update(msgspec.json.encode(rest) + b"\0")
            for text in row.texts:
                data = text.encode("utf-8", "surrogatepass")
                digest.update(f"{len(data)}\0".encode() + data)
        return digest.hexdigest()


@dataclass(frozen=True)
class _Cut:
    """Where the shards of one file of lines begin: byte offsets and line numbers; and how many
    bytes and lines it has."""

    starts: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    size: int
    lines: int
    digests: bytes  # the first half of each shard's SHA-256, one after the other


class Input:
    """The files of one run, in order. ``spec`` is a path, a pattern, or ``-``; after it
    ``?delimiter=`` may say what separates the fields of CSV files."""

    def __init__(self, spec: str) -> None:
        spec, self.delimiter = split_delimiter(spec)
        files = [] if spec == STDIN else _files(spec, self.delimiter)
        self.paths = [str(path) for path in files] or [STDIN]
        if self.delimiter and not any(kind_of(path) in (".csv", ".tsv") for path in files):
            raise InputFileError(f"{spec}: delimiter= is for CSV files, and this is none")
        self._cuts: dict[str, _Cut] = {}
        self._seen: dict[str, tuple[_State, str]] = {}  # each file as it was scanned
        #: Rows in all; None until all of it was read where that is the only way to know.
        self.rows: int | None = None
        #: Shards in all, known once ``shards`` has ended.
        self.count = 0

    def scan(self, progress: Progress | None = None) -> list[InputFile]:
        """Read every file once: its hash, and for files of lines where its shards begin."""
        sizes = [0 if p == STDIN else Path(p).stat().st_size for p in self.paths]
        total, done, found = sum(sizes), 0, []
        for path, size in zip(self.paths, sizes, strict=True):
            if path == STDIN:  # its shards' own hashes are checked as they come
                found.append(InputFile(name=STDIN, size=-1, sha256=""))
                continue
            digest, cutter = hashlib.sha256(), _Cutter() if lines_of(Path(path)) else None
            try:
                state = _state(path)
                with Path(path).open("rb") as file:
                    while block := file.read(_BLOCK_BYTES):
                        digest.update(block)
                        if cutter:
                            cutter.feed(block)
                        done += len(block)
                        if progress:
                            progress("read", done, total, "bytes")
            except OSError as error:
                raise InputFileError(f"{path}: cannot be read: {error.strerror}") from error
            if cutter:
                self._cuts[path] = cutter.cut()
            found.append(InputFile(name=path, size=size, sha256=digest.hexdigest()))
            self._seen[path] = state, digest.hexdigest()
        if len(self._cuts) == len(self.paths):
            self.rows = sum(cut.lines for cut in self._cuts.values())
        return found

    def offsets(self) -> list[list[int]]:
        """Return where each file's shards begin, in bytes; empty for what is cut as it is read."""
        cuts = (self._cuts.get(path) for path in self.paths)
        return [cut.starts.tolist() if cut else [] for cut in cuts]

    def shards(
        self, keep: Sequence[str], done: set[int], again: Callable[[Shard], None]
    ) -> Iterator[Shard]:
        """Yield the shards that are not ``done``, in order; sets ``rows`` and ``count`` at the end.

        ``again`` is shown the shards of standard input that are done: nothing else can tell
        whether it is the input it was.
        """
        index = total = 0
        for path in self.paths:
            if cut := self._cuts.get(path):
                edges = zip(
                    [*cut.starts.tolist(), cut.size],
                    [*cut.firsts.tolist(), cut.lines + 1],
                    strict=True,
                )
                for i, ((start, first), (end, following)) in enumerate(pairwise(edges)):
                    if index not in done:
                        own = cut.digests[i * _DIGEST_BYTES : (i + 1) * _DIGEST_BYTES]
                        yield Shard(index, path, first, following - first, start, end - start, own)
                    index += 1
                total += cut.lines
                continue
            first = 1
            for rows in _streamed(path, keep, self.delimiter):
                self._check(path)
                shard = Shard(index, path, first, len(rows), rows=tuple(rows))
                if index not in done:
                    yield shard
                elif path == STDIN:
                    again(shard)
                first, index, total = first + len(rows), index + 1, total + len(rows)
        self.rows, self.count = total, index

    def _check(self, path: str) -> None:
        """Raise ChangedError where a file that is read from its start is not what was scanned."""
        if path == STDIN:
            return
        before, sha256 = self._seen[path]
        with _reading(path):
            if (now := _state(path)) == before:
                return
            with Path(path).open("rb") as file:  # it may only have been linked, or its mode changed
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise ChangedError.of(path, digest, sha256)
        self._seen[path] = now, sha256


#: What tells of a change without reading: file, size, times of the last writing and change.
_State = tuple[int, int, int, int]


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what the operating system says into an InputFileError that names the file."""
    try:
        yield
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _state(path: str) -> _State:
    found = Path(path).stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def named(row: Row, path: str) -> Row:
    """Return ``row`` of one of several files: where it brings no id, the id says the file too."""
    return row if row.own_id else replace(row, id=f"{path}:{row.line}")


class _Cutter:
    """Finds line ends block by block, and cuts where a shard is full."""

    def __init__(self) -> None:
        self._starts, self._firsts = [0], [1]
        self._offset = 0  # of the next block
        self._lines = 0  # line ends so far
        self._open = False  # bytes after the last line end
        self._digest, self._digests = hashlib.sha256(), bytearray()

    def feed(self, block: bytes) -> None:
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + self._offset + 1
        rest = memoryview(block)
        while True:
            # the shard that is open now ends at the first of these line ends
            full = self._firsts[-1] - 1 + SHARD_ROWS - self._lines - 1
            heavy = int(np.searchsorted(ends, self._starts[-1] + SHARD_BYTES))
            at = min(full, heavy)
            if at >= len(ends):
                break
            self._starts.append(int(ends[at]))
            own = self._starts[-1] - self._offset - (len(block) - len(rest))
            self._digest.update(rest[:own])
            rest = rest[own:]
            self._end_shard()
            self._lines += at + 1
            self._firsts.append(self._lines + 1)
            ends = ends[at + 1 :]
        self._digest.update(rest)
        self._lines += len(ends)
        self._offset += len(block)
        self._open = not block.endswith(b"\n")

    def _end_shard(self) -> None:
        self._digests += self._digest.digest()[:_DIGEST_BYTES]
        self._digest = hashlib.sha256()

    def cut(self) -> _Cut:
        lines = self._lines + self._open
        self._end_shard()
        if self._firsts[-1] > lines:  # nothing follows the last cut (or nothing was there)
            self._starts.pop()
            self._firsts.pop()
        starts, firsts = np.array(self._starts, np.int64), np.array(self._firsts, np.int64)
        return _Cut(starts, firsts, self._offset, lines, bytes(self._digests))


def _streamed(path: str, keep: Sequence[str], delimiter: str | None) -> Iterator[list[Row]]:
    rows: list[Row] = []
    size = 0
    with read_rows(path, keep=keep, delimiter=delimiter) as reader:
        for row in reader:
            rows.append(row)
            size += sum(map(len, row.texts))
            if len(rows) == SHARD_ROWS or size >= SHARD_BYTES:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows


def _files(spec: str, delimiter: str | None) -> list[Path]:
    """Return the files that ``spec`` means: itself, those of a folder, those that fit a pattern;
    sorted by name, hidden ones left out."""
    path = Path(spec)
    try:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path))
            if not found:
                raise InputFileError(f"{spec}: the folder has no files")
            return found
        if has_magic(spec) and not path.exists():
            found = sorted(Path(p) for p in iglob(spec, recursive=True) if Path(p).is_file())
            if not found:
                raise InputFileError(f"{spec}: no file fits this pattern")
            return found
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        raise InputFileError(f"{spec}: cannot be read: {error}") from error
    with read_rows(spec, delimiter=delimiter):  # what cannot be opened fails here, before any work
        pass
    return [path]


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
