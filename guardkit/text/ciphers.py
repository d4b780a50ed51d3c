"""Letters that stand for others: Caesar's shifts, Atbash, ROT47, words backwards, leetspeak.

Which cipher it is, and whether it is one, is decided by the English that comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from guardkit.text.english import known, ranks

_TOKEN = re.compile(r"\S+")
_LETTERS = re.compile(r"[^\W\d_]+")
#: Letters of a word that hardly a cipher makes of another, and of one that some may.
_PLAIN_WORD, _LIKELY_WORD = 6, 4
_LEAST_TOKENS, _LEAST_CHARACTERS = 3, 12
#: Most that may be English in what is read as a cipher, and least in what it says.
_MOST_KNOWN, _LEAST_KNOWN = 0.35, 0.6
#: What is looked at to tell the cipher.
_SAMPLE = 2000
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
#: Letters in a thousand of English text.
_PER_MILLE = (
    82, 15, 28, 43, 127, 22, 20, 61, 70, 1.5, 7.7, 40, 24, 67, 75, 19, 1, 60, 63, 91, 28, 9.8, 24,
    1.5, 20, 0.7,
)  # fmt: skip
#: What each letter becomes in the 26 shifts of the alphabet, and in those of it backwards.
_SHIFTS_26_1, _LETTERS_26 = np.arange(26)[:, None], np.arange(26)
_WAYS_52_26 = np.concatenate([_SHIFTS_26_1 + _LETTERS_26, _SHIFTS_26_1 - _LETTERS_26]) % 26
_LOG_P_52_26 = np.log(_PER_MILLE)[_WAYS_52_26]
#: So many alphabets, the likeliest by their letters alone, are tried.
_TRIED = 5
_ROT47 = {code: 33 + (code - 33 + 47) % 94 for code in range(33, 127)}
_LEET_MARK = re.compile(r"[A-Za-z][013457@$!|]|[013457@$!|][A-Za-z]")
#: Looked for from a word's start alone, so that a long word takes linear time.
_LEET_WORD = re.compile(r"(?<!\S)\S*[013457@$!|]\S*")
_LEET = str.maketrans("013457@$!|", "oieastasil")
_AROUND = "!|.,;:?\"'()[]"
_LEET_SIGNS = frozenset("013457@$!|")
_LEAST_LEET = 2
#: The 50s, the 2nd, A1.
_NUMBERED = re.compile(r"[0-9]+[A-Za-z]{1,2}|[A-Za-z]{1,2}[0-9]+")


def deciphered(text: str) -> str:
    """Return ``text`` with each stretch that is a cipher of English replaced by the English."""
    stretches = [*_stretches(text.lower().split())]
    if not stretches:
        return text
    tokens = [*_TOKEN.finditer(text)]
    found, end, taken = [], 0, -1
    for first, last in stretches:
        way = _way(text[tokens[first].start() : tokens[last].end()])
        if way is None:
            continue
        # words that are English in either reading, the commoner in this one
        while first - 1 > taken and _is_commoner(tokens[first - 1][0], way):
            first -= 1
        while last + 1 < len(tokens) and _is_commoner(tokens[last + 1][0], way):
            last += 1
        start, stop, taken = tokens[first].start(), tokens[last].end(), last
        found += [text[end:start], way(text[start:stop])]
        end = stop
    return "".join([*found, text[end:]])


def _stretches(tokens: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last token, neither an English word, of each stretch without a long
    word that is English, or two in turn that may be it by chance."""
    rank = ranks()
    first = last = -1
    english = 0
    for n, token in enumerate(tokens):
        word = token.strip(_AROUND)
        if word not in rank:
            words = [w for w in _LETTERS.findall(word) if w in rank and len(w) > 1]
            word = max(words, key=len, default="")
        if len(word) < 2 or word == word[::-1]:  # Hannah is no less so backwards
            first, last, english = n if first < 0 else first, n, 0
            continue
        english += len(word) >= _LIKELY_WORD
        if len(word) >= _PLAIN_WORD or english == 2:
            if first >= 0 and last - first + 1 >= _LEAST_TOKENS:
                yield first, last
            first, english = -1, 0
    if first >= 0 and last - first + 1 >= _LEAST_TOKENS:
        yield first, last


