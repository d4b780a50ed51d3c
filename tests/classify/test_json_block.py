"""Lines parsed many at a time come to what each comes to on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardkit.classify import rows
from guardkit.classify.json_block import plain_rows
from guardkit.classify.rows import read_lines, read_rows
from guardkit.types import Row

names = st.sampled_from(["text", "prompt", "messages", "input", "system", "id", "kept", "x"])
values = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=5),
    st.sampled_from(["text", '"prompt"', [{"content": "a"}], {"text": "b"}, "\U0001f600"]),
)
pairs = st.lists(st.tuples(names, values), max_size=4)


def written(pairs: list[tuple[str, Any]]) -> bytes:
    """Return an object with these keys, the same one twice where it stands there twice."""
    fields = (f"{json.dumps(k)}:{json.dumps(v, ensure_ascii=False)}" for k, v in pairs)
    return f"{{{', '.join(fields)}}}".encode()


HARD = [
    b"", b" ", b"\r", b"[]", b"null", b'{"text": "a"', b'{"text": "a"} {"text": "b"}',
    b'{"text": "\xff"}', b'{"text": "a", "x": "\xff"}', b'{"text": "\\ud800"}',
    b'{"\\u0074ext": "a"}', b'{"text": "a", "\\u0074ext": "b"}', b'{"text": "a", "text": "b"}',
    b'{"text": "a", "prompt": "b"}', b'{"text": "", "prompt": "b"}', b'{"text": "a", "input": "b"}',
    b'{"text": "a", "system": "b"}', b'{"text": "a", "instructions": "b"}',
    b'{"text": "a", "tools": ["b"]}', b'{"text": "a", "\\u0069nput": "b"}',
    b'{"text": "a", "prompt": 1}', b'{"text": "a", "messages": 1}', b'{"text": "a", "id": [1,\r2]}',
    b'{"text": "a", "kept": {"b":\r1}}', b"\xef\xbb\xbf" + b'{"text": "a"}',
    b'{"text": "a", "x": ' + b"[" * 2000 + b"]" * 2000 + b"}", b'{"text": "a", "x": 01}',
    b'{"text": "a", "x": "\x01"}', b'{"text": null, "prompt": "b"}', b'{"text": "caf\xc3\xa9"}',
    b'{"text": "caf\\u00e9"}', b'{"text": "a\\\\u0074"}', b'{"text": "a"}\r', b"{",
]  # fmt: skip
lines = st.lists(pairs.map(written) | st.sampled_from(HARD) | st.just(b'{"text": "plain"}'))


def seen(row: Row) -> tuple[Any, ...]:
    """Return a row with its JSON as the bytes it was."""
    raw = {name: bytes(value) for name, value in row.kept.items()}
    identity = bytes(row.id) if isinstance(row.id, msgspec.Raw) else row.id
    return row.line, identity, row.texts, row.error, raw, row.own_id, row.origins


@settings(max_examples=300, deadline=None, derandomize=True)
@given(lines, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.sampled_from([(), ("kept",)]))
@example([b'{"text": "plain"}'] * 100 + [b"bad"], b"\n", False, ())
@example([b"\xef\xbb\xbf" + b'{"text": "plain"}'] * 2, b"\n", True, ())
def test_a_piece_read_at_once_gives_the_rows_read_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    end: bytes,
    final: bool,
    keep: tuple[str, ...],
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_bytes(end.join(lines) + (end if final else b""))
    one_by_one = list(read_rows(path, keep=keep))
    size = path.stat().st_size
    for large in (size, 0):  # a piece that is larger than this is read line by line
        shown = bytearray()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows, "_BLOCK_BYTES", large)
            piece = read_lines(path, 0, size, 1, len(one_by_one), keep=keep, seen=shown.extend)
            assert list(map(seen, piece)) == list(map(seen, one_by_one))
        assert bytes(shown) == path.read_bytes(), "every byte is shown, once, in order"


@pytest.mark.parametrize("line", HARD, ids=range(len(HARD)))
def test_what_is_parsed_at_once_is_what_the_line_says_on_its_own(
    tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n" + line + b"\n")  # not first, where a byte order mark may stand
    found = plain_rows(line + b"\n", 2, ("kept",))
    assert found is None or list(map(seen, found)) == [
        seen(row) for row in list(read_rows(path, keep=("kept",)))[1:]
    ]


def test_ordinary_lines_are_plain() -> None:
    block = b'{"text": "a\\n\\"b\\" \\u00e9 \xc3\xa9", "id": "x", "y": [1]}\r\n{"prompt": "c"}'
    found = plain_rows(block, 7, ("y",))
    assert found is not None
    assert [seen(row) for row in found] == [
        (7, b'"x"', ('a\n"b" é é',), None, {"y": b"[1]"}, True, ()),
        (8, 8, ("c",), None, {}, False, ()),
    ]


@pytest.mark.parametrize("keep", [("text",), ("id", "id"), ('a"b',), ("a\\b",), ("\udcff",)])
def test_names_no_struct_can_have_are_left_to_the_reader_of_single_lines(
    keep: tuple[str, ...],
) -> None:
    assert plain_rows(b'{"text": "a"}', 1, keep) is None
