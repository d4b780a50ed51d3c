"""The canonical form of a text: what a person, or a language model, reads in it.

Some attacks hide a text from a classifier but not from its reader: with invisible characters
between the letters, letters of another alphabet that look the same, or text encoded in characters
that are not shown at all (Hackett 2025 passed every guardrail that was tried in such ways). The
canonical form undoes that. It is matched and scored beside the raw text, and never shown: it has no
accents on Latin letters, for example.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from string import ascii_letters

_TAGS = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
#: A flag: the black flag, tags that name the region, and the tag that ends them.
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")
_SELECTOR = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
#: Letters and signs that are not shown, though Unicode does not call them format characters.
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
#: Characters beyond ASCII, with the one before them that their marks may belong to.
_SPECIAL = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")
_SPACES_KEPT = "\t\n\r"
_MARK = re.compile("[\u0300-\u036f]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_WORD = re.compile(r"\w+")
#: A text with this many letters of another alphabet, all of which look Latin, is hardly in it.
_LEAST_ALIKE = 6
#: Cyrillic letters that look like a small Latin capital: used for the letter, and not in the list.
_SMALL_CAPITALS = {
    ord(c): latin for c, latin in zip("\u043a\u0442\u043c\u0432\u043d", "ktmbh", strict=True)
}
#: Rounds at most, until nothing changes; what is hidden three times over has not been seen.
_ROUNDS = 4


def canonical(text: str) -> str:
    """Return the canonical form of ``text``; ASCII text is returned as it is but for control
    characters.

    In this order: tag characters (U+E0020 to U+E007E) become the ASCII they stand for, a flag's
    vanish; runs of variation selectors become the UTF-8 text they carry, where they carry one,
    and vanish otherwise; NFKC (fullwidth and mathematical letters become plain); invisible and
    control characters, bidirectional controls among them, vanish; combining marks on Latin
    letters and signs vanish; letters of other alphabets that look Latin (Unicode's confusables)
    become Latin where a word mixes alphabets, or consists of such letters amid Latin text, or where
    a text has no other letters of its alphabet.
    Linear in the length. Applying it twice changes nothing more.

    >>> canonical("Ｉgn\\u200bоrе аll")
    'Ignore all'
    """
    for _ in range(_ROUNDS):
        before, text = text, _round(text)
        if text == before:
            break
    return text


def _round(text: str) -> str:
    if text.isascii():
        return text.translate(_ascii_controls())
    text = _FLAG.sub("\U0001f3f4", text).translate(_TAGS)
    text = _SELECTOR.sub(_carried, text)
    text = unicodedata.normalize("NFKC", text)
    text = text.translate(_SHOWN)
    return _latin(_SPECIAL.sub(_without_marks, text))


@cache
def _ascii_controls() -> Mapping[int, None]:
    return {code: None for code in (*range(32), 127) if chr(code) not in _SPACES_KEPT}


def _carried(run: re.Match[str]) -> str:
    """Return the text that a run of variation selectors carries, a byte each, if it is one."""
    if len(run.group()) == 1:  # the usual use: which form of the character before it
        return ""
    codes = (ord(char) for char in run.group())
    data = bytes(c - 0xFE00 if c < 0xE0100 else c - 0xE0100 + 16 for c in codes)
    try:
        carried = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "" if any(is_control(char) for char in carried) else f" {carried} "


def is_control(char: str) -> bool:
    """Return whether ``char`` belongs in no text: control, unassigned and private characters."""
    return unicodedata.category(char) in ("Cc", "Cn", "Co", "Cs") and char not in _SPACES_KEPT


class _Shown(dict[int, "str | int | None"]):
    """Maps a character to itself, or to nothing if it is not shown; filled as characters come."""

    def __missing__(self, code: int) -> str | int | None:
        char = chr(code)
        hidden = char in _INVISIBLE or unicodedata.category(char) in ("Cf", "Cc")
        self[code] = None if hidden and char not in _SPACES_KEPT else code
        return self[code]


_SHOWN = _Shown({0x2800: " "})  # an empty braille cell


def _without_marks(run: re.Match[str]) -> str:
    """Drop combining marks, but for those that belong to a letter of another alphabet: vowel signs,
    and marks that make one character with the letter."""
    kept, own = [], True
    for char in unicodedata.normalize("NFD", run.group()):
        if not unicodedata.combining(char):
            own = not char.isalpha() or _is_latin(char)
        elif own:
            continue
        kept.append(char)
    return _MARK.sub("", unicodedata.normalize("NFC", "".join(kept)))


def _latin(text: str) -> str:
    others = [char for char in _BEYOND_ASCII.findall(text) if char.isalpha()]
    if not others:
        return text
    plain_letters = sum(map(text.count, ascii_letters))
    aliens = [ord(char) for char in others if not _is_latin(char)]
    mostly_latin = plain_letters + len(others) > 2 * len(aliens)
    table = _look_alikes()
    only_alike = len(aliens) >= _LEAST_ALIKE and all(code in table for code in aliens)

    def plain(match: re.Match[str]) -> str:
        word: str = match.group()
        if word.isascii():
            return word
        alien = [char for char in word if not char.isascii() and char.isalpha()]
        mixed = any(map(_is_latin, word))
        alike = all(ord(char) in table for char in alien)
        disguised = alike and (mostly_latin or only_alike)
        return word.translate(table) if mixed or disguised else word

    return _WORD.sub(plain, text)


@cache
def _is_latin(char: str) -> bool:
    return unicodedata.name(char, "").startswith("LATIN ")


@cache
def _look_alikes() -> Mapping[int, str]:
    """Return the characters that look like an ASCII letter, from Unicode's confusables."""
    from confusable_homoglyphs.confusables import confusables_data

    def letters(others: Sequence[Mapping[str, str]]) -> list[str]:
        return [o["c"] for o in others if re.fullmatch("[A-Za-z]", o["c"])]

    def best(char: str, plain: Sequence[str]) -> str:
        """Of several, a capital for a capital; the list has l for all that is a vertical bar."""
        capital = char.isupper()
        letter = min(plain, key=lambda letter: letter.isupper() != capital)
        return "I" if capital and letter == "l" else letter

    return _SMALL_CAPITALS | {
        ord(char): best(char, plain)
        for char, others in confusables_data.items()
        if len(char) == 1 and char.isalpha() and not char.isascii() and (plain := letters(others))
    }
