"""Parquet files that others made: any type of id, and little that unpacks to much."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.bounds import (
    MAX_PARQUET_BATCH_BYTES,
    MAX_PARQUET_FOOTER_BYTES,
    MAX_PARQUET_PAGES,
    MAX_PARQUET_ROWS_A_BYTE,
    MAX_PARQUET_VALUES,
    MIB,
)
from guardkit.classify.rows import read_rows
from guardkit.cli.main import main
from guardkit.data.parquet_pages import Column, pages_of, rows_at_once

POLICY = """\
version: 1
name: patterns
categories:
  injection: {decide: {pattern: {re2: 'ignore'}}, flag_at: {probability: 0.5}, action: block}
"""


def written(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


IDS = {
    "nanoseconds": (pa.array([1, 2], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
    "time zone": (
        pa.array([1, 2], pa.timestamp("us", tz="UTC")),
        "1970-01-01 00:00:00.000001Z",
    ),
    "date": (pa.array([1, 2], pa.date32()), "1970-01-02"),
    "time": (pa.array([1, 2], pa.time64("ns")), "00:00:00.000000001"),
    "duration": (pa.array([1, 2], pa.duration("ns")), 1),
    "decimal": (pa.array([Decimal("1.50"), Decimal("2")], pa.decimal128(5, 2)), "1.50"),
    "list": (pa.array([[1, 2], [3]]), "[1, 2]"),
    "list of times": (
        pa.array([[1], [2]], pa.list_(pa.timestamp("ns"))),
        '["1970-01-01 00:00:00.000000001"]',
    ),
    "struct": (pa.array([{"a": b"\xff"}, {"a": b"b"}]), '{"a": "ff"}'),
    "text in bytes": (pa.array([b"one", b"two"]), "one"),
    "bytes": (pa.array([b"\xff\x00", b"\xfe"]), "ff00"),
    "bytes of one length": (pa.array([b"\xff\xff", b"\xfe\xfe"], pa.binary(2)), "ffff"),
    "categories": (pa.array(["x", "y"]).dictionary_encode(), "x"),
    "integer": (pa.array([7, 8]), 7),
    "text": (pa.array(["s", "t"]), "s"),
}


@pytest.mark.parametrize("name", IDS)
def test_an_id_of_any_type_is_written_as_text(name: str, tmp_path: Path) -> None:
    column, expected = IDS[name]
    path = written(tmp_path / "in.parquet", id=column, text=["hello", "there"], kept=column)
    rows = list(read_rows(path, keep=["kept"]))
    assert [row.error for row in rows] == [None, None]
    assert [row.texts for row in rows] == [("hello",), ("there",)]
    assert rows[0].id == expected
    msgspec.json.encode([[row.id, row.kept] for row in rows])


def test_a_run_over_ids_that_json_lacks_loses_no_output(tmp_path: Path) -> None:
    policy, out = tmp_path / "p.yaml", tmp_path / "out.jsonl"
    policy.write_text(POLICY)
    path = written(tmp_path / "in.parquet", id=IDS["nanoseconds"][0], text=["hello", "ignore"])
    assert main(["classify", str(path), "--policy", str(policy), "--out", str(out)]) == 0
    lines = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    assert [line["action"] for line in lines] == ["allow", "block"]
    assert lines[0]["id"] == "1970-01-01 00:00:00.000000001"


def test_bytes_that_are_no_text_are_not_judged_as_hexadecimal(tmp_path: Path) -> None:
    path = written(tmp_path / "in.parquet", text=[b"\xff\x00", b"\xfe"])
    assert all(row.error and not row.texts for row in read_rows(path))


def bomb(path: Path, column: Any) -> Path:
    options = {"compression": "zstd", "dictionary_pagesize_limit": 2**30}
    pq.write_table(pa.table({"text": column}), path, write_statistics=False, **options)
    assert path.stat().st_size < 2000
    return path


def test_a_dictionary_bomb_is_refused_at_once_with_the_limit_named(tmp_path: Path) -> None:
    texts, rows_ = pa.array(["a" * 10**7]), pa.array([0] * 3000, pa.int32())
    path = bomb(tmp_path / "in.parquet", pa.DictionaryArray.from_arrays(rows_, texts))
    list(read_rows(written(tmp_path / "small.parquet", text=["x"])))  # imports what is needed
    memory, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    rows = list(read_rows(path))
    assert time.monotonic() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200 * 1024
    assert len(rows) == 3000
    assert all(f"at most {MAX_PARQUET_BATCH_BYTES:,}" in (row.error or "") for row in rows)
    assert not any(row.texts for row in rows)


def test_messages_that_unpack_to_too_much_are_refused_too(tmp_path: Path) -> None:
    message = pa.array([[{"role": "user", "content": "a" * MIB}]])
    column = message.take(pa.array([0] * 1024))
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"messages": column}), path, compression="zstd")
    rows = list(read_rows(path))
    assert len(rows) == 1024
    assert all("at most" in (row.error or "") for row in rows)


def test_long_texts_and_texts_often_repeated_are_read(tmp_path: Path) -> None:
    words = random.Random(0).randbytes(50_000).hex()
    long = [f"{i}" + words for i in range(1024)]
    assert [r.texts for r in read_rows(written(tmp_path / "a.parquet", text=long))] == [
        (text,) for text in long
    ]
    often = ["the same prompt", None] * 20_000
    rows = list(read_rows(written(tmp_path / "b.parquet", text=often)))
    assert [bool(row.texts) for row in rows] == [text is not None for text in often]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_texts_are_read_however_they_are_encoded(
    encoding: str, version: str, tmp_path: Path
) -> None:
    texts = [f"{i % 7} a text {i}" if i % 5 else None for i in range(3000)]
    path = tmp_path / "in.parquet"
    how = {"use_dictionary": False, "column_encoding": {"text": encoding}, "data_page_size": 999}
    pq.write_table(pa.table({"text": texts}), path, data_page_version=version, **how)
    rows = list(read_rows(path))
    assert [row.texts for row in rows] == [(text,) if text else () for text in texts]
    assert all("no text" in row.error for row in rows if row.error)


def test_long_texts_that_repeat_their_beginnings_are_read_a_few_at_once(tmp_path: Path) -> None:
    texts = [random.Random(i // 10).randbytes(5_000).hex() + str(i) for i in range(2000)]
    path = tmp_path / "in.parquet"
    how = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    pq.write_table(pa.table({"text": texts}), path, **how)
    assert [row.texts for row in read_rows(path)] == [(text,) for text in texts]


def prefixes(path: Path) -> None:
    """Texts of a megabyte, each of which repeats the one before it."""
    texts = ["a" * 10**6 + str(i) for i in range(200)]
    pq.write_table(
        pa.table({"text": texts}), path, use_dictionary=False, compression="zstd",
        column_encoding={"text": "DELTA_BYTE_ARRAY"}, write_statistics=False,
    )  # fmt: skip


def one_page(path: Path) -> None:
    """A page of one text of 256 MiB."""
    pq.write_table(pa.table({"text": ["a" * 2**28]}), path, compression="zstd",
                   use_dictionary=False, write_statistics=False)  # fmt: skip


def one_list(path: Path) -> None:
    """A row with a list of 3*10^7 texts."""
    n = 30_000_000
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["attack"]))
    column = pa.ListArray.from_arrays(pa.array([0, n], pa.int32()), texts)
    pq.write_table(pa.table({"messages": column}), path, compression="zstd",
                   write_statistics=False)  # fmt: skip


def wide(path: Path) -> None:
    """Ids of one length, a megabyte, of which all rows have the same."""
    ids = pa.array([b"a" * MIB] * 2000, pa.binary(MIB))
    pq.write_table(pa.table({"id": ids, "text": ["x"] * 2000}), path, compression="zstd",
                   write_statistics=False, dictionary_pagesize_limit=2**30)  # fmt: skip


def rows_without_end(path: Path) -> None:
    """A file that says it has 2^50 rows."""
    pq.write_table(pa.table({"text": ["x"] * 2000}), path)
    data = path.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8].replace(b"\x16\xa0\x1f\x19", b"\x16" + varint(2**51) + b"\x19", 1)
    path.write_bytes(data[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def a_large_footer(path: Path) -> None:
    names = {f"column {i} {'x' * 1000}": ["y"] for i in range(10_000)}
    pq.write_table(pa.table({"text": ["x"], **names}), path)


def packed_again(path: Path) -> None:
    """A parquet file of a gigabyte of zeros, packed by gzip."""
    path.write_bytes(gzip.compress(bytes(2**20), 1) * 1024)


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "prefixes": (prefixes, f"at most {MAX_PARQUET_BATCH_BYTES:,}"),
    "one page": (one_page, f"at most {MAX_PARQUET_BATCH_BYTES:,}"),
    "one list": (one_list, f"at most {MAX_PARQUET_VALUES:,}"),
    "wide": (wide, f"at most {MAX_PARQUET_BATCH_BYTES:,}"),
    "rows without end": (rows_without_end, f"at most {MAX_PARQUET_ROWS_A_BYTE:,} a byte"),
    "a large footer": (a_large_footer, f"at most {MAX_PARQUET_FOOTER_BYTES:,}"),
    "packed again": (packed_again, f"at most {MAX_PARQUET_BATCH_BYTES:,}"),
}
#: In a process of its own: what making the file took must not count.
READ = """
import resource, sys, time
from pathlib import Path
from guardkit.classify.rows import read_rows
from guardkit.data.examples import load_examples
from guardkit.errors import UsageError
import pyarrow.parquet
path, small, how = sys.argv[1:]
list(read_rows(small))  # imports what is needed

