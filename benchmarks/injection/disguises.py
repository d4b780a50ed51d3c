"""Ways to hide a text from a classifier. Nothing here is taken from the code that undoes them.

``HIDING`` loses nothing, so that the text can be had back to the letter; ``REWRITING`` is what
people and tools do to a text that a language model reads all the same.
"""

from __future__ import annotations

import base64
import codecs
import random
from collections.abc import Callable, Mapping
from urllib.parse import quote

Transform = Callable[[str], str]

_CYRILLIC = dict(zip("acekopxyABEHKMOPTXijs", "асекорхуАВЕНКМОРТХіјѕ", strict=True))
_GREEK = dict(zip("oABEHIKMNOPTXYZ", "οΑΒΕΗΙΚΜΝΟΡΤΧΥΖ", strict=True))  # noqa: RUF001
_LEET = dict(zip("aeiost", "4310$7", strict=True))
_EMOJI = "😀🔥✨👍🎉🍕🚀💡"


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
}
