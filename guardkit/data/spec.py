"""What a data spec says: where the examples are, which columns are which, which rows to keep."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from guardkit.errors import DataError

#: Columns looked for, in this order, where a spec names none.
COLUMNS = {
    "text": ("text", "prompt", "review", "sentence", "content", "messages"),
    "label": ("label", "labels", "sentiment"),
    "group": ("group", "movie"),
    "source": ("source",),
}
_OPTION = re.compile(r"(.+)\?([a-z]+)=(.+)", re.DOTALL)
_SINGLE = ("split", "config", "delimiter")


@dataclass(frozen=True, slots=True)
class Spec:
    """A data spec (``data.examples``), taken apart."""

    given: str
    location: str
    hub: bool
    columns: Mapping[str, str] = field(default_factory=dict)  # text, label, group, source
    split: str | None = None
    config: str | None = None
    delimiter: str | None = None  # what separates the fields of CSV files
    where: Sequence[tuple[str, frozenset[str]]] = ()
    base: Path = Path()  # where relative paths start

    def names(self, kind: str) -> Sequence[str]:
        """Return the columns that may be the ``kind`` (text, label, ...), the first one first."""
        return [self.columns[kind]] if kind in self.columns else COLUMNS[kind]

    def conditions(self) -> str:
        """Return its ``where=`` as messages show it; empty if it has none."""
        return " and ".join(f"{column}:{'|'.join(sorted(vs))}" for column, vs in self.where)


def parse_spec(spec: str, base: Path | None = None) -> Spec:
    """Take ``spec`` apart. Raises DataError where it is not written as one."""
    location, _, query = spec.partition("?")
    columns: dict[str, str] = {}
    single: dict[str, str] = {}
    where: list[tuple[str, frozenset[str]]] = []
    for option in query.split("&") if query else []:
        key, equals, value = (unquote(piece) for piece in option.partition("="))
        column, colon, values = value.partition(":")
        if not equals or not value or (key == "where" and not colon):
            raise DataError(f"{spec}: expected key=value or where=COLUMN:VALUE, got {option!r}")
        if key == "where":
            where.append((column, frozenset(values.split("|"))))
        elif key in COLUMNS:
            columns[key] = value
        elif key in _SINGLE:
            single[key] = value
        else:
            known = ", ".join([*COLUMNS, "split", "where", "config", "delimiter"])
            raise DataError(f"{spec}: unknown option {key!r}; known: {known}")
    hub = location.startswith("hf:")
    location = location.removeprefix("hf:")
    if not location:
        raise DataError(f"{spec}: names no data set; expected hf:NAME or a path")
    delimiter = _delimiter(spec, hub, single.get("delimiter"))
    split, config = single.get("split"), single.get("config")
    return Spec(spec, location, hub, columns, split, config, delimiter, where, base or Path())


def split_delimiter(spec: str) -> tuple[str, str | None]:
    """Return the path or pattern in ``spec``, and what separates the fields of CSV files there if
    it says so: ``mail.csv?delimiter=;``.

    Any other question mark is the pattern's or the file's. Raises DataError for an option that
    ``guardkit classify`` does not know.
    """
    found = _OPTION.fullmatch(spec)
    if found is None or _exists(spec):
        return spec, None
    location, key, value = found.groups()
    if key == "delimiter":
        return location, _delimiter(spec, False, unquote(value))
    if _exists(location):
        raise DataError(f"{spec}: unknown option {key!r} for rows to classify; known: delimiter")
    return spec, None


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # no file can have this name
        return False


def _delimiter(spec: str, hub: bool, given: str | None) -> str | None:
    if given is None:
        return None
    if hub:
        raise DataError(f"{spec}: delimiter= is for CSV files, not for a hub data set")
    delimiter = "\t" if given in ("tab", "\\t") else given
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(
            f"{spec}: delimiter={given!r}: expected one character that separates fields, or tab"
        )
    return delimiter
