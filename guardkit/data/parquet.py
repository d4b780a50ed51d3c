"""Rows of a parquet file as Python values: texts as they are, everything else as JSON can hold it,
and no more of them at once than memory should hold."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from guardkit.bounds import MAX_PARQUET_BATCH_BYTES, PARQUET_GROWTH

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 1024


def open_parquet(source: Any) -> pq.ParquetFile:
    """Open a path or a buffer. A text that many rows repeat is kept once while it is read."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        columns = [file.schema.column(i) for i in range(len(file.schema))]
        repeated = [c.path for c in columns if c.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(source, read_dictionary=repeated)


def records(
    file: pq.ParquetFile, columns: Collection[str], *, texts: Collection[str]
) -> Iterator[Mapping[str, Any]]:
    """Yield each row's ``columns``. In those that are not ``texts``, times, decimals and bytes are
    text (bytes as UTF-8, else hexadecimal), and an ``id`` that is a list is its JSON.

    Raises ValueError where rows unpack to more than ``guardkit.bounds`` allows.
    """
    import pyarrow as pa

    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
        _refuse_a_bomb(batch)
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


def _refuse_a_bomb(batch: pa.RecordBatch) -> None:
    import pyarrow.compute as pc

    unpacked = 0
    for column in batch.columns:
        for leaf in _dictionaries(column):
            lengths = pc.binary_length(leaf.dictionary).cast("int64")
            unpacked += pc.sum(lengths.take(leaf.indices)).as_py() or 0
    if unpacked > max(MAX_PARQUET_BATCH_BYTES, PARQUET_GROWTH * batch.nbytes):
        raise ValueError(
            f"{len(batch):,} rows unpack from {batch.nbytes:,} bytes to {unpacked:,}; at most "
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
