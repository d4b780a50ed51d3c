"""The one reader of files of rows, for training and for classify: rows as they were written, one
after the other, and of each that cannot be read its number and why.

    .jsonl .ndjson   an object a line
    .json            an array of objects, or an object a line
    .csv .tsv        a header row, then rows of as many fields
    .parquet         a table
    .gz .zst         around any of them

Nothing is guessed: text stays text, whatever it looks like, and a row that is longer or shorter
than the header is an error. Only the columns that are asked for are held.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from guardkit.bounds import MAX_PARQUET_BATCH_BYTES, PARQUET_GROWTH
from guardkit.data import files
from guardkit.data.fields import Unreadable, json_fields
from guardkit.data.files import BOM, DAMAGE, CutShort, kind_of, open_bytes, uncompressed_name, why
from guardkit.data.parquet import open_parquet, records
from guardkit.errors import InputFileError, UsageError

#: A JSON array has to be read whole; as lines it would not.
MAX_ARRAY_BYTES = 2**30
#: A header row longer than this is none.
MAX_HEADER_CHARACTERS = 2**20
#: Columns that a message names; a file may have a million.
_SHOWN_COLUMNS = 30
#: What separates the fields of a CSV file, by what finds a text column first.
DELIMITERS = (",", ";", "\t", "|")
JSON_KINDS = (".jsonl", ".ndjson", ".json")
KINDS = (*JSON_KINDS, ".csv", ".tsv", ".parquet")

#: A row's number from 1, the row, and in place of one that cannot be read why.
Item = tuple[int, Any, str | None]
#: f(the columns there are) -> those to read; raises UsageError where one is missing.
Choose = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True)
class RowFile:
    """An open file. ``items`` ends, or raises CutShort where the file is damaged from there on;
    ``fields_of`` gives a row's fields or raises Unreadable: of JSON ``msgspec.Raw``, of which
    every row has its own, else of the columns that were chosen."""

    items: Iterator[Item]
    fields_of: Callable[[Any], Mapping[str, Any]]
    close: Callable[[], None]
    unit: str = "row"
    rows: int | None = None  # how many there are, where the file says so
    names: Mapping[str, Sequence[str]] | None = None  # column -> what its numbers stand for


def open_rows(
    path: Path, choose: Choose, texts: Sequence[str], *, delimiter: str | None = None
) -> RowFile:
    """Open a file of one of KINDS. What separates the fields of a CSV file is ``delimiter``, else
    what makes one of ``texts`` a column of it.

    Raises InputFileError where it cannot be opened or is not what its name says.
    """
    _, compression = uncompressed_name(path)
    kind = kind_of(path)
    if kind == ".parquet":
        return _parquet(path, compression, choose, texts)
    stream = open_bytes(path, compression)
    if kind in (".csv", ".tsv"):
        offered = [delimiter] if delimiter else ["\t"] if kind == ".tsv" else DELIMITERS
        return _csv(path, stream, choose, texts, offered)
    if kind == ".json" and _starts_an_array(stream):
        return _array(path, stream)
    return RowFile(numbered_lines(stream), json_fields, stream.close, "line")


def numbered_lines(stream: BinaryIO, first: int = 1) -> Iterator[Item]:
    """Yield the lines of ``stream`` without their ends, the first one numbered ``first``."""
    number = first - 1
    while True:
        number += 1
        try:
            line = stream.readline(files.MAX_LINE_BYTES + 1)
            too_long = len(line) > files.MAX_LINE_BYTES
            rest = line
            while len(rest) > files.MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = stream.readline(files.MAX_LINE_BYTES + 1)
        except DAMAGE as error:
            raise CutShort("line", number, error) from error
        if not line:
            return
        if too_long:
            yield number, None, f"longer than {files.MAX_LINE_BYTES:,} bytes"
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        yield number, line.removesuffix(b"\n").removesuffix(b"\r"), None


def refuse_repeated(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise InputFileError where a column that is to be read stands there twice."""
    for name in wanted:
        if columns.count(name) > 1:
            raise InputFileError(f"{path}: a column's name repeats: {name!r}; {having(columns)}")