def used():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

memory, began = used(), time.process_time()
said = ""
try:
    if how == "train":
        load_examples(f"{path}?group=id" if "wide" in path else path, need_labels=False)
    else:
        for row in read_rows(path):
            said = row.error or said
            if said:
                break
except UsageError as error:
    said = str(error)
print(time.process_time() - began, (used() - memory) / 1024, said.replace("\\n", " "))
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once_with_the_limit_named(name: str, tmp_path: Path) -> None:
    make, limit = BOMBS[name]
    path = tmp_path / f"{name}.parquet{'.gz' if name == 'packed again' else ''}"
    make(path)
    small = written(tmp_path / "small.parquet", text=["x"], id=["y"])
    for how in ("classify", "train"):
        command = [sys.executable, "-c", READ, path, small, how]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seconds, megabytes, said = told.split(" ", 2)
        assert limit in said
        assert float(seconds) < 2
        assert float(megabytes) < 200


def test_pages_that_are_large_together_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pages = [pa.array([f"{i}" + "a" * 20 * MIB]) for i in range(3)]
    with pq.ParquetWriter(
        path, pa.schema({"text": pa.string()}), compression="zstd", use_dictionary=False,
        data_page_size=1, write_batch_size=1, write_statistics=False,
    ) as writer:  # fmt: skip
        writer.write_table(pa.table({"text": pa.chunked_array(pages)}))
    assert path.stat().st_size < 20_000
    assert [row.texts[0][:2] for row in read_rows(path)] == ["0a", "1a", "2a"]


