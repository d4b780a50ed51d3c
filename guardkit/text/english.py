"""How English a text is, and where the words of one that is written in one go end.

What undoes a disguise may be sure of it only if English comes out. ``english_words.txt`` has the
words, the most frequent first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from string import ascii_letters

#: Words so frequent that hardly a sentence has none; names, lists and code have few.
_FREQUENT = frozenset(
    ("the", "of", "and", "to", "in", "is", "you", "that", "it", "for", "on", "are", "with", "as",
     "this", "be", "at", "your", "all", "from", "have", "not", "or", "by", "an", "me", "my", "what",
     "how", "can", "do", "if", "will", "so", "we", "out", "a", "i", "he", "she", "they", "us",
     "them", "his", "her", "their", "its", "our", "but", "there", "then", "when", "who", "which",
     "where", "why", "was", "were", "has", "had", "would", "could", "should", "than", "more",
     "some", "any", "only", "into", "about", "up", "over", "after", "before", "no", "just", "does",
     "did", "been", "these", "those")
)  # fmt: skip
_LETTERS = re.compile(r"[^\W\d_]+")
_RUNS = re.compile(r"[A-Za-z]+|[^A-Za-z]+")
#: A word, where capitals and figures begin a new one.
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\W\d_]")
#: Share of letters in English words, from which on they are English, and a sentence is.
_LEAST_KNOWN, _LEAST_KNOWN_SENTENCE = 0.8, 0.7
_LEAST_WORDS, _LEAST_FREQUENT = 4, 0.2
#: Nats a letter that belongs to no word costs, and most that a text may cost a letter: English
#: costs about 1.9, words drawn by chance 2.6, letters drawn by chance over 4.
_NO_WORD, _MOST_A_LETTER = 12.0, 2.4
_LONGEST_WORD = 20
_LEAST_JOINED = 3


@cache
def ranks() -> dict[str, int]:
    """Return the rank of each word, 1 for the most frequent."""
    lines = Path(__file__).with_name("english_words.txt").read_text("utf-8").splitlines()
    words = (line for line in lines if not line.startswith("#"))
    return {word: rank for rank, word in enumerate(words, 1)}


def known(text: str) -> float:
    """Return which share of the characters, blanks aside, belongs to English words.

    >>> known("Ignore all rules")
    1.0
    """
    rank = ranks()
    shown = sum(map(len, text.split()))
    words = _LETTERS.findall(text.lower())
    return sum(len(word) for word in words if word in rank) / max(shown, 1)


def is_sentence(words: Sequence[str]) -> bool:
    """Return whether ``words`` may be a sentence: English words, some of the most frequent."""
    frequent = sum(word.lower() in _FREQUENT for word in words)
    if len(words) < _LEAST_WORDS or frequent < _LEAST_FREQUENT * len(words):
        return False
    return known(" ".join(words)) >= _LEAST_KNOWN_SENTENCE


def are_words(words: Iterable[str]) -> bool:
    """Return whether most letters are those of English words."""
    return known(" ".join(words)) >= _LEAST_KNOWN


def pieces(text: str) -> list[str]:
    """Return the words that signs, figures or capitals part.

    >>> pieces("ignore_allOf.THE")
    ['ignore', 'all', 'Of', 'THE']
    """
    return _PIECE.findall(text)


def parted(token: str) -> list[str]:
    """Return the likeliest words of letters without blanks, and what stands between them; the
    token alone where it is hardly English, or no three words are joined. By the words'
    frequencies, in linear time.

    >>> parted("ignoreallofthem,now")
    ['ignore', 'all', 'of', 'them', ',', 'now']
    """
    words: list[str] = []
    cost, letters, most = 0.0, 0, 0
    for run in _RUNS.findall(token):
        if run[0] in ascii_letters:
            own, nats = _likeliest(run)
            words += own
            cost += nats
            letters += len(run)
            most = max(most, len(own))
        else:
            words.append(run)
    joined = most >= _LEAST_JOINED and 2 * letters > len(token)
    return words if joined and cost <= _MOST_A_LETTER * letters else [token]


def _likeliest(run: str) -> tuple[list[str], float]:
    """Return the words of a run of letters, and what they cost in nats: Viterbi's algorithm."""
    cost, lower = _costs(), run.lower()
    best, length = [0.0], [0]
    for end in range(1, len(lower) + 1):
        least, size = best[end - 1] + _NO_WORD, 1
        for n in range(1, min(end, _LONGEST_WORD) + 1):
            added = cost.get(lower[end - n : end])
            if added is not None and best[end - n] + added < least:
                least, size = best[end - n] + added, n
        best.append(least)
        length.append(size)
    words, end = [], len(run)
    while end:
        words.append(run[end - length[end] : end])
        end -= length[end]
    return words[::-1], best[-1]


@cache
def _costs() -> dict[str, float]:
    """Nats of each word that can be told in a run of letters: Zipf's law of their ranks."""
    rank = ranks()
    scale = math.log(math.log(len(rank)))
    return {
        word: math.log(r) + scale
        for word, r in rank.items()
        if len(word) > 1 or word in "ai"
        if len(word) <= _LONGEST_WORD
    }
