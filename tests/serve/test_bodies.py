"""A record over HTTP is read as the same record in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardkit.classify.rows import read_rows
from guardkit.text.chat import FIELDS, TOOL_FIELDS
from tests.support.serving import ApiError, ClassifyRequest, fields_of, parse_json, rows_of

WORD = st.sampled_from(
    ["a", "an attack", "", "role", "text", "user", "tool", "\u00e9", "[1]", "x y"]
)
NAME = st.sampled_from(
    ["text", "content", "role", "type", "name", "input", "tool_calls", "function", "arguments",
     "messages", "id", "other"]
)  # fmt: skip
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=4),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries({"role": WORD, "content": VALUE}, optional={"name": VALUE})
RECORD = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FIELDS, VALUE), "messages": st.lists(MESSAGE, max_size=3) | VALUE,
        "tools": VALUE, "id": VALUE, "other": VALUE,
    },
)  # fmt: skip


def over_http(body: bytes) -> Any:
    """Return the texts of a body and where they come from, or None where it is refused."""
    try:
        (row,) = rows_of([fields_of(ClassifyRequest.model_validate(parse_json(body)))], "")
    except (ApiError, ValueError):
        return None
    return row.texts, row.origins


@settings(max_examples=400, deadline=None, derandomize=True)
@given(record=RECORD)
def test_a_record_gives_the_same_texts_both_ways(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "one.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with read_rows(path) as rows:
        (row,) = rows
    expected = None if row.error is not None else (row.texts, row.origins)
    assert over_http(json.dumps(record).encode()) == expected


def test_the_comparison_sees_texts_and_refusals(tmp_path: Path) -> None:
    assert over_http(b'{"text": "a"}') == (("a",), ())
    assert over_http(b'{"text": 5}') is None


def test_every_field_that_carries_text_is_one_of_the_request() -> None:
    known = {*FIELDS, *TOOL_FIELDS, "id", "inputs"}
    assert set(ClassifyRequest.model_fields) == known
