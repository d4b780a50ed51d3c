"""The one reader of files against independent ones: the standard library's and pandas."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from guardkit.classify.rows import read_rows
from guardkit.data.examples import load_examples
from guardkit.errors import DataError, InputFileError

cells = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["01", "TRUE", "1e1", "NA", "", " ", '"', ",", ";", "\t", "\n", "2024-05-01"]),
)
#: Not \r: the standard library's writer leaves it bare where a reader takes it for a line end.
rows = st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reader")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    rows,
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_is_read_as_the_standard_library_and_pandas_read_it(
    folder: Path, rows: list[tuple[str, str, str]], delimiter: str, quoting: Any, end: str
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([("text", "label", "id"), *rows])
    path = folder / "any.csv"
    path.write_bytes(written.getvalue().encode())

    reference = list(csv.reader(io.StringIO(written.getvalue(), newline=""), delimiter=delimiter))
    assert reference[1:] == [list(row) for row in rows]
    examples = load_examples(str(path))["train"]
    labels = [examples.label_names[y] if y >= 0 else "" for y in examples.labels_N]
    assert examples.texts == [row[0] for row in reference[1:]]
    assert labels == ["" if row[1] == "-1" else row[1] for row in reference[1:]]
    found = list(read_rows(path))
    assert [row.texts for row in found] == [(row[0],) for row in reference[1:]]
    assert [row.id for row in found] == [row[2] for row in reference[1:]]
    if "\0" not in written.getvalue():  # which ends a field to pandas
        frame = pd.read_csv(path, sep=delimiter, dtype=str, keep_default_na=False, index_col=False)
        assert frame["text"].tolist() == examples.texts


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60).filter(lambda data: b"\0" not in data), st.sampled_from(",;\t"))
def test_training_and_classify_read_the_same_rows_or_name_the_same_one(
    folder: Path, body: bytes, delimiter: str
) -> None:
    path = folder / "bytes.csv"
    path.write_bytes(f"text{delimiter}label\n".encode() + body)
    found = list(read_rows(path))
    wrong = next((row for row in found if row.error), None)
    if wrong is None and found:
        texts = load_examples(str(path), need_labels=False)["train"].texts
        assert [(text,) for text in texts] == [row.texts for row in found]
        return
    with pytest.raises(DataError) as error:
        load_examples(str(path), need_labels=False)
    why = f"split train, {wrong.error}" if wrong else "it has no rows"
    assert why in str(error.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("k"), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"text": st.text(st.characters(exclude_categories=["Cs"]))},
            optional={"label": st.text(st.characters(exclude_categories=["Cs"])), "x": json_values},
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_json_is_read_as_the_standard_library_reads_it(
    folder: Path, objects: list[dict[str, Any]], ascii_only: bool, indent: int | None
) -> None:
    assume(any(o.get("label") for o in objects))
    array, lines = folder / "any.json", folder / "any.ndjson"
    array.write_text(json.dumps(objects, ensure_ascii=ascii_only, indent=indent), "utf-8")
    lines.write_text(
        "".join(f"{json.dumps(o, ensure_ascii=ascii_only)}\n" for o in objects), "utf-8"
    )
    reference = json.loads(array.read_text("utf-8"))
    for path in (array, lines):
        examples = load_examples(str(path))["train"]
        assert examples.texts == [o["text"] for o in reference]
        labels = [examples.label_names[y] if y >= 0 else "" for y in examples.labels_N]
        named = [o.get("label", "") for o in reference]
        assert labels == ["" if name == "-1" else name for name in named]
        found = list(read_rows(path, keep=("x",)))
        assert [row.texts for row in found] == [(o["text"],) for o in reference]
        assert [json.loads(bytes(row.kept["x"])) if row.kept else None for row in found] == [
            o.get("x") for o in reference
        ]
        assert not any(b"\n" in bytes(value) for row in found for value in row.kept.values())


def test_a_header_of_megabytes_is_refused_and_the_limit_named(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("text," + "a," * 2_000_000 + "\n")
    with pytest.raises(InputFileError, match="header row: a line longer than 1,048,576 char"):
        read_rows(path)
    path.write_text("body," + "a," * 10_000 + "\n")
    with pytest.raises(InputFileError) as refused:
        read_rows(path)
    assert "and 9,972 more" in str(refused.value)


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b'[{"text": "a", "id": [1,\n2]},\n {"text": "b"}]', [("a",), ("b",)]),
        (b'\xef\xbb\xbf [{"text": "a"}]', [("a",)]),
        (b'{"text": "a"}\n{"text": "b"}\n', [("a",), ("b",)]),
        (b"[]", []),
    ],
)
def test_a_json_file_is_an_array_or_lines(
    tmp_path: Path, data: bytes, texts: list[tuple[str, ...]]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    found = list(read_rows(path))
    assert [row.texts for row in found] == texts
    if b"id" in data:
        assert bytes(found[0].id) == b"[1, 2]"  # on one line, wherever it is echoed


def test_classify_finds_what_separates_the_fields(tmp_path: Path) -> None:
    for name, mark in (("a.csv", ";"), ("b.csv", "\t"), ("c.csv", "|"), ("d.tsv", "\t")):
        (tmp_path / name).write_text(f"id{mark}text\n7{mark}a, b\n")
        (row,) = read_rows(tmp_path / name)
        assert (row.id, row.texts) == ("7", ("a, b",))