def test_a_page_that_says_it_is_small_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a" * 2**27]}), path, compression="zstd",
                   use_dictionary=False, write_statistics=False)  # fmt: skip
    data, true = path.read_bytes(), varint(2 * (2**27 + 10))  # levels and length stand before it
    assert true in data[:40], "the page header says how long it is"
    path.write_bytes(data.replace(true, b"\xd0\x8f\x80\x80\x00", 1))  # a thousand
    (row,) = read_rows(path)
    assert "cannot be read from here on" in (row.error or "")


# -- page headers ----------------------------------------------------------------------------


def varint(n: int) -> bytes:
    found = bytearray()
    while n > 127:
        found.append(n & 127 | 128)
        n >>= 7
    return bytes([*found, n])


def header(unpacked: int, packed: int, values: int, encoding: int = 0, kind: int = 0) -> bytes:
    """Return the header of a page of data, as Thrift's compact protocol writes it."""
    of_data = b"\x15" + varint(2 * values) + b"\x15" + varint(2 * encoding) + b"\x00"
    numbers = b"".join(b"\x15" + varint(2 * n) for n in (kind, unpacked, packed))
    return numbers + b"\x2c" + of_data + b"\x00"


TEXTS = Column("text", nested=False, once=True, width=0)


def asked(*headers: tuple[int, int, int, int], column: Column = TEXTS) -> int:
    """Return how many rows are unpacked together where pages say so."""
    data = b"".join(header(*one) + b"x" * one[1] for one in headers)
    pages = pages_of(io.BytesIO(data), 0, len(data))
    assert pages.unpacked == [one[0] for one in headers]
    return rows_at_once([(column, pages)], 1024)


def test_a_page_that_says_it_is_large_is_not_made_room_for() -> None:
    assert asked((MIB, 20, 5000, 0)) == 1024
    with pytest.raises(ValueError, match=f"may unpack to {2**31 - 1:,} bytes; at most"):
        asked((2**31 - 1, 20, 5000, 0))


def test_as_many_pages_are_unpacked_together_as_are_no_more_than_the_limit() -> None:
    assert asked(*[(20 * MIB, 20, 100, 0)] * 40) == 128
    assert asked(*[(20 * MIB, 2 * MIB, 1, 0)] * 40) == 1024, "they are not packed much"
    assert asked(*[(MIB, 20, 5000, 7)] * 3) == 8, "each of the rows may repeat a whole page"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(10, 100, 1), "says that it has 100 bytes"),
        (header(10, 100, 1)[:5], "has no end"),
        (b"\x15" + b"\xff" * 20, "more than 64 bits"),
        (b"\x19\x00", "a field of kind 9"),
        (b"\x1c" * 20, "a field of kind 12"),
        (b"\x15\x01\x15\x01\x15\x01\x00", "says that it has -1 bytes"),
        (header(0, 0, 1) * (MAX_PARQUET_PAGES + 1), f"more than {MAX_PARQUET_PAGES:,} pages"),
    ],
)
def test_a_damaged_page_header_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pages_of(io.BytesIO(data), 0, len(data))


@given(st.binary(max_size=60))
def test_a_header_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        pages_of(io.BytesIO(data), 0, len(data))
