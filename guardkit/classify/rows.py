"""Rows to classify, read lazily: one Row per input line, in order, whatever the line holds.

    .jsonl .ndjson   an object a line: ``text``, else ``prompt``, else ``messages``
    .csv .parquet    columns of these names
    .txt             a text a line
    .gz .zst         around any of them; ``-`` is standard input, JSON lines

A line that cannot be read is a Row with an ``error`` that names it; its neighbours do not
suffer. The reader never shows what a line held.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from guardkit.classify.json_block import plain_rows
from guardkit.data.fields import (
    TEXT_FIELDS,
    Unreadable,
    json_fields,
    row_of,
    text_fields,
)
from guardkit.errors import InputFileError
from guardkit.types import Row

#: Longer lines are not read into memory; each is one unreadable row.
MAX_LINE_BYTES = 64 * 2**20
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


def read_rows(path: str | Path, *, keep: Sequence[str] = ()) -> Rows:
    """Open ``path`` (``-``: standard input) and return its rows, read as they are asked for.

    ``id`` is the line's own, else its number from 1; ``keep`` names fields to carry along.
    From JSON both are ``msgspec.Raw``, echoed as they were written. ``messages`` give one text
    each. Raises InputFileError where the file cannot be opened, is of no known kind or has no
    column to read.
    """
    if str(path) == "-":
        return Rows(_line_rows(sys.stdin.buffer, json_fields, keep), lambda: None)
    path = Path(path)
    name, compression = _uncompressed_name(path)
    suffix = Path(name).suffix.lower()
    if suffix in _LINES:
        stream = _open(path, compression)
        fields_of = text_fields if suffix == ".txt" else json_fields
        return Rows(_line_rows(stream, fields_of, keep), stream.close)
    if suffix == ".csv":
        return _csv_rows(path, _open(path, compression), keep)
    if suffix == ".parquet":
        return _parquet_rows(path, compression, keep)
    raise InputFileError(
        f"{path}: unknown kind of file {suffix!r}; known: .jsonl, .ndjson, .csv, .txt, .parquet, "
        "each also as .gz or .zst. Name JSON lines .jsonl, or pipe them into `-`"
    )


_BOM = b"\xef\xbb\xbf"
#: What reading on can raise: the disk, a damaged or cut gzip or zstd stream, parquet pages.
_DAMAGE = (OSError, EOFError, zlib.error, ValueError)


def lines_of(path: Path) -> bool:
    """Whether ``path`` is a plain file of lines, which can be cut at any line end."""
    name, compression = _uncompressed_name(path)
    return compression is None and Path(name).suffix.lower() in _LINES and path.is_file()


def read_lines(
    path: Path, start: int, size: int, first: int, count: int, *, keep: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield ``count`` rows of a file of lines: the ``size`` bytes from byte ``start``, where line
    ``first`` begins.

    Together such pieces give the rows of ``read_rows``. Raises InputFileError where the file
    cannot be opened.
    """
    text = path.suffix.lower() == ".txt"
    with _open(path, None) as stream:
        stream.seek(start)
        if not text and size <= _BLOCK_BYTES:
            with suppress(*_DAMAGE):  # met again, and told, line by line
                yield from _block_rows(stream.read(size), first, keep)
                return
            stream.seek(start)
        fields_of = text_fields if text else json_fields
        yield from itertools.islice(_line_rows(stream, fields_of, keep, first), count)


def _block_rows(block: bytes, first: int, keep: Sequence[str]) -> list[Row]:
    """Return the rows of whole JSON lines: as many at once as need no closer look."""
    plain = plain_rows(block.removeprefix(_BOM) if first == 1 else block, first, keep)
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
    number = first - 1
    while True:
        number += 1
        try:
            line = stream.readline(MAX_LINE_BYTES + 1)
            too_long = len(line) > MAX_LINE_BYTES
            rest = line
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE_BYTES + 1)
        except _DAMAGE as error:
            yield _cut_short(stream, "line", number, error)
            return
        if not line:
            return
        if too_long:
            why = f"line {number}: longer than {MAX_LINE_BYTES:,} bytes"
            yield Row(number, number, error=why)
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        yield row_of(number, "line", line, fields_of, keep)


