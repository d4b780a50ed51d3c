"""Rows of a parquet file as Python values: texts as they are, everything else as JSON can hold it,
and no more of them at once than memory should hold."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from guardkit.bounds import (
    MAX_PARQUET_BATCH_BYTES,
    MAX_PARQUET_FOOTER_BYTES,
    MAX_PARQUET_ROWS_A_BYTE,
    PARQUET_GROWTH,
)
from guardkit.data.parquet_pages import Column, Pages, pages_of, rows_at_once

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 1024
#: With these a column cannot be read as a list of texts and references to it.
_DELTAS = {"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"}


@dataclass(frozen=True)
class ParquetFile:
    """An open file; ``raw`` are its bytes, ``once`` the columns of which a text that many rows
    repeat is kept once while it is read."""

    file: pq.ParquetFile
    raw: BinaryIO
    once: frozenset[str]

    def close(self) -> None:
        self.file.close()
        self.raw.close()


def open_parquet(source: Path | pa.Buffer) -> ParquetFile:
    """Open a path or a buffer. Raises ValueError where it says more of itself, or has more rows,
    than ``guardkit.bounds`` allows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = source.open("rb") if isinstance(source, Path) else pa.BufferReader(source)
    try:
        size = _refuse_a_large_footer(raw)
        with pq.ParquetFile(_again(source)) as file:
            told, schema = file.metadata, file.schema
        if told.num_rows > size * MAX_PARQUET_ROWS_A_BYTE:
            raise ValueError(
                f"{size:,} bytes say that they are {told.num_rows:,} rows; at most "
                f"{MAX_PARQUET_ROWS_A_BYTE:,} a byte"
            )
        texts = [i for i in range(len(schema)) if schema.column(i).physical_type == "BYTE_ARRAY"]
        groups = [told.row_group(g) for g in range(told.num_row_groups)]
        once = frozenset(
            schema.column(i).path
            for i in texts
            if not any(_DELTAS.intersection(group.column(i).encodings) for group in groups)
        )
        return ParquetFile(pq.ParquetFile(_again(source), read_dictionary=[*once]), raw, once)
    except BaseException:
        raw.close()
        raise


def _again(source: Path | pa.Buffer) -> Any:
    import pyarrow as pa

    return source if isinstance(source, Path) else pa.BufferReader(source)


def _refuse_a_large_footer(raw: BinaryIO) -> int:
    """Raise ValueError where the footer is too large; return the size of the file."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - 8))
    footer = int.from_bytes(raw.read(4), "little")
    if MAX_PARQUET_FOOTER_BYTES < footer < size:  # a longer one than the file is damage
        raise ValueError(
            f"a footer of {footer:,} bytes; at most {MAX_PARQUET_FOOTER_BYTES:,}. Write it with "
            "larger row groups"
        )
    return size


def records(
    opened: ParquetFile, columns: Collection[str], *, texts: Collection[str]
) -> Iterator[Mapping[str, Any]]:
    """Yield each row's ``columns``. In those that are not ``texts``, times, decimals and bytes are
    text (bytes as UTF-8, else hexadecimal), and an ``id`` that is a list is its JSON.

    Raises ValueError where rows unpack to more than ``guardkit.bounds`` allows.
    """
    import pyarrow as pa

    for batch in _batches(opened, columns):
        names = batch.schema.names
        others = [name for name in names if name not in texts]
        read = dict(zip(names, batch.columns, strict=True))
        for name in others:
            read[name] = read[name].cast(_written(read[name].type))
        for row in pa.table(read).to_pylist():
            for name in others:
                row[name] = _plain(row[name])
                if name == "id" and isinstance(row[name], list | dict):
                    row[name] = json.dumps(row[name], ensure_ascii=False)
            yield row


def _batches(opened: ParquetFile, columns: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows, as many at once as cannot unpack to more than memory should hold."""
    file = opened.file
    size = opened.raw.seek(0, os.SEEK_END)
    for g in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(g)
        found = []
        for i in range(len(file.schema)):
            about = file.schema.column(i)
            if about.path.partition(".")[0] in columns:
                width = about.length if about.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
                nested = about.max_repetition_level > 0
                column = Column(about.path, nested, about.path in opened.once, width)
                found.append((column, _pages(opened.raw, group.column(i), size)))
        packed = sum(sum(p.packed) + p.dictionary[1] for _, p in found)
        unpacked = seen = 0
        rows = rows_at_once(found, _BATCH_ROWS)
        for batch in file.iter_batches(rows, row_groups=[g], columns=list(columns)):
            _refuse_a_bomb(len(batch), batch.nbytes, _unpacked_texts(batch))
            if rows < _BATCH_ROWS:  # what is read by few rows is counted by as many as ever
                unpacked, seen = unpacked + batch.nbytes, seen + len(batch)
                _refuse_a_bomb(seen, packed, unpacked)
                unpacked, seen = (0, 0) if seen >= _BATCH_ROWS else (unpacked, seen)
            yield batch


def _pages(raw: BinaryIO, chunk: pq.ColumnChunkMetaData, size: int) -> Pages:
    first = [chunk.data_page_offset]
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        first.append(chunk.dictionary_page_offset)
    start, length = min(first), chunk.total_compressed_size
    if not 0 <= start <= start + length <= size:
        raise ValueError(f"column {chunk.path_in_schema!r} says that it has {length:,} bytes")
    return pages_of(raw, start, length)


def _unpacked_texts(batch: pa.RecordBatch) -> int:
    """Return the bytes of the texts that are kept once, as often as rows have them."""
    import pyarrow.compute as pc

    unpacked = 0
    for column in batch.columns:
        for leaf in _dictionaries(column):
            lengths = pc.binary_length(leaf.dictionary).cast("int64")
            unpacked += pc.sum(lengths.take(leaf.indices)).as_py() or 0
    return unpacked


def _refuse_a_bomb(rows: int, packed: int, unpacked: int) -> None:
    if unpacked > max(MAX_PARQUET_BATCH_BYTES, PARQUET_GROWTH * packed):
        raise ValueError(
            f"{rows:,} rows unpack from {packed:,} bytes to {unpacked:,}; at most "
            f"{MAX_PARQUET_BATCH_BYTES:,}, or {PARQUET_GROWTH} times what they are packed"
        )


def _dictionaries(array: Any) -> Iterator[Any]:
    """Yield the parts of a column, nested ones too, that refer to a list of texts."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        yield array
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            yield from _dictionaries(child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        values = array.flatten() if not pa.types.is_map(kind) else array.items
        yield from _dictionaries(values)


def _written(kind: pa.DataType) -> pa.DataType:
    """Return ``kind`` with text for what Python or JSON cannot hold: nanoseconds, the year 10,000,
    decimals."""
    import pyarrow as pa

    is_ = pa.types
    if is_.is_dictionary(kind):
        return _written(kind.value_type)
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return pa.list_(_written(kind.value_type))
    if is_.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pa.struct([pa.field(f.name, _written(f.type)) for f in fields])
    if is_.is_duration(kind):  # no text of its own: the number of its unit
        return pa.int64()
    if is_.is_temporal(kind) or is_.is_decimal(kind):
        return pa.string()
    return kind


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, tuple):  # an entry of a map
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(name): _plain(v) for name, v in value.items()}
    return value
