"""One file, or one split of a hub data set, as columns: the texts, labels, groups and sources of
the rows that a spec keeps, and nothing else of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from guardkit.data.fields import Unreadable, given_twice, json_fields, row_of
from guardkit.data.files import CutShort, kind_of
from guardkit.data.reader import JSON_KINDS, KINDS, Choose, RowFile, having, open_rows
from guardkit.data.spec import Spec
from guardkit.errors import DataError, InputFileError
from guardkit.types import UNLABELLED, Row

#: Between the messages of a conversation that is one text to learn from.
BETWEEN_MESSAGES = "\n\n"
_LONGEST_SHOWN = 60
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: An escape in what may be a key: an escaped letter of text is text, too.
_ESCAPED_KEY = re.compile(rb'\\u[^"\\]*"\s*:')


@dataclass(frozen=True, slots=True)
class Table:
    """The rows that a spec keeps. None: without a label; "": without a group or a source."""

    texts: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are read, and as what."""

    text: str
    label: str | None
    group: str | None
    source: str | None
    where: Sequence[tuple[str, frozenset[str]]]

    def names(self) -> list[str]:
        """Return all of them, each once."""
        read = (self.text, self.label, self.group, self.source, *(c for c, _ in self.where))
        return list(dict.fromkeys(name for name in read if name is not None))


def read_file(path: Path, split: str, spec: Spec, *, label_optional: bool) -> Table:
    """Read the rows of ``path`` that ``spec`` keeps. Raises DataError, which names file, row and
    field."""
    name = f"{path}, split {split}"
    chosen: list[Columns] = []

    def choose(columns: Sequence[str]) -> list[str]:
        chosen.append(choose_columns(name, columns, spec, label_optional=label_optional))
        return chosen[-1].names()

    try:
        if kind_of(path) in JSON_KINDS:
            choose(_keys(path, name, spec))
        with _opened(path, choose, spec) as file:
            rows = _fields(file, name, chosen[0].names())
            return table_of(name, rows, chosen[0], file.names or {})
    except InputFileError as error:
        raise DataError(str(error)) from error


def choose_columns(
    name: str, columns: Sequence[str], spec: Spec, *, label_optional: bool
) -> Columns:
    """Return which of ``columns`` to read. Raises DataError where one that is needed is missing."""

    def one(kind: str, *, optional: bool) -> str | None:
        wanted = spec.names(kind)
        if found := [column for column in wanted if column in columns]:
            return found[0]
        if optional:
            return None
        raise DataError(
            f"{name}: no {kind} column ({' or '.join(wanted)}); {having(columns)}. "
            f"Name it with ?{kind}=COLUMN{_or_delimiter(columns)}"
        )

    text = one("text", optional=False)
    label = one("label", optional=label_optional)
    group = one("group", optional="group" not in spec.columns)
    source = one("source", optional="source" not in spec.columns)
    for column, _ in spec.where:
        if column not in columns:
            raise DataError(f"{name}: where={column}: no such column; {having(columns)}")
    assert text is not None
    return Columns(text, label, group, source, spec.where)


def table_of(
    name: str,
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    columns: Columns,
    names: Mapping[str, Sequence[str]],
) -> Table:
    """Return the rows that fit every ``where``. ``names`` has columns whose numbers stand for
    names. Raises DataError where a row has no text, or a label that is none."""
    table = Table()
    once: dict[str, str] = {}  # of a million equal labels one is held

    def cell(fields: Mapping[str, Any], column: str | None) -> str:
        value = _written(_named(fields, column, names)) if column else ""
        return once.setdefault(value, value)

    for number, fields in rows:
        if any(cell(fields, column) not in values for column, values in columns.where):
            continue
        table.texts.append(_text(f"{name}, row {number}", fields, columns.text))
        label = None
        if columns.label:
            value = _named(fields, columns.label, names)
            label = _label(f"{name}, row {number}", columns.label, value)
        table.labels.append(label and once.setdefault(label, label))
        table.groups.append(cell(fields, columns.group))
        table.sources.append(cell(fields, columns.source))
    return table


