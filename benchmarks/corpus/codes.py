"""Ways to spell out a payload, for ``own_text``.

But for Atbash (``mirrored``) none of them is among the transforms of
``benchmarks.injection.disguises``, so that what is trained on these texts can be measured on those.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable

_LOWER = string.ascii_lowercase


def _table(codes: str) -> dict[str, str]:
    return dict(zip(_LOWER, codes.split(), strict=True))


_MORSE = _table(
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - "
    "..- ...- .-- -..- -.-- --.."
)
_SPOKEN = _table(
    "alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november "
    "oscar papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
)


def _letters(table: dict[str, str], between: str, words: str) -> Callable[[str], str]:
    return lambda text: words.join(
        between.join(table[c] for c in word if c in table) for word in text.lower().split()
    )


def _pig_latin(word: str) -> str:
    return word[1:] + word[0] + "ay" if word[0] not in "aeiou" else word + "way"


def _numbered(text: str) -> str:
    numbered = [f"{number}={word}" for number, word in enumerate(text.split(), 1)]
    random.Random(text).shuffle(numbered)
    return " ".join(numbered)


CODES: dict[str, Callable[[str], str]] = {
    "morse": _letters(_MORSE, " ", " / "),
    "spoken": _letters(_SPOKEN, " ", ", "),
    "numbers": _letters({c: str(n) for n, c in enumerate(_LOWER, 1)}, "-", " "),
    "caesar": _letters(dict(zip(_LOWER, _LOWER[5:] + _LOWER[:5], strict=True)), "", " "),
    "mirrored": _letters(dict(zip(_LOWER, _LOWER[::-1], strict=True)), "", " "),
    "vowelless": lambda text: "".join(c for c in text if c.lower() not in "aeiou"),
    "pig": lambda text: " ".join(map(_pig_latin, text.lower().split())),
    "last_first": lambda text: " ".join(reversed(text.split())),
    "numbered": _numbered,
    "quoted": lambda text: " + ".join(f'"{word} "' for word in text.split()),
}
