"""Words and runs of words that many texts share: anywhere, at the beginning, at the end.

Shape letter: W the words of all texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from guardkit.types import IntArray

Where = Literal["anywhere", "first words", "last words"]
#: Words of a phrase at most, anywhere, and at either end.
LONGEST = 3
LONGEST_AT_ENDS = 4
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
#: Words of one text that are looked at: its first ones and its last ones.
_READ_WORDS = 1000


@dataclass(frozen=True, slots=True)
class Phrase:
    """A run of ``words`` that stands in the texts ``rows``; at an end, it is exact."""

    where: Where
    words: str
    rows: IntArray


def anywhere(texts: Sequence[str], *, least: int) -> list[Phrase]:
    """Return the runs of at most ``LONGEST`` words, in lower case, that stand in at least
    ``least`` texts.

    A run can only be that common if both runs that are a word shorter are (Agrawal and Srikant
    1994).
    """
    documents = [_words(text) for text in texts]
    words = [word for document in documents for word in document]
    text_W = np.repeat(np.arange(len(texts)), [len(document) for document in documents])
    number: dict[str, int] = {}
    run_W = np.array([number.setdefault(word, len(number)) for word in words], np.int64)
    phrases = []
    for length in range(1, LONGEST + 1):
        begins = np.flatnonzero(run_W >= 0)
        if not len(begins):
            break
        # each run once a text, those of one run side by side
        _, first = np.unique(run_W[begins] * len(texts) + text_W[begins], return_index=True)
        at = begins[first]
        runs, start, count = np.unique(run_W[at], return_index=True, return_counts=True)
        common = np.flatnonzero(count >= least)
        for r in common.tolist():
            own = at[start[r] : start[r] + count[r]]
            phrase = " ".join(words[own[0] : own[0] + length])
            phrases.append(Phrase("anywhere", phrase, text_W[own]))
        place = np.full(len(runs), -1)
        place[common] = np.arange(len(common))
        shorter_W = np.full(len(words), -1)
        shorter_W[begins] = place[np.searchsorted(runs, run_W[begins])]
        left, right = shorter_W[:-1], shorter_W[1:]
        both = (left >= 0) & (right >= 0) & (text_W[:-1] == text_W[1:])
        run_W = np.full(len(words), -1)
        run_W[:-1][both] = left[both] * len(common) + right[both]
    return phrases


def at_the_ends(texts: Sequence[str], *, least: int) -> list[Phrase]:
    """Return the first words and the last words, at most ``LONGEST_AT_ENDS`` of them, that at
    least ``least`` texts begin or end with; case and signs count."""
    phrases = []
    places: tuple[tuple[Where, slice], ...] = (
        ("first words", slice(0, LONGEST_AT_ENDS)),
        ("last words", slice(-LONGEST_AT_ENDS, None)),
    )
    for where, part in places:
        found: dict[str, list[int]] = {}
        for i, text in enumerate(texts):
            words = text.split(None, LONGEST_AT_ENDS) if part.start == 0 else text.rsplit(
                None, LONGEST_AT_ENDS
            )  # fmt: skip
            words = words[part]
            for n in range(1, len(words) + 1):
                run = words[:n] if part.start == 0 else words[-n:]
                found.setdefault(" ".join(run), []).append(i)
        phrases += [
            Phrase(where, words, np.array(rows)) for words, rows in found.items()
            if len(rows) >= least
        ]  # fmt: skip
    return phrases


def _words(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    if len(words) > _READ_WORDS:
        words = words[: _READ_WORDS // 2] + words[-_READ_WORDS // 2 :]
    return words