@contextmanager
def _opened(path: Path, choose: Choose, spec: Spec) -> Iterator[RowFile]:
    if kind_of(path) not in KINDS:
        known = ", ".join(KINDS)
        raise DataError(
            f"{path}: cannot read this kind of file; known: {known}, each also as .gz or .zst"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    file = open_rows(path, choose, spec.names("text"), delimiter=spec.delimiter)
    try:
        yield file
    finally:
        file.close()


def _keys(path: Path, name: str, spec: Spec) -> list[str]:
    """Return the columns of JSON: every key that some row has, in the order they come."""
    keys: dict[str, None] = {}
    with _opened(path, list, spec) as file, suppress(CutShort):
        for number, item, why in file.items:
            try:
                if why is None:
                    keys.update(dict.fromkeys(_OBJECT.decode(item)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                one = RowFile(iter([(number, item, None)]), json_fields, file.close)
                list(_fields(one, name, ()))  # says what is wrong with it
    return list(keys)


def _fields(
    file: RowFile, name: str, wanted: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield each row's number and fields. Raises DataError at the first that cannot be read."""
    try:
        for number, item, why in file.items:
            if why is not None:
                raise DataError(f"{name}, row {number}: {why}")
            try:
                fields = file.fields_of(item)
                if isinstance(item, bytes):
                    _refuse_repeated(item, wanted)
            except Unreadable as error:
                raise DataError(f"{name}, row {number}: {error}") from error
            yield number, fields
    except CutShort as error:
        raise DataError(f"{name}, {error}") from error


def _refuse_repeated(line: bytes, wanted: Sequence[str]) -> None:
    """Raise Unreadable where a field that is read stands in a JSON object twice."""
    once = all(line.count(b'"%s"' % key.encode()) < 2 for key in wanted)
    simple = all(key.isprintable() and '"' not in key and "\\" not in key for key in wanted)
    if once and simple and not _ESCAPED_KEY.search(line):
        return
    if repeated := given_twice(line, wanted):  # readers disagree which one counts
        raise Unreadable(f"{repeated!r} is given more than once")


def _or_delimiter(columns: Sequence[str]) -> str:
    if len(columns) == 1 and not columns[0].isidentifier():  # a header row of CSV, perhaps
        return ", or what separates the fields of a CSV file with ?delimiter="
    return ""


def _named(fields: Mapping[str, Any], column: str, names: Mapping[str, Sequence[str]]) -> Any:
    """Return a value, of a number that stands for a name the name."""
    value = fields.get(column)
    if column in names and value is not None:
        return None if value == UNLABELLED else names[column][value]
    return value


def _written(value: Any) -> str:
    """Return a value as it was written: of JSON, too; nothing is empty."""
    if isinstance(value, msgspec.Raw):
        written = bytes(value)
        if written.startswith(b'"'):
            return msgspec.json.decode(written, type=str)
        return "" if written == b"null" else written.decode()
    if isinstance(value, bool):
        return str(value).lower()  # as JSON writes it
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def _text(row: str, fields: Mapping[str, Any], column: str) -> str:
    value = fields.get(column)
    plain = _plain(value)
    if isinstance(plain, str) and column != "messages":
        return plain
    if isinstance(plain, list) or (column == "messages" and plain is not None):
        # what classify would judge of it
        found = row_of(0, "", {"messages": value}, lambda fields: fields, ())
        if found.error is None:
            return BETWEEN_MESSAGES.join(_each_once(found))
        raise DataError(f"{row}: column {column!r}: {found.error.partition(': ')[2]}")
    raise DataError(
        f"{row}: column {column!r} holds {_shown(plain)}, not a text; mend or drop the row, or "
        "name another column with ?text="
    )


def _each_once(row: Row) -> Iterator[str]:
    """Yield the texts of a conversation that are no part of another one of them: classify judges
    several parts of a message together as well as each alone."""
    if not row.origins:
        yield from row.texts
        return
    places = {(origin.message, origin.part or "") for origin in row.origins}
    for text, origin in zip(row.texts, row.origins, strict=True):
        part = origin.part or ""
        wholes = {part[:end] for end, sign in enumerate(part) if sign in ".["}
        if not any((origin.message, whole) in places for whole in wholes):
            yield text


def _label(row: str, column: str, value: Any) -> str | None:
    """Return a label's name; -1, null and an empty cell mean unlabelled."""
    plain = _plain(value)
    if isinstance(plain, float) and plain.is_integer():  # integers beside nulls
        plain = int(plain)
    if plain is not None and not isinstance(plain, (str, int)):
        raise DataError(
            f"{row}: column {column!r} holds {_shown(plain)}; a label is a name or a whole number. "
            "Name another column with ?label="
        )
    label = _written(plain)
    return None if label in ("", "-1") else label


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