def _csv_rows(path: Path, stream: BinaryIO, keep: Sequence[str]) -> Rows:
    csv.field_size_limit(MAX_LINE_BYTES)
    # bytes that are not UTF-8 become lone surrogates, found again in the row that holds them
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, [])
        _check_columns(path, header, keep)
    except (csv.Error, InputFileError, *_DAMAGE) as error:
        text.close()
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"{path}: cannot read the header row: {error}") from error

    def fields_of(record: list[str]) -> Mapping[str, Any]:
        if len(record) != len(header):
            raise Unreadable(
                f"{len(record)} fields where the header has {len(header)}; a text with commas or "
                "line ends needs quotes"
            )
        try:
            "".join(record).encode()
        except UnicodeEncodeError as error:
            raise Unreadable("not UTF-8") from error
        return dict(zip(header, record, strict=True))

    def rows() -> Iterator[Row]:
        number = 0
        while True:
            number += 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                why = f"row {number}: not CSV, near line {reader.line_num}: {error}"
                yield Row(number, number, error=why)
            except _DAMAGE as error:
                yield _cut_short(stream, "row", number, error)
                return
            else:
                yield row_of(number, "row", record, fields_of, keep)

    return Rows(rows(), text.close)


def _parquet_rows(path: Path, compression: str | None, keep: Sequence[str]) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if compression:  # parquet is read from its end: no way but to unpack it first
            with _open(path, compression) as stream:
                file = pq.ParquetFile(pa.BufferReader(stream.read()))
        else:
            file = pq.ParquetFile(path)
    except _DAMAGE as error:
        raise InputFileError(f"{path}: cannot read it as parquet: {_why(error)}") from error
    names = file.schema_arrow.names
    _check_columns(path, names, keep)
    columns = [name for name in names if name in (*TEXT_FIELDS, "id", *keep)]

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    fields = {name: v for name, v in record.items() if v is not None}
                    yield row_of(number, "row", fields, lambda fields: fields, keep)
        except _DAMAGE as error:
            while number < file.metadata.num_rows:  # how many there are is known: none is lost
                number += 1
                yield _cut_short(path, "row", number, error)

    return Rows(rows(), file.close)


def _check_columns(path: Path, columns: Sequence[str], keep: Sequence[str]) -> None:
    have = f"its columns: {', '.join(columns) or 'none'}"
    if not set(columns) & set(TEXT_FIELDS):
        raise InputFileError(f"{path}: no column {' or '.join(TEXT_FIELDS)}; {have}")
    if missing := [name for name in keep if name not in columns]:
        raise InputFileError(f"{path}: --keep {missing[0]}: no such column; {have}")
    if len(set(columns)) < len(columns):
        raise InputFileError(f"{path}: a column's name repeats; {have}")


def _uncompressed_name(path: Path) -> tuple[str, str | None]:
    for suffix in (".gz", ".zst"):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], suffix
    return path.name, None


def _open(path: Path, compression: str | None) -> BinaryIO:
    """Open for reading bytes; the first one is read now, so that a wrong file fails here."""
    try:
        stream = _stream(path, compression)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be opened: {_why(error)}") from error
    try:
        stream.peek(1)
    except _DAMAGE as error:
        stream.close()
        raise InputFileError(f"{path}: cannot be read: {_why(error)}") from error
    return cast(BinaryIO, stream)


def _stream(path: Path, compression: str | None) -> io.BufferedReader | gzip.GzipFile:
    if compression == ".gz":
        return gzip.GzipFile(path)
    if compression == ".zst":
        # unlike zstandard's reader, pyarrow's reports a stream that was cut short
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def _cut_short(source: Any, unit: str, number: int, error: Exception) -> Row:
    """Return the row that stands for the rest of a damaged file; where it is the disk or the
    network that fails, there is no such row: it may be read another time."""
    if isinstance(error, OSError) and error.errno:
        name = source if isinstance(source, Path) else getattr(source, "name", "the input")
        raise InputFileError(
            f"{name}: {unit} {number}: cannot be read: {_why(error)}; where the work is saved "
            "(--out), the same command with --resume goes on"
        ) from error
    why = f"{unit} {number}: the file cannot be read from here on: {_why(error)}"
    return Row(number, number, error=why)


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
