"""How much JSON is read whole: what would take too much memory is refused before it does."""

from __future__ import annotations

import json
import resource
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.bounds import MAX_JSON_VALUES, MAX_TEXTS
from guardkit.text import json_text
from guardkit.text.chat import parse_chat, read_chat
from guardkit.text.chat_fields import NotRead
from guardkit.text.json_text import TooManyValues, parsed, refuse_too_many

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text('",[{\\\\ab', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('",\\\\'), inner, max_size=4)
    ),
    max_leaves=20,
)


def count(value: Any) -> int:
    """Return how many values there are, an empty list or object counted as if it had one."""
    if isinstance(value, dict | list) and value:
        return 1 + sum(map(count, value.values() if isinstance(value, dict) else value))
    return 1 + isinstance(value, dict | list)


@given(json_values, st.integers(1, 4))
def test_values_are_counted_whatever_their_strings_hold(value: Any, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_COUNTED_BYTES", block)
        patch.setattr(json_text, "MAX_JSON_VALUES", count(value))
        refuse_too_many(json.dumps(value).encode())
        patch.setattr(json_text, "MAX_JSON_VALUES", count(value) - 1)
        with pytest.raises(TooManyValues):
            refuse_too_many(json.dumps(value).encode())


def test_a_long_text_with_many_commas_is_no_bomb() -> None:
    text = '{"a", [b]} ' * MAX_JSON_VALUES
    assert parsed(json.dumps([text])) == [text]
    assert parsed(text[1:]) is None, "no JSON, and of what kind nobody looks"


def test_a_conversation_of_a_million_messages_is_refused_before_it_takes_memory() -> None:
    data = b"[%s]" % b",".join([b'{"role":"user","content":"x"}'] * 10**6)
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(
        NotRead, match=f"'messages' holds more than {MAX_JSON_VALUES:,} JSON values"
    ):
        parse_chat("messages", data)
    assert time.process_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200 * 1024


def test_a_bomb_within_the_arguments_of_a_call_is_named() -> None:
    call = {"function": {"name": "f", "arguments": "[" + "0," * MAX_JSON_VALUES + "0]"}}
    with pytest.raises(
        NotRead, match=r"messages\[0\]\.tool_calls\[0\].function.arguments holds more"
    ):
        read_chat({"messages": [{"role": "assistant", "tool_calls": [call]}]})


def test_a_line_has_so_many_texts_at_most() -> None:
    messages = [{"role": "user", "content": "x"}] * MAX_TEXTS
    assert len(read_chat({"messages": messages})) == MAX_TEXTS
    with pytest.raises(NotRead, match=f"messages\\[{MAX_TEXTS}\\].content: the line has more than"):
        read_chat({"messages": [*messages, {"role": "user", "content": "attack"}]})
