"""Features of a text that should not tell its label, and often do: length, signs, case, format.

A feature is a number, or says which of a few kinds a text is. Patterns have bounds wherever they
might run over a text again and again: a text may be a megabyte of brackets.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass

from guardkit.text.language import language, script
from guardkit.text.visible import has_unseen

YES, NO = "yes", "no"
NONE = "none"
#: Emoji and pictographs, by Unicode's blocks: first and last.
_PICTOGRAPHS = (
    (0x203C, 0x203C), (0x2049, 0x2049), (0x231A, 0x231B), (0x2328, 0x2328),
    (0x23CF, 0x23CF), (0x23E9, 0x23FA), (0x25AA, 0x25AB), (0x25B6, 0x25B6),
    (0x25C0, 0x25C0), (0x25FB, 0x25FE), (0x2600, 0x27BF), (0x2B05, 0x2B07),
    (0x2B1B, 0x2B1C), (0x2B50, 0x2B50), (0x2B55, 0x2B55), (0x1F000, 0x1FAFF),
)  # fmt: skip
_PICTOGRAPH = "".join(f"{chr(first)}-{chr(last)}" for first, last in _PICTOGRAPHS)
#: What joins and colours them.
_JOINERS = "\ufe0f\u200d\u20e3"
EMOJI = re.compile(f"[{_PICTOGRAPH}][{_JOINERS}{_PICTOGRAPH}]*")
#: Double quotation marks; single ones are apostrophes too often.
QUOTES = re.compile('["\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d]')
FINAL_SIGNS = {
    **dict.fromkeys(".\u3002\uff0e\u0964\uff61", "full stop"),
    **dict.fromkeys("?\uff1f\u061f", "question mark"),
    **dict.fromkeys("!\uff01", "exclamation mark"),
}
#: What may stand behind a final sign: "He said no." (He did.) *Really.* And white space, and emoji.
BEHIND = (
    "\"'\u201d\u2019\u00bb\u300d)]}*_`"
    + f"{string.whitespace}\u00a0\u3000{_JOINERS}"
    + "".join(chr(c) for first, last in _PICTOGRAPHS for c in range(first, last + 1))
)
_BRACKETS = re.compile(r"[()\[\]{}]")
_DIGIT = re.compile(r"\d")
_URL = re.compile(r"https?://|\bwww\.", re.I)
_FENCE = re.compile(r"^[ \t]{0,8}(```|~~~)", re.M)
_HTML = re.compile(r"</?[a-zA-Z][^<>]{0,500}>|<!--")
_MARKDOWN = re.compile(
    r"^#{1,6} \S|^[ \t]{0,8}[-*+] \S|^\|.{0,500}\|[ \t]{0,8}$|^[ \t]{0,8}```|^> \S"
    r"|\*\*[^*\n]{1,200}\*\*|\[[^\[\]\n]{1,200}\]\([^()\n]{1,500}\)",
    re.M,
)
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Feature:
    """``of(text)`` is a number, written with ``unit`` behind it, or the name of a kind;
    ``at(text)`` is where in the text it can be seen."""

    name: str
    of: Callable[[str], str | float]
    hint: str
    at: Callable[[str], int] = lambda text: 0
    unit: str | None = None  # None: not a number
    subject: str | None = None  # features of one subject say much the same; None: its own


def final_sign(text: str) -> str:
    """Return how ``text`` ends, whatever closes it: white space, quotes, brackets, emoji.

    >>> final_sign('He said "No." 👍')
    'full stop'
    """
    bare = text.rstrip(BEHIND)
    if not bare or bare[-1].isalnum():
        return NONE
    return FINAL_SIGNS.get(bare[-1], "other sign")


def first_letter(text: str) -> str:
    """Return the case of the first letter: capital, small, no case, none."""
    letter = next(filter(str.isalpha, text), None)
    if letter is None:
        return NONE
    if letter.lower() == letter.upper():
        return "no case"
    return "small" if letter == letter.lower() else "capital"


def text_format(text: str) -> str:
    """Return what ``text`` is written in: JSON, HTML (or XML), Markdown, plain text.

    >>> text_format('{"a": 1}'), text_format("<b>x</b>"), text_format("# A"), text_format("[sic]")
    ('JSON', 'HTML', 'Markdown', 'plain')
    """
    bare = text.strip()
    if bare[:1] + bare[-1:] in ("{}", "[]") and '"' in bare:
        return "JSON"
    if _HTML.search(text):
        return "HTML"
    return "Markdown" if _MARKDOWN.search(text) else "plain"


def capital_share(text: str) -> float:
    """Return the share of capitals among the letters, in percent."""
    beyond = [] if text.isascii() else _BEYOND_ASCII.findall(text)
    capitals = sum(map(text.count, string.ascii_uppercase)) + sum(map(str.isupper, beyond))
    small = sum(map(text.count, string.ascii_lowercase))
    letters = capitals + small + sum(c.isalpha() and not c.isupper() for c in beyond)
    return 100 * capitals / letters if letters else 0.0


def has_leading_space(text: str) -> bool:
    return text[:1].isspace()


def has_trailing_space(text: str) -> bool:
    return text[-1:].isspace()


def _whether(holds: Callable[[str], object]) -> Callable[[str], str]:
    return lambda text: YES if holds(text) else NO


def _found(
    name: str, pattern: re.Pattern[str], hint: str = "add the same texts with and without them"
) -> Feature:
    def at(text: str) -> int:
        match = pattern.search(text)
        return match.start() if match else 0

    return Feature(name, _whether(pattern.search), hint, at)


_LENGTHS = "add short, middling and long texts of every label"
#: In the order in which equally strong ones are shown.
FEATURES = (
    Feature("length in characters", lambda text: float(len(text)), _LENGTHS, unit="",
            subject="length"),
    Feature("length in words", lambda text: float(len(text.split())), _LENGTHS, unit="",
            subject="length"),
    Feature("lines", lambda text: float(text.strip().count("\n") + 1),
            "add texts of one line and of many lines of every label", unit="", subject="length"),
    Feature("final sign", final_sign,
            "add the same texts with and without a full stop, questions and exclamations of every "
            "label", at=len),
    _found("emoji", EMOJI),
    Feature("first letter", first_letter,
            "add the same texts with a capital and a small letter first", subject="case"),
    Feature("capitals only", _whether(str.isupper), "add the same texts in capitals",
            subject="case"),
    Feature("share of capitals", capital_share,
            "add the same texts in small letters, or in capitals", unit="%", subject="case"),
    _found("digits", _DIGIT, "add texts with dates, amounts and numbers of every label"),
    _found("quotation marks", QUOTES),
    _found("brackets", _BRACKETS),
    _found("URL", _URL, "add texts with an address of every label"),
    _found("code fence", _FENCE, "add texts with code of every label"),
    Feature("format", text_format, "add the same content as JSON, Markdown, HTML and plain text"),
    Feature("leading white space", _whether(has_leading_space),
            "strip all texts, or add the same texts with and without it"),
    Feature("trailing white space", _whether(has_trailing_space),
            "strip all texts, or add the same texts with and without it", at=len),
    _found("carriage returns", re.compile("\r"), "use one kind of line end: replace \\r\\n by \\n"),
    Feature("unseen characters", lambda text: YES if has_unseen(text.replace("\r", "")) else NO,
            "add texts with soft hyphens, joiners and marks of direction of every label"),
    Feature("script", script, "add texts of every label in each script", subject="language"),
    Feature("language (a guess)", language, "add texts of every label in each language",
            subject="language"),
)  # fmt: skip