def _is_commoner(token: str, way: Callable[[str], str]) -> bool:
    """Whether a cipher makes a commoner word of ``token`` than it is."""
    rank = ranks()
    now, then = (rank.get(w.lower().strip(_AROUND), len(rank) + 1) for w in (token, way(token)))
    return then < now


def _way(stretch: str) -> Callable[[str], str] | None:
    """Return the cipher that ``stretch`` says the most English in; None where it does in none."""
    sample = stretch[:_SAMPLE]
    tokens = sample.split()
    if len({*tokens}) < _LEAST_TOKENS or sum(map(len, tokens)) < _LEAST_CHARACTERS:
        return None
    if known(sample) > _MOST_KNOWN:
        return None
    ways: list[Callable[[str], str]] = [_backwards, _words_backwards, *_alphabets(sample)]
    if 4 * sum(map(str.isalpha, sample)) < 3 * sum(map(len, tokens)):
        ways.append(_rot47)  # which makes figures and signs of half the letters
    shares = [known(way(sample)) for way in ways]
    best = max(range(len(ways)), key=lambda i: (shares[i], _begins_well(ways[i](sample))))
    return ways[best] if shares[best] >= _LEAST_KNOWN else None


def _begins_well(text: str) -> int:
    """Tell words that are written backwards from a text that is: a sentence has a beginning."""
    return text[:1].isupper() + (text[-1:] in ".!?")


def _backwards(text: str) -> str:
    return text[::-1]


def _words_backwards(text: str) -> str:
    return _LETTERS.sub(lambda match: match[0][::-1], text)


def _rot47(text: str) -> str:
    return text.translate(_ROT47)


def _alphabets(sample: str) -> list[Callable[[str], str]]:
    """Return the shifts of the alphabet, and of the alphabet backwards (Atbash), that make its
    letters' counts the likeliest, likelier than they are."""
    lower = sample.lower()
    count_26 = np.array([lower.count(letter) for letter in _ALPHABET])
    likelihood_52 = _LOG_P_52_26 @ count_26
    best = np.argsort(-likelihood_52, kind="stable")[:_TRIED]
    return [_alphabet(way) for way in best.tolist() if likelihood_52[way] > likelihood_52[0]]


def _alphabet(way: int) -> Callable[[str], str]:
    turned = "".join(_ALPHABET[at] for at in _WAYS_52_26[way])
    table = str.maketrans(_ALPHABET + _ALPHABET.upper(), turned + turned.upper())
    return lambda text: text.translate(table)


def leetspeak(text: str) -> str:
    """Read figures and signs within words as the letters they look like, where that makes English
    words of most that have some."""
    if not _LEET_MARK.search(text):
        return text
    marked = [match[0].strip(_AROUND) for match in _LEET_WORD.finditer(text)]
    mixed = [w for w in marked if _LEET_MARK.search(w) and not _NUMBERED.fullmatch(w)]
    read = sum(_plain(word).lower() in ranks() for word in mixed)
    if read < _LEAST_LEET or 2 * read < len(mixed):
        return text
    bare = 2 * len(marked) > len(text.split())  # then a word without a letter is one, too

    def plain(match: re.Match[str]) -> str:
        word: str = match[0]
        inner = word.strip(_AROUND)  # an exclamation mark after a word is one
        read = _plain(inner)
        signs = bare and _LEET_SIGNS.issuperset(inner) and read in ranks()
        if inner and (signs or _LEET_MARK.search(inner)):
            return word.replace(inner, read, 1)
        return word

    return _LEET_WORD.sub(plain, text)


def _plain(word: str) -> str:
    """Return a word without leetspeak; a 1 is an i where that makes a word, else an l."""
    read = word.translate(_LEET)
    if "1" not in word or read.lower() in ranks():
        return read
    other = word.replace("1", "l").translate(_LEET)
    return other if other.lower() in ranks() else read
