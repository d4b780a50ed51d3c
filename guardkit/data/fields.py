"""What one line or record says: its texts, its id and the fields to carry along, or why it is
unreadable."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from guardkit.text.chat import FIELDS, PLAIN, TOOL_FIELDS, parse_chat, read_chat
from guardkit.text.chat_fields import NotRead
from guardkit.text.json_text import TooManyValues, refuse_too_many
from guardkit.types import Origin, Row

#: The fields that carry texts; all that are there are judged.
TEXT_FIELDS = tuple(FIELDS)
#: An escaped lower-case letter, as in ``\\u0074ext``: a key that has one is not found by its bytes.
_ESCAPED_LETTER = re.compile(rb"\\u00[67]")
EXPECTED = 'expected an object such as {"id": 1, "text": "..."}, or with "prompt" or "messages"'


class Unreadable(Exception):
    """Why one line is no row."""


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str | None)


def row_of(
    number: int,
    unit: str,
    item: Any,
    fields_of: Callable[[Any], Mapping[str, Any]],
    keep: Sequence[str],
) -> Row:
    """Return the row of ``item``, the ``unit`` (line or row) of this number. ``fields_of`` gives
    its fields or raises Unreadable."""
    identity, own = number, False
    kept: Mapping[str, Any] = {}
    try:
        fields = fields_of(item)
        identity, own = fields.get("id", number), "id" in fields
        kept = {name: fields[name] for name in keep if name in fields}
        texts, origins = _texts(fields)
        return Row(number, identity, texts, None, kept, own, origins)
    except Unreadable as why:
        return Row(number, identity, (), f"{unit} {number}: {why}", kept, own)


def _texts(fields: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Origin, ...]]:
    """Return the texts of a row and where each comes from; of one plain text there is no need to
    say. Raises Unreadable."""
    found: dict[str, Any] = {}
    for name in (*TEXT_FIELDS, *TOOL_FIELDS):
        if name in fields:
            value = _plain(name, fields[name]) if name in PLAIN else _parsed(name, fields[name])
            if value is not None:
                found[name] = value
    try:
        said = read_chat(found)
    except NotRead as why:
        raise Unreadable(str(why)) from why
    if not said:
        raise Unreadable(f"no text; {EXPECTED}")
    texts = tuple(text for text, _ in said)
    if len(said) == 1 and said[0].origin.message in PLAIN:
        return texts, ()
    return texts, tuple(origin for _, origin in said)


def _plain(name: str, value: Any) -> str | None:
    try:
        text: str | None = _typed(value, _TEXT)
        return text
    except msgspec.ValidationError as error:
        raise Unreadable(f"{name!r} must be a string: {error}") from error


def _typed(value: Any, decoder: msgspec.json.Decoder[Any]) -> Any:
    if isinstance(value, msgspec.Raw):
        return decoder.decode(value)
    return msgspec.convert(value, decoder.type)


def _parsed(name: str, value: Any) -> Any:
    try:
        return parse_chat(name, bytes(value)) if isinstance(value, msgspec.Raw) else value
    except NotRead as why:
        raise Unreadable(str(why)) from why


def json_fields(line: bytes) -> Mapping[str, Any]:
    """Return the fields of a JSON object, each ``msgspec.Raw``. Raises Unreadable."""
    try:
        _utf8(line)
        fields = _OBJECT.decode(line)
        if repeated := _repeated(line, fields):
            # parsers disagree which one counts: what we judge must be what others will read
            raise Unreadable(f"{repeated!r} is given more than once")
    except msgspec.ValidationError as error:
        raise Unreadable(f"{EXPECTED}; {str(error).lower()}") from error
    except msgspec.DecodeError as error:
        if not line.strip():
            raise Unreadable(f"empty; {EXPECTED}") from error
        half = "; perhaps half a surrogate pair (\\ud800)" if b"\\ud" in line.lower() else ""
        raise Unreadable(f"not JSON: {error}{half}; {EXPECTED}") from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    if b"\r" in line:  # white space to JSON, a line end to some who will read it echoed
        return {k: msgspec.Raw(bytes(v).replace(b"\r", b" ")) for k, v in fields.items()}
    return fields


def text_fields(line: bytes) -> Mapping[str, Any]:
    """Return a line of plain text as a field. Raises Unreadable."""
    _utf8(line)
    if not line.strip():
        raise Unreadable("empty; expected a text")
    return {"text": line.decode()}


def _utf8(line: bytes) -> None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise Unreadable(f"not UTF-8: byte 0x{byte:02x} at position {error.start}") from error


def _repeated(line: bytes, fields: Mapping[str, Any]) -> str | None:
    """Return a field that gives a text and stands there twice, if there is one."""
    names = [name for name in (*TEXT_FIELDS, *TOOL_FIELDS) if name in fields]
    once = all(line.count(b'"%s"' % name.encode()) < 2 for name in names)
    return None if once and not may_hide_keys(line) else given_twice(line, names)


def may_hide_keys(data: bytes) -> bool:
    """Whether JSON may have keys of lower-case letters, as are those of texts, that its bytes do
    not show."""
    return _ESCAPED_LETTER.search(data) is not None


def given_twice(line: bytes, names: Collection[str]) -> str | None:
    """Return the first of ``names`` that stands twice among the keys of a JSON object, if one
    does. Raises Unreadable where that would take too much memory."""
    try:
        refuse_too_many(line)
        keys = Counter(key for key, _ in json.loads(line, object_pairs_hook=tuple, parse_int=str))
    except TooManyValues as error:
        raise Unreadable(f"the line {error}; split it") from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    return next((name for name in names if keys[name] > 1), None)