def having(columns: Sequence[str]) -> str:
    """Say which columns there are."""
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) or "none"
    more = len(columns) - _SHOWN_COLUMNS
    return f"its columns: {shown}{f' and {more:,} more' if more > 0 else ''}"


def _starts_an_array(stream: Any) -> bool:
    return bool(stream.peek(4096).removeprefix(BOM).lstrip()[:1] == b"[")


def _array(path: Path, stream: BinaryIO) -> RowFile:
    with stream:
        try:
            data = stream.read(MAX_ARRAY_BYTES + 1)
        except DAMAGE as error:
            raise InputFileError(f"{path}: cannot be read: {why(error)}") from error
    if len(data) > MAX_ARRAY_BYTES:
        raise InputFileError(
            f"{path}: a JSON array of more than {MAX_ARRAY_BYTES:,} bytes; write it as lines, an "
            "object each (.jsonl)"
        )
    try:
        rows = msgspec.json.decode(data.removeprefix(BOM), type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        half = "; perhaps half a surrogate pair (\\ud800)" if b"\\ud" in data.lower() else ""
        raise InputFileError(
            f"{path}: not a JSON array of objects: {error}{half}; as lines, an object each "
            "(.jsonl), one that is wrong would be named"
        ) from error
    # a line end is white space here; echoed, it would end a line of the output
    items = ((n, bytes(row).replace(b"\n", b" "), None) for n, row in enumerate(rows, 1))
    return RowFile(items, json_fields, lambda: None, rows=len(rows))


class _TooLong(csv.Error):
    """A line is longer than is read into memory."""


class _TextLines:
    """The lines of a text stream; one longer than ``limit`` raises _TooLong and is passed over."""

    def __init__(self, text: io.TextIOWrapper, limit: int) -> None:
        self._text = text
        self.limit = limit  # in characters
        self.number = 0  # of the last line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = part = self._text.readline(self.limit)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) < self.limit:
            return line
        while len(part) == self.limit and not part.endswith(("\n", "\r")):
            part = self._text.readline(self.limit)
        raise _TooLong(f"a line longer than {self.limit:,} characters")


def _csv(
    path: Path, stream: Any, choose: Choose, texts: Sequence[str], offered: Sequence[str]
) -> RowFile:
    csv.field_size_limit(files.MAX_LINE_BYTES)
    start = stream.peek(2)[:2]
    # bytes that are not UTF-8 become lone surrogates, found again in the row that holds them
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        if start in (b"\xff\xfe", b"\xfe\xff"):
            raise InputFileError(f"{path}: UTF-16; save it as UTF-8")
        lines = _TextLines(text, MAX_HEADER_CHARACTERS)
        delimiter, header, rest = _header(lines, texts, offered)
        lines.limit = files.MAX_LINE_BYTES
        if not _is_utf8(header):
            raise InputFileError(f"{path}: the header row is not UTF-8; save the file as UTF-8")
        wanted = choose(header)
        refuse_repeated(path, header, wanted)
    except UsageError:
        text.close()
        raise
    except (csv.Error, *DAMAGE) as error:
        text.close()
        raise InputFileError(f"{path}: cannot read the header row: {why(error)}") from error
    places = [(header.index(name), name) for name in wanted]

    def fields_of(record: list[str]) -> Mapping[str, Any]:
        if len(record) != len(header):
            raise Unreadable(_wrong_length(record, header))
        if not _is_utf8(record):
            wrong = next(h for h, cell in zip(header, record, strict=True) if not _is_utf8([cell]))
            raise Unreadable(f"not UTF-8; column {wrong!r}")
        return {name: record[place] for place, name in places}

    reader = csv.reader(itertools.chain(rest, lines), delimiter=delimiter, strict=True)
    before = lines.number - len(rest)

    def items() -> Iterator[Item]:
        number = 0
        while True:
            number += 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, None, f"not CSV, near line {before + reader.line_num}: {error}"
            except DAMAGE as error:
                raise CutShort("row", number, error) from error
            else:
                yield number, record, None

    return RowFile(items(), fields_of, text.close)


def _header(
    lines: Iterator[str], texts: Sequence[str], offered: Sequence[str]
) -> tuple[str, list[str], list[str]]:
    """Return what separates the fields, the columns' names, and the lines that were read."""
    kept: list[str] = []

    def again() -> Iterator[str]:
        yield from kept
        while sum(map(len, kept)) < MAX_HEADER_CHARACTERS:
            try:
                kept.append(next(lines))
            except StopIteration:
                return
            yield kept[-1]
        raise _TooLong(f"it is longer than {MAX_HEADER_CHARACTERS:,} characters")

    found: list[tuple[str, list[str], int]] = []
    failed: csv.Error | None = None
    for delimiter in offered:
        reader = csv.reader(again(), delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
        except _TooLong:
            raise
        except csv.Error as error:
            failed = failed or error
            continue
        found.append((delimiter, header, reader.line_num))
        if set(header) & set(texts):
            break
    else:
        if not found and failed:
            raise failed
        # no text column whatever separates them: what is most like columns is shown
        found.append(max(found, key=lambda one: len(one[1])))
    delimiter, header, used = found[-1]
    return delimiter, header, kept[used:]


def _wrong_length(record: Sequence[str], header: Sequence[str]) -> str:
    n, fields = len(record), len(header)
    said = f"{n} field{'s' * (n != 1)} where the header has {fields}; "
    if n == 0:
        return said + "the line is empty"
    if n < fields:
        return said + f"{header[n]!r} is missing"
    return said + "a text with commas or line ends needs quotes"


def _is_utf8(record: Sequence[str]) -> bool:
    try:
        "".join(record).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(path: Path, compression: str | None, choose: Choose, texts: Sequence[str]) -> RowFile:
    import pyarrow as pa

    try:
        if compression:  # parquet is read from its end: no way but to unpack it first
            file = open_parquet(pa.py_buffer(_unpacked(path, compression)))
        else:
            file = open_parquet(path)
    except DAMAGE as error:
        raise InputFileError(f"{path}: cannot read it as parquet: {why(error)}") from error
    about = file.file
    columns = about.schema_arrow.names
    try:
        wanted = choose(columns)
        refuse_repeated(path, columns, wanted)
    except UsageError:
        file.close()
        raise

    def items() -> Iterator[Item]:
        number = 0
        try:
            for record in records(file, wanted, texts=texts):
                number += 1
                yield number, record, None
        except DAMAGE as error:
            raise CutShort("row", number + 1, error) from error

    def fields_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value for name, value in record.items() if value is not None}

    names = _class_names(about.schema_arrow.metadata or {})
    return RowFile(items(), fields_of, file.close, rows=about.metadata.num_rows, names=names)


def _unpacked(path: Path, compression: str) -> bytes:
    """Return all of a compressed file. Raises ValueError where it is a bomb."""
    packed = path.stat().st_size
    limit = max(MAX_PARQUET_BATCH_BYTES, PARQUET_GROWTH * packed)
    with open_bytes(path, compression) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(
            f"unpacks from {packed:,} bytes to more than {limit:,}; at most "
            f"{MAX_PARQUET_BATCH_BYTES:,}, or {PARQUET_GROWTH} times what it is packed"
        )
    return data


def _class_names(metadata: Mapping[bytes, bytes]) -> Mapping[str, Sequence[str]]:
    """Return what ``datasets`` writes into a file of the numbers in it: column -> their names."""
    try:
        told = json.loads(metadata.get(b"huggingface", b"{}"))
        features = told["info"]["features"].items()
        return {name: f["names"] for name, f in features if f.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):  # another's metadata
        return {}
