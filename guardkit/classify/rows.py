"""Rows to classify, read lazily: one Row per input line, in order, whatever the line holds.

    .jsonl .ndjson   an object a line: ``text``, ``prompt``, ``messages`` and others that carry text
    .json            an array of such objects, or lines of them
    .csv .tsv .parquet    columns of these names
    .txt             a text a line
    .gz .zst         around any of them; ``-`` is standard input, JSON lines

``guardkit.data.reader`` reads them, for training too. A line that cannot be read is a Row with an
``error`` that names it; its neighbours do not suffer. The reader never shows what a line held.
"""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from guardkit.classify.json_block import plain_rows
from guardkit.data.fields import TEXT_FIELDS, json_fields, row_of, text_fields
from guardkit.data.files import (
    BOM,
    DAMAGE,
    MAX_LINE_BYTES,
    CutShort,
    kind_of,
    open_bytes,
    uncompressed_name,
)
from guardkit.data.reader import JSON_KINDS, KINDS, RowFile, having, numbered_lines, open_rows
from guardkit.data.spec import split_delimiter
from guardkit.errors import InputFileError
from guardkit.text.chat import TOOL_FIELDS
from guardkit.types import Row

#: A piece this large is not read whole.
_BLOCK_BYTES = 8 * 2**20
#: So few are read one by one where one of them needs a closer look.
_FEW_LINES = 16
_LINES = (".jsonl", ".ndjson", "", ".txt")


class Rows(Iterator[Row]):
    """The rows of an open file. It closes at the last one, or by ``with`` or ``close``."""

    def __init__(self, rows: Iterator[Row], close: Callable[[], None]) -> None:
        self._rows = rows
        self.close = close

    def __next__(self) -> Row:
        try:
            return next(self._rows)
        except StopIteration:
            self.close()
            raise

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_rows(path: str | Path, *, keep: Sequence[str] = (), delimiter: str | None = None) -> Rows:
    """Open ``path`` (``-``: standard input) and return its rows, read as they are asked for.

    ``id`` is the line's own, else its number from 1; ``keep`` names fields to carry along.
    From JSON both are ``msgspec.Raw``, echoed as they were written. Of a conversation every text
    is read (``guardkit.text.chat``). ``delimiter`` separates the fields of a CSV file; without it,
    it is found. Raises InputFileError where the file cannot be opened, is of
    no known kind or has no column to read.
    """
    if str(path) == "-":
        return Rows(_line_rows(sys.stdin.buffer, json_fields, keep), lambda: None)
    path = Path(path)
    kind = kind_of(path)
    if kind in KINDS:
        file = open_rows(
            path, lambda columns: _columns(path, columns, keep), TEXT_FIELDS, delimiter=delimiter
        )
        return Rows(_rows(path, file, keep), file.close)
    if kind in _LINES:
        stream = open_bytes(path, uncompressed_name(path)[1])
        fields_of = text_fields if kind == ".txt" else json_fields
        return Rows(_line_rows(stream, fields_of, keep), stream.close)
    raise InputFileError(
        f"{path}: unknown kind of file {kind!r}; known: {', '.join(KINDS)}, .txt, each also as "
        ".gz or .zst. Name JSON lines .jsonl, or pipe them into `-`"
    )


def one_row(spec: str, number: int | None = None) -> Row:
    """Return row ``number`` of a file, or its only one: a JSON object may then stand over several
    lines, as it may on standard input (``-``).

    Raises InputFileError where there is no such row, or it cannot be read.
    """
    path, delimiter = split_delimiter(spec)
    row = _whole_object(path) if number is None or path == "-" else None
    if row is None:
        with read_rows(path, delimiter=delimiter) as rows:
            found = list(itertools.islice(rows, (number or 1) - 1, number or 2))
        if len(found) != 1:
            has = f"no row {number:,}" if number else "several rows" if found else "no row"
            raise InputFileError(f"{path}: has {has}; choose one with --line")
        row = found[0]
    if row.error is not None:
        raise InputFileError(f"{'standard input' if path == '-' else path}: {row.error}")
    return row


def _whole_object(path: str) -> Row | None:
    """Return what standard input holds, or a file of JSON that is one object; None of others."""
    if path == "-":
        data = sys.stdin.buffer.read(MAX_LINE_BYTES + 1)
    elif kind_of(Path(path)) in (*JSON_KINDS, ""):
        with open_bytes(Path(path), uncompressed_name(Path(path))[1]) as stream, suppress(*DAMAGE):
            data = stream.read(MAX_LINE_BYTES + 1)
    else:
        return None
    if len(data) > MAX_LINE_BYTES:
        return Row(1, 1, error=f"longer than {MAX_LINE_BYTES:,} bytes") if path == "-" else None
    row = row_of(1, "line", data.removeprefix(BOM), json_fields, ())
    return row if path == "-" or row.error is None else None


