"""Rows to classify: one per line, in order, whatever the lines hold."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardkit.classify.rows import read_rows
from guardkit.data import files
from guardkit.data.fields import TEXT_FIELDS, Unreadable, json_fields
from guardkit.errors import InputFileError
from guardkit.text.chat import TOOL_FIELDS
from guardkit.types import Row

PLAIN: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
}


def plain(value: Any) -> Any:
    """Return what an echoed JSON value says."""
    return json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else value


def read(path: Path, data: bytes, keep: tuple[str, ...] = ()) -> list[Row]:
    path.write_bytes(data)
    return list(read_rows(path, keep=keep))


def error_of(path: Path, line: bytes) -> str:
    """Return what is said of ``line`` between two good lines, which must not suffer."""
    good = b'{"text": "good"}\n'
    first, bad, last = read(path, good + line + b"\n" + good)
    assert (first.texts, last.texts, last.line) == (("good",), ("good",), 3)
    assert bad.texts == ()
    assert bad.error is not None
    return bad.error


@pytest.mark.parametrize("name", [*TEXT_FIELDS, *TOOL_FIELDS])
@given(st.data())
@settings(max_examples=20, deadline=None)
def test_a_key_given_twice_is_found_however_it_is_escaped(name: str, data: st.DataObject) -> None:
    escaped = data.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    upper = data.draw(st.booleans())
    form = "\\u00{:02X}" if upper else "\\u00{:02x}"
    key = "".join(form.format(ord(c)) if e else c for c, e in zip(name, escaped, strict=True))
    line = f'{{"{name}": null, "{key}": "attack", "x": "\\u00e9"}}'.encode()
    with pytest.raises(Unreadable, match=f"'{name}' is given more than once"):
        json_fields(line)


def test_escapes_that_can_hide_no_key_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(*_: object, **__: object) -> None:
        raise AssertionError("parsed again")

    monkeypatch.setattr("guardkit.data.fields.json.loads", loads)
    assert json_fields(b'{"text": "caf\\u00e9 \\u4f60\\u597d \\ud83d\\ude00"}')


@pytest.mark.parametrize("compression", PLAIN)
def test_all_that_a_line_says_is_read(tmp_path: Path, compression: str) -> None:
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    objects = [
        {"prompt": "too", "text": "a", "messages": None},
        {"messages": [{"content": "too"}], "prompt": "b"},
        {"messages": [{"role": "user", "content": "c"}, {"role": "tool", "content": parts}]},
        {"text": None, "prompt": "d"},
        {"messages": [{"content": None, "tool_calls": [{}]}, {"content": "e"}]},
        {"text": ""},
    ]
    data = "".join(json.dumps(o) + "\n" for o in objects).encode()
    found = read(tmp_path / f"rows.jsonl{compression}", PLAIN[compression](data))
    assert [row.texts for row in found] == [
        ("a", "too"), ("b", "too"), ("c", "x", "y", "x\ny"), ("d",), ("e",), ("",),
    ]  # fmt: skip
    assert [row.line for row in found] == [row.id for row in found] == [1, 2, 3, 4, 5, 6]
    assert not any(row.error for row in found)


@pytest.mark.parametrize(
    "given_id",
    ['"x"', "12345678901234567890123", "1.50", "null", "true", '{"a": [1, 2]}', '"\\u00e9\\n"'],
)
def test_an_id_and_kept_fields_are_echoed_as_they_were_written(
    tmp_path: Path, given_id: str
) -> None:
    line = f'{{"text": "a", "id": {given_id}, "k": {given_id}, "other": 1}}'.encode()
    (row,) = read(tmp_path / "a.jsonl", line, keep=("k", "absent"))
    assert bytes(row.id).decode() == given_id
    assert {name: bytes(raw).decode() for name, raw in row.kept.items()} == {"k": given_id}


def test_an_unreadable_line_keeps_its_id(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.jsonl", b'{"id": "x7", "text": 5, "k": 1}', keep=("k",))
    assert (plain(row.id), plain(row.kept["k"])) == ("x7", 1)
    assert row.error == "line 1: 'text' must be a string: Expected `str | null`, got `int`"


def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"text": "a"}\r\n{"text":\r"b", "id": [1,\r2]}\n{"text": "c"}'
    found = read(tmp_path / "a.jsonl", data)
    assert [row.texts for row in found] == [("a",), ("b",), ("c",)]
    assert bytes(found[1].id) == b"[1, 2]"  # white space, but a line end to some readers


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "empty; expected an object such as"),
        (b" \t\r", "empty; expected an object such as"),
        (b"{", "not JSON"),
        (b'{"text": "a"} {}', "not JSON"),
        (b'{"text": "a", "x": NaN}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[]", "expected an object such as"),
        (b"null", "expected an object such as"),
        (b'"text"', "expected an object such as"),
        (b"{}", "no text; expected an object such as"),
        (b'{"txt": "a"}', "no text"),
        (b'{"text": null}', "no text"),
        (b'{"text": ["a"]}', "'text' must be a string"),
        (b'{"prompt": 1}', "'prompt' must be a string"),
        (b'{"messages": "a"}', "'messages' must be a list of messages with content"),
        (b'{"messages": ["a"]}', "'messages' must be a list of messages with content"),
        (b'{"messages": [{"role": "user"}]}', "no text"),
        (b'{"text": "a", "messages": 5}', "'messages' must be a list of messages with content"),
        (b'{"text": "a", "prompt": 5}', "'prompt' must be a string"),
        (b'{"input": {"a": "b"}}', "input must be a string or a list of messages"),
        (b'{"messages": []}', "no text"),
        (b'{"messages": [{"content": null}]}', "no text"),
        (
            b'{"messages": [{"content": "a"}, {"content": [{"type": "image_url"}]}]}',
            "a message has a part that is not text",
        ),
        (b'{"messages": [{"content": [{"type": "text"}]}]}', "a part that is not text"),
        (b'{"text": "caf\xe9"}', "not UTF-8: byte 0xe9 at position 13"),
        (b'{"text": "a", "other": "\xff"}', "not UTF-8"),
        (b'{"text": "\xc0\xaf"}', "not UTF-8"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"text": "\\ud800"}', "half a surrogate pair"),
        (b'{"text": "a", "\\udfff": 1}', "half a surrogate pair"),
        (b'{"text": "a\x00"}', "not JSON"),
        (b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b"[" * 100_000, ""),
        (b'{"text": "good", "text": "bad"}', "'text' is given more than once"),
        (b'{"text": "good", "\\u0074ext": "bad"}', "'text' is given more than once"),
        (b'{"input": "a", "input": "b"}', "'input' is given more than once"),
        (b'{"input": "a", "tools": [], "tools": ["b"]}', "'tools' is given more than once"),
        (
            b'{"input": [{"type": "function_call", "arguments": "{\\"a\\": \\"\\\\ud800\\"}"}]}',
            "input[0].arguments.a holds half a surrogate pair",
        ),
        (b'{"prompt": "a", "prompt": "b"}', "'prompt' is given more than once"),
        (b'{"messages": [{"content": "a", "content": "b"}]}', "'content' is given more than once"),
        (
            b'{"messages": [{"content": [{"text": "a", "text": "b"}]}]}',
            "'text' is given more than once",
        ),
    ],
)
def test_an_unreadable_line_says_why_and_harms_no_neighbour(
    tmp_path: Path, line: bytes, said: str
) -> None:
    error = error_of(tmp_path / "a.jsonl", line)
    assert error.startswith("line 2: ")
    assert said in error


def test_what_a_line_held_is_not_repeated(tmp_path: Path) -> None:
    for line in (
        b'{"text": ["hunter2"]}',
        b'{"messages": [{"content": [{"type": "hunter2", "text": "hunter2"}]}]}',
        b'{"hunter2": "hunter2"}',
        b"hunter2",
        b'"hunter2"',
        b'{"text": "hunter2\xff"}',
    ):
        assert "hunter2" not in error_of(tmp_path / "a.jsonl", line)


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a", "meta": {"text": "b", "prompt": 1}}',
        '{"text": "a", "n": 1e400, "m": -0, "big": ' + "9" * 5000 + "}",
        '{"text": "a", "meta": {"x": 1, "x": 2}}',
        '{"text": "a", "": [], "é": "\\u00e9"}',
        '{"text": "a", "note": "the \\"text\\" and \\"text\\" again"}',
    ],
)
def test_other_fields_may_hold_anything_valid(tmp_path: Path, line: str) -> None:
    (row,) = read(tmp_path / "a.jsonl", line.encode())
    assert (row.texts, row.error) == (("a",), None)


def test_a_line_too_long_for_memory_is_one_unreadable_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 100)
    data = b'{"text": "a"}\n' + b"x" * 1000 + b'\n{"text": "b"}\n' + b"y" * 101
    found = read(tmp_path / "a.jsonl", data)
    assert [row.texts for row in found] == [("a",), (), ("b",), ()]
    assert found[1].error == found[3].error.replace("4", "2") == "line 2: longer than 100 bytes"  # type: ignore[union-attr]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
rows_of_text = st.fixed_dictionaries(
    {"text": st.text()}, optional={"id": json_values, "meta": json_values, "ünï": json_values}
)
garbage = st.binary(max_size=40).map(lambda b: b.replace(b"\n", b""))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(rows_of_text | garbage, max_size=8), st.booleans(), st.booleans())
@example([b"", {"text": "\x1c\u2028\x85"}, b"\r"], True, False)
def test_every_line_comes_back_as_one_row_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[dict[str, Any] | bytes],
    ascii_only: bool,
    final_newline: bool,
) -> None:
    encoded = [
        json.dumps(line, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        if isinstance(line, dict)
        else line
        for line in lines
    ]
    data = b"\n".join(encoded) + (b"\n" if final_newline and encoded else b"")
    if encoded and not final_newline and encoded[-1] == b"":
        encoded.pop()  # nothing after the last line end is no line
    found = read(tmp_path_factory.getbasetemp() / "any.jsonl", data)
    assert [row.line for row in found] == [*range(1, len(encoded) + 1)]
    for row, line in zip(found, lines, strict=False):
        if isinstance(line, dict):
            assert (row.texts, row.error) == ((line["text"],), None)
            assert plain(row.id) == line.get("id", row.line)
        elif row.error is not None:
            assert row.error.startswith(f"line {row.line}: ")


@pytest.mark.parametrize("compression", PLAIN)
def test_a_text_file_is_a_text_a_line(tmp_path: Path, compression: str) -> None:
    data = b"\xef\xbb\xbfone\r\n\n{caf\xe9}\nthree\rstill three"
    found = read(tmp_path / f"a.txt{compression}", PLAIN[compression](data))
    assert [row.texts for row in found] == [("one",), (), (), ("three\rstill three",)]
    assert found[1].error == "line 2: empty; expected a text"
    assert found[2].error == "line 3: not UTF-8: byte 0xe9 at position 4"


@pytest.mark.parametrize("compression", PLAIN)
def test_csv_rows_are_read_by_column(tmp_path: Path, compression: str) -> None:
    data = (
        '\ufeffid,prompt,k\r\nx,"a, ""b""\r\nc",1\r\n\r\ny,two,fields,4\r\nz,d,2\r\n'
        'q,"bad"quote,3\r\nr,e,4\r\n'
    ).encode() + b"s,caf\xe9,5\r\nt,f,6\r\n"
    found = read(tmp_path / f"a.csv{compression}", PLAIN[compression](data), keep=("k",))
    assert [(row.line, row.texts) for row in found] == [
        (1, ('a, "b"\r\nc',)), (2, ()), (3, ()), (4, ("d",)), (5, ()), (6, ("e",)), (7, ()),
        (8, ("f",)),
    ]  # fmt: skip
    assert [row.id for row in found] == ["x", 2, 3, "z", 5, "r", 7, "t"]
    assert found[3].kept == {"k": "2"}
    assert [row.error and row.error.split(";")[0] for row in found] == [
        None,
        "row 2: 0 fields where the header has 3",
        "row 3: 4 fields where the header has 3",
        None,
        "row 5: not CSV, near line 7: ',' expected after '\"'",
        None,
        "row 7: not UTF-8",
        None,
    ]


def test_a_quote_that_is_never_closed_is_an_error_row(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", b'text\na\n"b\nc\n')
    assert [row.texts for row in found] == [("a",), ()]
    assert found[1].error is not None


@pytest.mark.parametrize("compression", PLAIN)
def test_parquet_rows_are_read_by_column(tmp_path: Path, compression: str) -> None:
    message = [{"role": "user", "content": "m"}]
    rows = [
        {"text": "a", "prompt": None, "id": 7, "messages": None, "k": 0.5},
        {"text": None, "prompt": "b", "id": None, "messages": None, "k": None},
        {"text": None, "prompt": None, "id": 9, "messages": None, "k": 1.5},
        {"text": None, "prompt": None, "id": 10, "messages": message, "k": 2.5},
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=2)
    path = tmp_path / f"a.parquet{compression}"
    found = read(path, PLAIN[compression](buffer.getvalue()), keep=("k",))
    assert [row.texts for row in found] == [("a",), ("b",), (), ("m",)]
    assert [row.id for row in found] == [7, 2, 9, 10]
    assert [row.kept for row in found] == [{"k": 0.5}, {}, {"k": 1.5}, {"k": 2.5}]
    assert found[2].error is not None
    assert found[2].error.startswith("row 3: no text")


def test_damaged_parquet_loses_no_row(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    table = pa.table({"text": [f"text {i} {'x' * 50}" for i in range(4000)]})
    pq.write_table(table, buffer, row_group_size=2000, compression="snappy", use_dictionary=False)
    data = bytearray(buffer.getvalue())
    half = len(data) // 2
    data[half + 5000 : half + 9000] = b"\xff" * 4000
    found = read(tmp_path / "a.parquet", bytes(data))
    assert len(found) == 4000
    assert found[0].texts == (f"text 0 {'x' * 50}",)
    assert found[-1].error is not None
    assert found[-1].error.startswith("row 4000: the file cannot be read from here on")


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_a_stream_cut_short_is_said_where_it_ends(tmp_path: Path, compression: str) -> None:
    data = b"".join(b'{"text": "%d %s"}\n' % (i, b"x" * (i % 97)) for i in range(20_000))
    packed = PLAIN[compression](data)
    found = read(tmp_path / f"a.jsonl{compression}", packed[: len(packed) // 2])
    assert 0 < len(found) < 20_000
    assert found[0].texts == ("0 ",)
    assert [row.line for row in found] == [*range(1, len(found) + 1)]
    assert all(row.error is None for row in found[:-1])
    assert found[-1].error is not None
    assert "the file cannot be read from here on" in found[-1].error


def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\nnot json\n'))
    monkeypatch.setattr(sys, "stdin", stream)
    first, second = read_rows("-")
    assert (first.texts, second.error is not None) == (("a",), True)


def test_a_file_without_a_suffix_is_json_lines(tmp_path: Path) -> None:
    assert read(tmp_path / "rows", b'{"text": "a"}')[0].texts == ("a",)


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 100_000)
    rows = read_rows(path)
    path.write_bytes(b"")  # what was not read yet is gone
    assert 1 <= len(list(rows)) < 100_000


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.zip", b"", "unknown kind of file '.zip'; known: .jsonl, .ndjson, .json, .csv, .tsv"),
        ("a.jsonl.gz", b"plain", "cannot be read: Not a gzipped file"),
        ("a.jsonl.zst", b"plain", "cannot be read: ZSTD"),
        ("a.parquet", b"plain", "cannot read it as parquet"),
        (
            "a.csv",
            b"",
            "no column text, prompt, system, instructions, messages, input; its columns: none",
        ),
        ("a.csv", b"body,id\n", "its columns: body, id"),
        ("a.csv", b"text,text,k\n", "a column's name repeats"),
        ("a.csv", b"text\n", "--keep k: no such column; its columns: text"),
        ("a.csv", b'"text', "cannot read the header row"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_once(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputFileError) as error:
        read_rows(tmp_path / name, keep=["k"])
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert said in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.jsonl", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputFileError, match=f"cannot be opened: {said}"):
            read_rows(path)
