"""YAML 1.2 read strictly: plain data, the line of every value, and every mistake.

What makes YAML surprising is refused, not interpreted: anchors and aliases (a file of nine
lines can expand to 3.5e9 values), tags (``!!python``), duplicate keys (readers disagree which
one counts), directives, several documents, deep nesting. Nothing is ever expanded, and what
YAML 1.1 reads as something else (``no``, ``12:30:45``, ``010``, ``1_000``) stays a string.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner, ScannerError

from guardkit.errors import Problem

#: Keys and indices from the top of the file down to a value.
Place = tuple[str | int, ...]

# The scanner takes about 1 us a character and 30 us a value (Python 3.11), so these keep even
# a hostile file to a fraction of a second. A hand-written file is far below them.
MAX_BYTES = 128 * 1024
MAX_VALUES = 5_000
MAX_DEPTH = 50
MAX_PROBLEMS = 100
_DIRECTIVE = "directives (%YAML, %TAG) are not allowed"
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"

#: In the place of a value that was refused; its problem is recorded already.
REFUSED = object()

_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[\w/-]+")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds. ``data`` is REFUSED where it could not be read at all."""

    data: Any
    lines: Mapping[Place, int]
    problems: tuple[Problem, ...]

    def line(self, place: Place) -> int:
        """Return the line of ``place``, or of the nearest value around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_yaml(content: bytes) -> Document:
    """Read one document; mistakes are returned in it, never raised."""
    if len(content) > MAX_BYTES:
        return _unreadable(1, f"the file has more than {MAX_BYTES:,} bytes, the most that is read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _unreadable(line, f"not UTF-8: byte 0x{content[error.start]:02x}; save it as UTF-8")
    return _Reader(text).document()


def dotted(place: Place) -> str:
    """Return ``place`` as messages show it: ``categories.injection.decide.cascade[0]``."""
    return "".join(map(_dotted_part, place)).removeprefix(".")


def _dotted_part(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if _PLAIN_KEY.fullmatch(part) else f".{part!r}"


def with_values(text: str, place: Place, values: Mapping[str, str]) -> str:
    """Return ``text`` with keys of the mapping at ``place`` set to ``values``, written as YAML.

    A key that is there gets the new value; others are inserted before the mapping's second key.
    Everything else stays as it was, comments included. ``read_yaml`` must have found no problem in
    ``text``, and a mapping that gets a new key must have two keys at least.
    """
    node = YAML(typ="safe", pure=True).compose(text)
    for part in place:
        children = node.value if isinstance(part, int) else {k.value: v for k, v in node.value}
        node = children[part]
    there = {key.value for key, _ in node.value}
    edits = []
    for key, value in node.value:
        if key.value in values:
            start, end, new = value.start_mark.index, _end(value), values[key.value]
            if start == end:  # "weights:" and no more: the mark may stand lines below
                start = end = text.index(":", key.end_mark.index) + 1
                new = f" {new}"
            edits.append((start, end, new))
    if added := [(key, new) for key, new in values.items() if key not in there]:
        second = node.value[1][0].start_mark
        between = ", " if node.flow_style else "\n" + " " * second.column
        lines = "".join(f"{key}: {new}{between}" for key, new in added)
        edits.append((second.index, second.index, lines))
    for start, end, new in sorted(edits, reverse=True):  # from the back: places stay true
        text = text[:start] + new + text[end:]
    return text


class _Stop(Exception):
    """Ends the reading: to go on would be useless or slow. The problem is recorded."""


class _Scanner(Scanner):
    def scan_directive(self) -> Any:
        # here, for ruamel asserts that it knows the version as soon as it is read
        raise ScannerError(None, None, _DIRECTIVE, self.reader.get_mark())

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        # as they open, for the scanner's look-ahead is quadratic in the depth of brackets
        if len(self.flow_context) >= MAX_DEPTH:
            raise ScannerError(None, None, _TOO_DEEP, self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)

    def scan_flow_scalar_non_spaces(self, double: Any, start_mark: Any) -> Any:
        try:
            return super().scan_flow_scalar_non_spaces(double, start_mark)
        except ValueError as error:  # ruamel lets chr() raise on "\U00110000"
            why = "an escape gives no character"
            raise ScannerError(None, None, why, self.reader.get_mark()) from error


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []
        self.values = 0

    def document(self) -> Document:
        data: Any = REFUSED
        try:
            yaml = YAML(typ="safe", pure=True)
            yaml.Scanner = _Scanner
            data = self._only_document(yaml.parse(self.text))
        except _Stop:
            pass
        except YAMLError as error:
            self.problems.append(self._syntax(error))
        return Document(data, self.lines, tuple(self.problems))

    def _syntax(self, error: YAMLError) -> Problem:
        if isinstance(error, ReaderError):
            line = self.text.count("\n", 0, error.position) + 1
            code = error.character if isinstance(error.character, int) else ord(error.character)
            return Problem(line, "", f"character U+{code:04X} is not allowed in YAML")
        mark, what = None, str(error)
        if isinstance(error, MarkedYAMLError):
            mark = error.problem_mark or error.context_mark
            what = ", ".join(part for part in (error.context, error.problem) if part)
        message = what if what in (_TOO_DEEP, _DIRECTIVE) else f"not YAML: {what}"
        return Problem(mark.line + 1 if mark else 1, "", message)

    def _only_document(self, events: Iterator[Any]) -> Any:
        next(events)  # the stream's start
        start = next(events)
        if isinstance(start, StreamEndEvent):
            self._stop(1, (), "the file is empty")
        first = next(events)
        self.lines[()] = _line(first)
        data = self._value(first, events, ())
        next(events)  # the document's end
        after = next(events)
        if not isinstance(after, StreamEndEvent):
            self._stop(_line(after), (), "a second document starts here; one file holds one")
        return data

    def _value(self, event: Any, events: Iterator[Any], place: Place) -> Any:
        line = _line(event)
        self.values += 1
        if self.values > MAX_VALUES:
            self._stop(line, (), f"more than {MAX_VALUES:,} values; put test texts in a data file")
        if isinstance(event, AliasEvent):
            self._problem(line, place, f"aliases (*{event.anchor}) are not allowed; write it out")
            return REFUSED
        if event.anchor is not None:
            self._problem(line, place, f"anchors (&{event.anchor}) are not allowed")
        if event.tag is not None:
            self._problem(line, place, f"tags ({event.tag}) are not allowed")
        if isinstance(event, ScalarEvent):
            self._refuse_half_characters(event, line, place)
            return _resolve(event.value) if event.style is None else event.value
        if len(place) >= MAX_DEPTH:
            self._stop(line, (), _TOO_DEEP)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(events, place)
        assert isinstance(event, MappingStartEvent)
        return self._mapping(events, place)

    def _sequence(self, events: Iterator[Any], place: Place) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            item = (*place, len(items))
            self.lines.setdefault(item, _line(event))
            items.append(self._value(event, events, item))
        return items

    def _mapping(self, events: Iterator[Any], place: Place) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not isinstance(key := next(events), MappingEndEvent):
            line = _line(key)
            if not isinstance(key, ScalarEvent):
                self._stop(line, place, "a key must be a plain word")
            if key.anchor is not None or key.tag is not None:
                self._problem(line, place, "anchors and tags are not allowed")
            self._refuse_half_characters(key, line, place)
            name = key.value  # keys are names: `no:` and `1:` are the texts "no" and "1"
            if name in entries:
                first = self.lines[*place, name]
                self._problem(line, (*place, name), f"duplicate key; first on line {first}")
            self.lines.setdefault((*place, name), line)
            value = self._value(next(events), events, (*place, name))
            entries.setdefault(name, value)
        return entries

    def _refuse_half_characters(self, event: ScalarEvent, line: int, place: Place) -> None:
        if _SURROGATE.search(event.value):  # "\\ud800": no text file could hold it
            self._problem(line, place, "an escape gives half a character (a lone surrogate)")

    def _problem(self, line: int, place: Place, message: str) -> None:
        self.problems.append(Problem(line, dotted(place), message))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Stop

    def _stop(self, line: int, place: Place, message: str) -> None:
        self._problem(line, place, message)
        raise _Stop


def _unreadable(line: int, message: str) -> Document:
    return Document(REFUSED, {}, (Problem(line, "", message),))


def _end(node: Any) -> int:
    """Return where a value ends: a block's own mark stands after the comments below it."""
    while isinstance(node.value, list) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _resolve(text: str) -> Any:
    """Return a plain scalar's value: null, boolean, decimal number, else the text itself.

    Narrower than the YAML 1.2 core schema (no octal, hexadecimal, infinity or leading zeros):
    what is left out is a string, and a field that wants a number says so.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
