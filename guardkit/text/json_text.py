"""The texts in a JSON value, and JSON in a text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from guardkit.bounds import MAX_JSON_VALUES

#: All bytes but the signs before values (each is the first of what holds it, or follows a comma)
#: and the quotation mark, which tells signs that stand in strings.
_NO_SIGN = bytes(set(range(256)).difference(b',[{"'))
_COUNTED_BYTES = 2**20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")

#: What a column of a table can hold, too.
_NO_TEXT = (bool, int, float, Decimal, date, time, timedelta)


class TooManyValues(ValueError):
    """JSON has more values than are read."""

    def __init__(self) -> None:
        super().__init__(f"holds more than {MAX_JSON_VALUES:,} JSON values, the most that are read")


class RepeatedKey(ValueError):
    """An object has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__("an object has a key twice")
        self.key = key


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repeated keys."""


def parsed_once(data: bytes) -> Any:
    """Return the value of the JSON ``data``. Raises RepeatedKey where an object has a key twice,
    TooManyValues where it would take too much memory."""
    refuse_too_many(data)
    return json.loads(data, object_pairs_hook=_once, parse_int=_integer)


def parsed(text: str) -> Any:
    """Return the value that ``text`` is the JSON of, for ``strings``; None where it is no JSON.
    Raises TooManyValues where it would take too much memory."""
    if text.lstrip()[:1] in ("[", "{"):
        refuse_too_many(text.encode("utf-8", "surrogatepass"))
    try:
        return json.loads(text, object_pairs_hook=_Pairs, parse_int=_integer)
    except ValueError:
        return None


def refuse_too_many(data: bytes) -> None:
    """Raise TooManyValues where the JSON ``data`` has more values than are read."""
    if sum(map(data.count, (b",", b"[", b"{"))) < MAX_JSON_VALUES:
        return  # also with the signs that stand in strings
    signs = data.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_SIGN)
    values, inside = 1, np.uint8(0)
    for start in range(0, len(signs), _COUNTED_BYTES):
        sign_N = np.frombuffer(signs, np.uint8)[start : start + _COUNTED_BYTES]
        quote_N = (sign_N == ord('"')).astype(np.uint8)
        inside_N = np.bitwise_xor.accumulate(quote_N) ^ inside
        values += int(np.count_nonzero((quote_N | inside_N) == 0))
        inside = inside_N[-1]
    if values > MAX_JSON_VALUES:
        raise TooManyValues


def strings(value: Any, steps: str = "") -> Iterator[tuple[str, str]]:
    """Yield each string in a JSON value, and each key that is more than a name, with the steps to
    it: ``.query[2]``."""
    if isinstance(value, str):
        yield value, steps
    elif isinstance(value, dict | _Pairs):
        for key, inner in value.items() if isinstance(value, dict) else value:
            if is_name(key):
                yield from strings(inner, f"{steps}.{key}")
            else:  # its place must not repeat it
                yield key, steps
                yield from strings(inner, steps)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from strings(inner, f"{steps}[{i}]")


def carries_text(value: Any) -> bool:
    """Whether a value holds a string anywhere, or a key that is more than a name, or something of
    a type that may hold one."""
    if isinstance(value, dict):
        return any(not is_name(key) or carries_text(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return any(map(carries_text, value))
    return value is not None and not isinstance(value, _NO_TEXT)


def is_name(key: str) -> bool:
    """Whether a key says no more than what a field is called."""
    return _NAME.fullmatch(key) is not None


def kind_of(value: Any) -> str:
    """Return what an error calls a value without showing it."""
    match value:
        case str():
            return "a string"
        case dict():
            return "an object"
        case list():
            return "a list"
        case bool() | int() | float():
            return "a number, true or false"
        case None:
            return "null"
    return f"of type {type(value).__name__}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKey(key)
            seen.add(key)
    return found


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)  # int refuses 5,000 digits
