"""Plain JSON lines parsed many at a time; a line that needs a closer look is left to ``rows``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from guardkit.data.fields import TEXT_FIELDS, may_hide_keys
from guardkit.types import Row

#: Fields that carry texts, too: their lines are not plain.
_OTHERS = tuple(name for name in TEXT_FIELDS if name not in ("text", "prompt"))
_others = attrgetter(*_OTHERS)
_NONE = (UNSET,) * len(_OTHERS)
#: The keys of a text. As bytes they can stand more often than as keys, never less often.
_KEY = re.compile(rb'"(?:text|prompt)"')
#: A carriage return that ends no line: white space that ``guardkit.classify.rows`` does not echo.
_LONE_RETURN = re.compile(rb"\r(?!\n)")


def plain_rows(block: bytes, first: int, keep: Sequence[str]) -> list[Row] | None:
    """Return the rows of the whole lines in ``block``, ``first`` the number of the first, or None
    where one of them is not plain.

    Plain is UTF-8, an object, a string as ``text`` or as ``prompt``, neither of them twice, and no
    other field that carries a text. Of such lines this makes what ``guardkit.classify.rows`` makes
    of each on its own.
    """
    decode = _decoder(tuple(keep))
    if decode is None or (b"\r" in block and _LONE_RETURN.search(block)):
        return None
    try:
        block.decode()  # what is skipped must be UTF-8, too
        lines = [decode(line) for line in block.removesuffix(b"\n").split(b"\n")]
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    rows, keys = [], 0
    for number, line in enumerate(lines, first):
        text, prompt, own = line.text, line.prompt, line.id
        keys += (text is not UNSET) + (prompt is not UNSET)
        if not isinstance(text, str):
            text = prompt
        elif isinstance(prompt, str):
            return None
        if not isinstance(text, str) or _others(line) != _NONE:
            return None
        own_id = own is not UNSET
        kept = _kept(line, keep) if keep else {}
        rows.append(Row(number, own if own_id else number, (text,), None, kept, own_id))
    if len(_KEY.findall(block)) != keys or may_hide_keys(block):
        return None
    return rows


def _kept(line: Any, keep: Sequence[str]) -> dict[str, Raw]:
    values = ((name, getattr(line, f"kept_{i}")) for i, name in enumerate(keep))
    return {name: value for name, value in values if value is not UNSET}


@cache
def _decoder(keep: tuple[str, ...]) -> Any:
    """Return what decodes a line into the fields that are looked at and those of ``keep``; None
    where no struct can have such fields."""
    text, rest = str | None | UnsetType, Raw | UnsetType
    kinds: dict[str, Any] = {"text": text, "prompt": text, "id": rest}
    kinds |= dict.fromkeys(_OTHERS, rest)
    names = {f"kept_{i}": name for i, name in enumerate(keep)}
    if len({*kinds, *keep}) < len(kinds) + len(keep) or not all(map(_simple, keep)):
        return None
    kinds |= dict.fromkeys(names, rest)
    fields = [(name, kind, UNSET) for name, kind in kinds.items()]
    return msgspec.json.Decoder(msgspec.defstruct("Line", fields, rename=names)).decode


def _simple(name: str) -> bool:
    return name.isprintable() and '"' not in name and "\\" not in name