def lines_of(path: Path) -> bool:
    """Whether ``path`` is a plain file of lines, which can be cut at any line end."""
    return uncompressed_name(path)[1] is None and kind_of(path) in _LINES and path.is_file()


def read_lines(
    path: Path,
    start: int,
    size: int,
    first: int,
    count: int,
    *,
    keep: Sequence[str] = (),
    seen: Callable[[bytes | memoryview], object] = lambda block: None,
) -> Iterator[Row]:
    """Yield ``count`` rows of a file of lines: the ``size`` bytes from byte ``start``, where line
    ``first`` begins.

    Together such pieces give the rows of ``read_rows``. ``seen`` is shown all of these bytes, in
    order, as they are read: what the rows are made of, and no other reading of the file. Raises
    InputFileError where the file cannot be opened.
    """
    text = path.suffix.lower() == ".txt"
    with open_bytes(path, None) as file:
        file.seek(start)
        block = None
        if not text and size <= _BLOCK_BYTES:
            with suppress(*DAMAGE):  # met again, and told, line by line
                block = file.read(size)
        if block is not None:
            seen(block)
            yield from _block_rows(block, first, keep)
            return
        file.seek(start)
        stream = io.BufferedReader(_Seen(file, size, seen))
        fields_of = text_fields if text else json_fields
        yield from itertools.islice(_line_rows(stream, fields_of, keep, first), count)
        while stream.read(_BLOCK_BYTES):  # more lines than there were: the bytes tell
            pass


class _Seen(io.RawIOBase):
    """The next ``size`` bytes of a file, each shown to ``seen`` when it is read."""

    def __init__(
        self, file: BinaryIO, size: int, seen: Callable[[bytes | memoryview], object]
    ) -> None:
        self._file, self._left, self._seen = file, size, seen
        self.name = file.name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._file.read(min(len(buffer), self._left))
        self._left -= len(block)
        self._seen(block)
        buffer[: len(block)] = block
        return len(block)


def _block_rows(block: bytes, first: int, keep: Sequence[str]) -> list[Row]:
    """Return the rows of whole JSON lines: as many at once as need no closer look."""
    plain = plain_rows(block.removeprefix(BOM) if first == 1 else block, first, keep)
    if plain is not None:
        return plain
    middle = block.find(b"\n", len(block) // 2) + 1
    if middle in (0, len(block)) or block.count(b"\n") <= _FEW_LINES:
        return list(_line_rows(io.BytesIO(block), json_fields, keep, first))
    left, right = block[:middle], block[middle:]
    second = first + left.count(b"\n")
    return _block_rows(left, first, keep) + _block_rows(right, second, keep)


def _line_rows(
    stream: BinaryIO,
    fields_of: Callable[[bytes], Mapping[str, Any]],
    keep: Sequence[str],
    first: int = 1,
) -> Iterator[Row]:
    file = RowFile(numbered_lines(stream, first), fields_of, stream.close, "line")
    return _rows(getattr(stream, "name", "the input"), file, keep)


def _rows(source: Any, file: RowFile, keep: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of ``file``. What is damaged from some row on has one row that says so, or as
    many as the file says there are; where it is the disk or the network that fails there is none:
    it may be read another time."""
    try:
        for number, item, why in file.items:
            if why is None:
                yield row_of(number, file.unit, item, file.fields_of, keep)
            else:
                yield Row(number, number, error=f"{file.unit} {number}: {why}")
    except CutShort as cut:
        if cut.passing:
            raise InputFileError(
                f"{source}: {cut}; where the work is saved (--out), the same command with "
                "--resume goes on"
            ) from cut
        for number in range(cut.number, max(file.rows or 0, cut.number) + 1):
            why = f"{file.unit} {number}: {cut.reason}"
            yield Row(number, number, error=why)


def _columns(path: Path, columns: Sequence[str], keep: Sequence[str]) -> list[str]:
    if not set(columns) & set(TEXT_FIELDS):
        hint = ""
        if len(columns) == 1 and not columns[0].isidentifier():  # a header row of CSV, perhaps
            hint = f". What separates the fields of a CSV file: '{path}?delimiter=CHARACTER'"
        raise InputFileError(f"{path}: no column {', '.join(TEXT_FIELDS)}; {having(columns)}{hint}")
    if missing := [name for name in keep if name not in columns]:
        raise InputFileError(f"{path}: --keep {missing[0]}: no such column; {having(columns)}")
    wanted = (*TEXT_FIELDS, *TOOL_FIELDS, "id", *keep)
    return [name for name in dict.fromkeys(columns) if name in wanted]
