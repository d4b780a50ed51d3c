"""Kinds of fields in the forms of a conversation: what reads the value of one.

``guardkit.text.chat`` has the forms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from guardkit.bounds import MAX_TEXTS
from guardkit.text.json_text import (
    TooManyValues,
    carries_text,
    is_name,
    kind_of,
    parsed,
    strings,
)
from guardkit.types import Origin, Role

_MOST = "the most that are judged together; split it"
_WHAT_TO_DO = "what it says was not judged: take it out, or put it into 'content'"


class NotRead(Exception):
    """Which part of a record cannot be read as text."""


class Said(NamedTuple):
    """One text and where it came from."""

    text: str
    origin: Origin


class Place(NamedTuple):
    """``messages[3]``, and what of it: ``content[0].text``."""

    message: str
    part: str = ""

    def __str__(self) -> str:
        return f"{self.message}{'.' if self.part[:1] not in ('', '[') else ''}{self.part}"

    def field(self, name: str) -> Place:
        return Place(self.message, f"{self.part}.{name}" if self.part else name)

    def item(self, index: int) -> Place:
        return Place(self.message, f"{self.part}[{index}]")


#: What reads the value of a field: it adds texts, passes over what carries none, or raises NotRead.
Kind = Callable[["Reader", Any, Place, Role | None], None]


@dataclass(frozen=True)
class Form:
    """An object's fields. ``needs`` one of them; ``role``: whose words, if not the message's."""

    fields: Mapping[str, Kind]
    needs: str | None = None
    role: Role | None = None


class Reader:
    """Collects the texts of one record."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    def add(self, text: str, place: Place, role: Role | None) -> None:
        if len(self.said) == MAX_TEXTS:
            raise NotRead(f"{place}: the line has more than {MAX_TEXTS:,} texts, {_MOST}")
        self.said.append(Said(text, Origin(place.message, role, place.part or None)))

    def form(self, form: Form, value: Mapping[str, Any], place: Place, role: Role | None) -> None:
        """Read the fields of an object; one that is not known may carry no text."""
        if form.needs is not None and not isinstance(value.get(form.needs), str):
            no_text(f"{place} has no {form.needs!r}")
        role = form.role or role
        for name, inner in value.items():
            if kind := form.fields.get(name):
                if inner is not None:
                    kind(self, inner, place.field(name), role)
            elif not is_name(name):
                raise NotRead(f"{place} has a field whose name may be a text; {_WHAT_TO_DO}")
            elif carries_text(inner):
                raise NotRead(f"{place.field(name)} is a field that is not known; {_WHAT_TO_DO}")


def text(
    reader: Reader, value: Any, place: Place, role: Role | None, expected: str = "a string"
) -> None:
    """Read a string."""
    if isinstance(value, str):
        reader.add(value, place, role)
    else:
        nothing_in(value, place, expected)


#: call_8f3Kd, toolu_01A09, in_progress, a UUID: two words at most, and long only with digits.
_IDENTIFIER = re.compile(
    r"(?=.{0,20}$|.*[0-9])[A-Za-z]{0,16}[_:.-]?[A-Za-z0-9]{0,80}"
    r"|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")


def identifier(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    """Pass over what looks like an identifier; anything else that stands there is a text."""
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        text(reader, value, place, role)


def sealed(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    """Pass over what only its maker can read: a signature, encrypted reasoning. Of random base64
    one sign in six is a digit, of words in its place hardly any."""
    base64 = isinstance(value, str) and _BASE64.fullmatch(value)
    if not base64 or sum(map(str.isdigit, value)) * 16 < len(value):
        text(reader, value, place, role)


def json_value(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    """Read a JSON value, or a string that holds one, as a whole and each string in it: a whole
    hides what its strings escape, and a string alone misses what stands beside it."""
    if isinstance(value, str):
        reader.add(value, place, role)
        try:
            value = parsed(value)
        except TooManyValues as error:
            raise NotRead(f"{place} {error}; split it") from error
    elif carries_text(value):
        try:
            reader.add(json.dumps(value, ensure_ascii=False), place, role)
        except TypeError as error:  # a column of a table can hold more than JSON
            raise NotRead(f"{place} must be JSON: {error}") from error
    for found, steps in strings(value):
        at = place.part + steps if place.part else steps.removeprefix(".")
        reader.add(found, Place(place.message, at), role)


def spoken_by(role: Role, kind: Kind) -> Kind:
    """Return what reads as ``kind`` does, whoever's message it stands in."""
    return lambda reader, value, place, _: kind(reader, value, place, role)


def object_of(form: Form) -> Kind:
    """Return what reads an object of this form."""

    def read(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
        if isinstance(value, dict):
            reader.form(form, value, place, role)
        else:
            nothing_in(value, place, "an object")

    return read


def objects(form: Form) -> Kind:
    """Return what reads a list of objects of this form."""
    one = object_of(form)

    def read(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
        if not isinstance(value, list):
            return nothing_in(value, place, "a list")
        for i, item in enumerate(value):
            one(reader, item, place.item(i), role)
        return None

    return read


def not_text(_: Reader, value: Any, place: Place, role: Role | None) -> None:
    """Refuse what cannot be judged as text: it must not pass as if it had been."""
    del value, role
    no_text(f"{place} is not text")


def media_type(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    """Pass over ``text/plain`` and its like."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z]{1,12}/[a-z0-9.+-]{1,20}", value):
        text(reader, value, place, role)


def passed_over(_: Reader, value: Any, place: Place, role: Role | None) -> None:
    """Leave alone what was looked at already: the role, and a type that is in a table."""


def nothing_in(value: Any, place: Place, expected: str) -> None:
    """Raise NotRead unless a value of another kind than ``expected`` carries no text."""
    if carries_text(value):
        raise NotRead(f"{place} must be {expected}, and is {kind_of(value)}")


def no_text(what: str) -> NoReturn:
    raise NotRead(f"a message has a part that is not text: {what}")
