"""What one line or record says: its texts, its id and the fields to carry along, or why it is
unreadable."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from guardkit.types import Row

#: Where a row's texts are, in order of preference.
TEXT_FIELDS = ("text", "prompt", "messages")
EXPECTED = 'expected an object such as {"id": 1, "text": "..."}, or with "prompt" or "messages"'


class Unreadable(Exception):
    """Why one line is no row."""


class _ContentPart(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_ContentPart] | None  # null where a message only calls a tool

    def text(self) -> str | None:
        if not isinstance(self.content, list):
            return self.content
        texts = [part.text for part in self.content if part.type == "text"]
        if None in texts or len(texts) < len(self.content):
            # an image cannot be judged, and what cannot be judged must not pass as read
            raise Unreadable("a message has a part that is not text")
        return "\n".join(cast(list[str], texts))


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str | None)
_MESSAGES = msgspec.json.Decoder(list[_Message] | None)


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
        return Row(number, identity, _texts(fields), None, kept, own)
    except Unreadable as why:
        return Row(number, identity, (), f"{unit} {number}: {why}", kept, own)


def _texts(fields: Mapping[str, Any]) -> tuple[str, ...]:
    for name in TEXT_FIELDS:
        if name not in fields:
            continue
        try:
            value = _typed(fields[name], _MESSAGES if name == "messages" else _TEXT)
        except msgspec.ValidationError as error:
            what = "a list of messages with content" if name == "messages" else "a string"
            raise Unreadable(f"{name!r} must be {what}: {error}") from error
        if name != "messages" and value is not None:
            return (value,)
        if texts := tuple(t for m in value or () if (t := m.text()) is not None):
            return texts
    raise Unreadable(f"no text; {EXPECTED}")


def _typed(value: Any, decoder: msgspec.json.Decoder[Any]) -> Any:
    if isinstance(value, msgspec.Raw):
        return decoder.decode(value)
    return msgspec.convert(value, decoder.type)


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


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repeated keys."""


def _repeated(line: bytes, fields: Mapping[str, Any]) -> str | None:
    """Return a field that gives a text and stands there twice, if there is one."""
    once = all(line.count(b'"%s"' % name.encode()) < 2 for name in TEXT_FIELDS if name in fields)
    if once and "messages" not in fields and b"\\u00" not in line:  # \u0074ext is text, too
        return None
    top = json.loads(line, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    messages = [m for key, value in top if key == "messages" for m in _objects(value)]
    parts = [p for m in messages for key, value in m if key == "content" for p in _objects(value)]
    for found, names in (([top], TEXT_FIELDS), (messages, ("content",)), (parts, ("text", "type"))):
        for pairs in found:
            keys = [key for key, _ in pairs if key in names]
            if len(set(keys)) < len(keys):
                return Counter(keys).most_common(1)[0][0]  # of a million keys, too
    return None


def _objects(value: Any) -> list[_Pairs]:
    return [v for v in value if isinstance(v, _Pairs)] if isinstance(value, list) else []
