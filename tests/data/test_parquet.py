"""Parquet files that others made: any type of id, and little that unpacks to much."""

from __future__ import annotations

import resource
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardkit.bounds import MAX_PARQUET_BATCH_BYTES, MIB
from guardkit.classify.rows import read_rows
from guardkit.cli.main import main

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
    long = [f"{i}" + "a" * 100_000 for i in range(1024)]
    assert [r.texts for r in read_rows(written(tmp_path / "a.parquet", text=long))] == [
        (text,) for text in long
    ]
    often = ["the same prompt", None] * 20_000
    rows = list(read_rows(written(tmp_path / "b.parquet", text=often)))
    assert [bool(row.texts) for row in rows] == [text is not None for text in often]
