"""Characters spelt out one by one: entities, escapes, percent signs, calls of ``chr``.

Signs are often spelt so for honest reasons, letters are not: one letter is reason enough to read
all of them, and so are several characters on end.
"""

from __future__ import annotations

import html
import quopri
import re
import unicodedata
from urllib.parse import unquote

_ENTITY = re.compile(r"&#(?:[xX]0*([0-9A-Fa-f]{1,6})(?![0-9A-Fa-f])|0*([0-9]{1,7})(?![0-9]));?")
_NAMED = re.compile(r"&[A-Za-z][A-Za-z0-9]{1,31};")
_ENTITIES = re.compile(r"(?:&#(?:[0-9]{1,7}|[xX][0-9A-Fa-f]{1,6});){3}")
#: What is not shown, within a word.
_INVISIBLE = re.compile(
    r"(?<=\w)&(?:shy|zwn?j|NoBreak|ZeroWidthSpace"
    r"|#(?:173|820[3-7]|8288|x(?:AD|200[B-F]|2060)));(?=[\w&])",
    re.IGNORECASE,
)
_ESCAPE = re.compile(
    r"\\(?:u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|U([0-9A-Fa-f]{8})|x([0-7][0-9A-Fa-f]))"
)
_ESCAPES = re.compile(r"(?:\\u(?:[0-9A-Fa-f]{4}|\{[0-9A-Fa-f]{1,6}\})){3}")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_LEAST_PERCENT = 3
#: Three on end, or within a word: ``a=10&b=20`` has such, too.
_QUOTED = re.compile(r"=[0-9A-F]{2}(?==[0-9A-F]{2}|=\r?\n|[a-z]{2})")
_LEAST_QUOTED = 3
_ONE = r"\s{0,4}(?:0x[0-9a-f]{1,6}|[0-9]{1,7})\s{0,4}"
_CHR = re.compile(
    rf"(?:(?:chr|n?char|unichr|chrw|String\.fromCharCode)\({_ONE}\)[\s+.,&|]{{0,8}}){{3,}}"
    rf"|String\.from(?:CharCode|CodePoint)\({_ONE}(?:,{_ONE}){{3,}}\)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+", re.IGNORECASE)


def entities(text: str) -> str:
    """Undo the entities of a text, if they spell letters, three characters on end, or what is not
    shown within a word."""
    if "&" not in text:
        return text
    letters = any(map(_hides_a_letter, _ENTITY.finditer(text)))
    if not (letters or _ENTITIES.search(text) or _INVISIBLE.search(text)):
        return text
    text = _ENTITY.sub(lambda match: html.unescape(f"&#{_code(match)};"), text)
    return _NAMED.sub(lambda match: html.unescape(match[0]), text)


def escapes(text: str) -> str:
    """Undo backslash escapes by code (JSON's among them), if they spell letters or three characters
    on end."""
    if "\\" not in text:
        return text
    letters = any(map(_hides_a_letter, _ESCAPE.finditer(text)))
    if not letters and not _ESCAPES.search(text):
        return text
    return _whole(_ESCAPE.sub(lambda match: _char(_code(match)), text))


def percent(text: str) -> str:
    """Undo percent-encoded UTF-8, if there are several bytes of it."""
    if text.count("%") < _LEAST_PERCENT or len(_PERCENT.findall(text)) < _LEAST_PERCENT:
        return text
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def quoted_printable(text: str) -> str:
    """Undo quoted-printable UTF-8, if there are several bytes of it."""
    if text.count("=") < _LEAST_QUOTED or len(_QUOTED.findall(text)) < _LEAST_QUOTED:
        return text
    try:
        return quopri.decodestring(text.encode()).decode()
    except UnicodeError:
        return text


def calls(text: str) -> str:
    """Undo lists of calls of ``chr`` and its like."""
    lower = text.lower()
    if "(" not in text or ("chr" not in lower and "char" not in lower and "codep" not in lower):
        return text

    def spelt(match: re.Match[str]) -> str:
        codes = [int(n, 16 if n[:2] in ("0x", "0X") else 10) for n in _NUMBER.findall(match[0])]
        return _whole("".join(map(_char, codes)))

    return _CHR.sub(spelt, text)


def _code(match: re.Match[str]) -> int:
    decimal = match.re is _ENTITY and match.lastindex == 2
    return int(match[match.lastindex or 0], 10 if decimal else 16)


def _char(code: int) -> str:
    return chr(code) if code < 0x110000 else "\ufffd"


def _whole(text: str) -> str:
    """Return ``text`` with characters that two codes spell, those beyond 16 bits, made one."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _hides_a_letter(match: re.Match[str]) -> bool:
    """Whether a plain letter or figure, or what is one in other print, is spelt out."""
    char = unicodedata.normalize("NFKC", _char(_code(match)))
    return char.isascii() and char.isalnum()
