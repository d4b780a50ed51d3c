"""Ways to hide a text from a classifier. Nothing here is taken from the code that undoes them.

``HIDING`` loses nothing, so that the text can be had back to the letter; ``REWRITING`` is what
people and tools do to a text that a language model reads all the same.
"""

from __future__ import annotations

import base64
import codecs
import gzip
import random
import string
from collections.abc import Callable, Mapping
from urllib.parse import quote

Transform = Callable[[str], str]

_CYRILLIC = dict(zip("acekopxyABEHKMOPTXijs", "асекорхуАВЕНКМОРТХіјѕ", strict=True))
_GREEK = dict(zip("oABEHIKMNOPTXYZ", "οΑΒΕΗΙΚΜΝΟΡΤΧΥΖ", strict=True))  # noqa: RUF001
_LEET = dict(zip("aeiost", "4310$7", strict=True))
_EMOJI = "😀🔥✨👍🎉🍕🚀💡"
_PUNCTUATION = ".,;:-!*"
_UPPER, _LOWER = string.ascii_uppercase, string.ascii_lowercase
_CAESAR = dict(zip(_UPPER + _LOWER, _UPPER[7:] + _UPPER[:7] + _LOWER[7:] + _LOWER[:7], strict=True))
_ATBASH = dict(zip(_UPPER + _LOWER, _UPPER[::-1] + _LOWER[::-1], strict=True))
_ROT47 = {chr(33 + i): chr(33 + (i + 47) % 94) for i in range(94)}


def _swap(table: Mapping[str, str]) -> Transform:
    return lambda text: "".join(table.get(char, char) for char in text)


def _between(*signs: str) -> Transform:
    """Put one of ``signs`` after each letter in turn."""
    return lambda text: "".join(c + signs[i % len(signs)] for i, c in enumerate(text))


def _shifted(upper: int, lower: int) -> Transform:
    def letter(char: str) -> str:
        if "A" <= char <= "Z":
            return chr(ord(char) - ord("A") + upper)
        return chr(ord(char) - ord("a") + lower) if "a" <= char <= "z" else char

    return lambda text: "".join(map(letter, text))


def _in_selectors(text: str) -> str:
    codes = (0xFE00 + byte if byte < 16 else 0xE0100 + byte - 16 for byte in text.encode())
    return "🙂" + "".join(map(chr, codes))


def _words(change: Callable[[str, random.Random], str]) -> Transform:
    """Change each word, with chance that the text alone decides."""

    def transform(text: str) -> str:
        rng = random.Random(text)
        return " ".join(change(word, rng) for word in text.split(" "))

    return transform


def _typo(word: str, rng: random.Random) -> str:
    if len(word) < 4 or rng.random() < 0.5:
        return word
    at = rng.randrange(1, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _split(word: str, rng: random.Random) -> str:
    if len(word) < 4:
        return word
    at = rng.randrange(2, len(word) - 1)
    return f"{word[:at]}-{word[at:]}"


def _letters(change: Callable[[str, random.Random], str]) -> Transform:
    """Change each letter or figure, with chance that the text alone decides."""

    def transform(text: str) -> str:
        rng = random.Random(text)
        return "".join(change(char, rng) if char.isalnum() else char for char in text)

    return transform


def _each(spelling: str, between: str = "", units: str = "utf-8") -> Transform:
    """Spell each byte of the text, or each unit of 16 bits, by its number."""
    size = 2 if units == "utf-16-be" else 1

    def transform(text: str) -> str:
        data = text.encode(units)
        numbers = (int.from_bytes(data[i : i + size]) for i in range(0, len(data), size))
        return between.join(spelling.format(number) for number in numbers)

    return transform


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


HIDING: Mapping[str, Transform] = {
    "tag characters": lambda text: "".join(
        chr(0xE0000 + ord(c)) if " " <= c <= "~" else c for c in text
    ),
    "variation selectors": _in_selectors,
    "zero-width characters": _between("\u200b", "\u200d", "\u2060"),
    "bidirectional controls": _between("\u202a", "\u202c", "\u2066", "\u2069"),
    "Cyrillic homoglyphs": _swap(_CYRILLIC),
    "fullwidth letters": _shifted(0xFF21, 0xFF41),
    "mathematical letters": _shifted(0x1D5D4, 0x1D5EE),
    "combining marks": _between("\u0336", "\u0353", "\u0307"),
}
REWRITING: Mapping[str, Transform] = {
    "Greek homoglyphs": _swap(_GREEK),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(" "),
    "percent signs": lambda text: quote(text, safe=""),
    "entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "backwards": lambda text: text[::-1],
    "leetspeak": lambda text: _swap(_LEET)(text.lower()),
    "letters set apart": lambda text: "   ".join(" ".join(word) for word in text.split(" ")),
    "emoji between words": _words(lambda word, rng: word + " " + rng.choice(_EMOJI)),
    "words split by hyphens": _words(_split),
    "swapped letters": _words(_typo),
    "words joined": lambda text: text.replace(" ", ""),
    "words joined by dots": lambda text: text.replace(" ", "."),
    "words joined by underscores": lambda text: text.replace(" ", "_"),
    "words joined by hyphens": lambda text: text.replace(" ", "-"),
    "words joined by capitals": lambda text: "".join(w[:1].upper() + w[1:] for w in text.split()),
    "a letter a line": lambda text: "\n".join(text.replace(" ", "")),
    "a word a line": lambda text: "\n".join(text.split()),
    "letters apart by random signs": _letters(lambda char, rng: char + rng.choice(_PUNCTUATION)),
    "words apart by random signs": lambda text: _words(
        lambda word, rng: word + rng.choice(_PUNCTUATION)
    )(text).replace(" ", ""),
    "an entity now and then": _letters(
        lambda char, rng: f"&#{ord(char)};" if rng.random() < 0.2 else char
    ),
    "JSON escapes": _each("\\u{:04x}", units="utf-16-be"),
    "quoted-printable": _each("={:02X}"),
    "tags between letters": _letters(lambda char, rng: f"<b>{char}</b>"),
    "octal": _each("{:o}", " "),
    "binary": _each("{:08b}", " "),
    "decimal": _each("{}", " "),
    "calls of chr": _each("chr({})", "+", units="utf-16-be"),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "ascii85": lambda text: base64.a85encode(text.encode()).decode(),
    "base64 of UTF-16": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "base64 of gzip": _packed,
    "ROT47": _swap(_ROT47),
    "Caesar's shift of 7": _swap(_CAESAR),
    "Atbash": _swap(_ATBASH),
}
