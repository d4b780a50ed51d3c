"""What a parquet file would unpack to, read from the headers of its pages before a page is.

A page says how large it is once unpacked, and readers make room for that before they find out; a
few bytes can also stand for any number of texts (dictionaries, prefixes, runs). pyarrow shows no
page headers and has no limit on memory, so they are read here: Thrift's compact protocol, of which
a header needs structures of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from guardkit.bounds import (
    MAX_PARQUET_BATCH_BYTES,
    MAX_PARQUET_PAGES,
    MAX_PARQUET_VALUES,
    PARQUET_GROWTH,
)

_HEADER_BYTES = 2**16
#: Statistics in a header hold values: pyarrow refuses a larger one, too.
_MOST_HEADER_BYTES = 16 * 2**20
#: Of a text that a few bytes repeat: as pyarrow unpacks it, as Python has it, and what they leave.
_COPIES = 4
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_PREFIXES = 7  # DELTA_BYTE_ARRAY: each value says how much of the one before it repeats
_INDICES = (2, 8)  # PLAIN_DICTIONARY, RLE_DICTIONARY


@dataclass
class Pages:
    """The pages of one column in one row group: values, bytes unpacked and bytes packed of each
    page of data; the same bytes of its dictionary; and how the values are encoded."""

    values: list[int] = field(default_factory=list)
    unpacked: list[int] = field(default_factory=list)
    packed: list[int] = field(default_factory=list)
    dictionary: tuple[int, int] = (0, 0)
    encodings: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Column:
    """How a column is read: ``nested`` in lists, of which any number may be in a row; ``once``:
    the texts of its dictionary are not repeated in memory; ``width`` of values of one length."""

    name: str
    nested: bool
    once: bool
    width: int


def pages_of(file: BinaryIO, start: int, size: int) -> Pages:
    """Return the pages of the column chunk in the ``size`` bytes from byte ``start``. Raises
    ValueError where their headers are damaged or do not fit in there."""
    found, at, end = Pages(), start, start + size
    while at < end:
        header, at = _header(file, at, end)
        kind, unpacked, packed = (header.get(i, -1) for i in (1, 2, 3))
        if min(unpacked, packed) < 0 or packed > end - at:
            raise ValueError(f"a page at byte {at:,} says that it has {packed:,} bytes")
        at += packed
        if kind == _DICTIONARY:
            found.dictionary = (unpacked, packed)
        elif kind in (_DATA, _DATA_V2):
            about = header.get(5 if kind == _DATA else 8, {})
            found.values.append(max(0, about.get(1, 0)))
            found.unpacked.append(unpacked)
            found.packed.append(packed)
            found.encodings.add(about.get(2 if kind == _DATA else 4, -1))
        if len(found.values) > MAX_PARQUET_PAGES:
            raise ValueError(f"a column has more than {MAX_PARQUET_PAGES:,} pages in a row group")
    return found


def rows_at_once(columns: Sequence[tuple[Column, Pages]], most: int) -> int:
    """Return how many rows, ``most`` or fewer, may be unpacked together. Raises ValueError where
    not even one may."""
    for column, pages in columns:
        values, packed = sum(pages.values), sum(pages.packed) + pages.dictionary[1]
        if column.nested and values > max(MAX_PARQUET_VALUES, PARQUET_GROWTH * packed):
            raise ValueError(
                f"column {column.name!r}: {packed:,} bytes hold {values:,} values in lists; at "
                f"most {MAX_PARQUET_VALUES:,}, or {PARQUET_GROWTH} times as many as bytes"
            )
    rows = most
    while (grown := sum(_grown(*column, rows) for column in columns)) > MAX_PARQUET_BATCH_BYTES:
        if rows == 1:
            raise ValueError(
                f"a row may unpack to {grown:,} bytes; at most {MAX_PARQUET_BATCH_BYTES:,}, or "
                f"{PARQUET_GROWTH} times what they are packed"
            )
        rows //= 2
    return rows


def _grown(column: Column, pages: Pages, rows: int) -> int:
    """Return what ``rows`` rows in a row of the column may unpack to at most, 0 where that is no
    more than PARQUET_GROWTH times what they are packed."""
    if not pages.values:
        return 0
    # the pages that rows have a part in, the first of them the last row of page i
    ends_P = np.cumsum(pages.values)
    first_P, last_P = np.arange(len(ends_P)), np.searchsorted(ends_P - pages.values, ends_P + rows)
    if column.nested:  # of any row
        first_P, last_P = np.array([0]), np.array([len(ends_P)])
    whole, packed = pages.dictionary
    unpacked_P, packed_P = (
        size + np.diff(np.concatenate([[0], np.cumsum(sizes)])[np.stack([first_P, last_P])], axis=0)
        for size, sizes in ((whole, pages.unpacked), (packed, pages.packed))
    )
    found = int(np.where(unpacked_P > PARQUET_GROWTH * packed_P, unpacked_P, 0).max())
    for size, of in _repeated(column, pages):
        times = sum(pages.values) if column.nested else rows
        if size * times > PARQUET_GROWTH * of:
            found += _COPIES * size * times
    return found


def _repeated(column: Column, pages: Pages) -> Iterator[tuple[int, int]]:
    """Yield the size of the largest value that a few bytes may repeat, and the packed size of what
    it stands in."""
    whole, packed = pages.dictionary
    if not column.once and pages.encodings.intersection(_INDICES):
        yield min(whole, column.width or whole), packed
    if _PREFIXES in pages.encodings:
        largest = max(pages.unpacked)
        yield min(largest, column.width or largest), pages.packed[pages.unpacked.index(largest)]


def _header(file: BinaryIO, at: int, end: int) -> tuple[dict[int, Any], int]:
    """Return the header of the page at byte ``at``, by the numbers of its fields, and where it
    ends."""
    size = _HEADER_BYTES
    while True:
        file.seek(at)
        data = file.read(min(size, end - at))
        reader = _Compact(data)
        try:
            return reader.structure(), at + reader.at
        except IndexError:
            if len(data) < size or size >= _MOST_HEADER_BYTES:
                raise ValueError(f"the page header at byte {at:,} has no end") from None
            size *= 16


class _Compact:
    """Reads a structure of Thrift's compact protocol: its numbers and structures by their field
    numbers; anything else is passed over. Raises IndexError at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def structure(self, depth: int = 0) -> dict[int, Any]:
        found: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            step, kind = kind >> 4, kind & 15
            number = number + step if step else self._zigzag()
            found[number] = self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # true, false
            return 2 - kind
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind in (7, 8):  # a double, bytes
            self._skip(8 if kind == 7 else self._varint())
            return None
        if kind == 12 and depth < 4:
            return self.structure(depth + 1)
        raise ValueError(f"a page header has a field of kind {kind}")

    def _byte(self) -> int:
        byte = self.data[self.at]
        self.at += 1
        return byte

    def _varint(self) -> int:
        found = shift = 0
        while shift < 64:
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
        raise ValueError("a page header has a number of more than 64 bits")

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _skip(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise IndexError
        self.at += size
