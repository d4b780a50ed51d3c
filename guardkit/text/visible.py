"""What cannot be seen in a text, spelt out: for people who read one on a page or a terminal."""

from __future__ import annotations

import re
import unicodedata

_OTHERS = re.compile(r"[^\n\t -~]")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str) -> str:
    """Spell out controls, format characters (bidirectional ones too), private and lone ones.

    Line ends and tabs stay.

    >>> visible("a\\u202eb\\x1b")
    'a[U+202E]b[U+001B]'
    """
    return _OTHERS.sub(lambda c: f"[U+{ord(c[0]):04X}]" if _unseen(c[0]) else c[0], text)


def visible_json(json: bytes, encoding: str) -> bytes:
    """Return the same JSON with escapes for what ``visible`` spells out and what ``encoding``
    lacks.

    >>> visible_json('"\u202e é"'.encode(), "latin-1")
    b'"\\\\u202e \\xe9"'
    """

    def shown(match: re.Match[str]) -> str:
        character = match[0]
        if not _unseen(character) and character.encode(encoding, "ignore"):
            return character
        utf16 = character.encode("utf-16-be")
        return "".join(f"\\u{utf16[i : i + 2].hex()}" for i in range(0, len(utf16), 2))

    return _OTHERS.sub(shown, json.decode()).encode(encoding)


def has_unseen(text: str) -> bool:
    """Return whether ``visible`` would spell out anything in ``text``."""
    return any(_unseen(match[0]) for match in _OTHERS.finditer(text))


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN
