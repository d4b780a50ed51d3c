"""What parts letters that belong together, and what joins words that do not.

Letters are set apart by blanks, signs, tags or line ends; words are halved by hyphens, have emoji
between them, stand on lines of their own, or are joined by signs, by capitals or by nothing.
"""

from __future__ import annotations

import re
from collections import Counter

from guardkit.text.english import are_words, is_sentence, parted, pieces

#: Single characters set apart by one and the same sign; a wider gap ends a word.
_APART = re.compile(r"(?<!\S)\S(\r?\n|[^\w\r\n]|_)\S(?:\1\S)*(?!\S)(?:\s{2,}\S(?:\1\S)*(?!\S))*")
_LEAST_APART = 6
#: Single letters set apart by whatever signs.
_SPACED = re.compile(r"(?<!\w)[^\W_](?:[\W_]{1,4}[^\W_](?!\w)){5,}")
_GAP = re.compile(r"[\W_]+")
#: Signs beyond ASCII that stand alone, with the blanks before them: emoji, arrows, bullets.
_SIGNS = re.compile(r"(?<![^\S\r\n])[^\S\r\n]*(?<!\S)[^\w\s\x00-\x7f]{1,4}(?!\S)")
_LEAST_SIGNS = 3
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_LEAST_HALVED, _LONG_WORD = 3, 4
_ANY_TAG = r"(?:</?[A-Za-z][^<>]{0,100}>|<!--[^<>]{0,100}-->)"
_TAG = re.compile(_ANY_TAG)
#: Tags between letters or pairs of them.
_TAGGED = re.compile(rf"(?<!\w)[^\W\d_]{{1,2}}(?:{_ANY_TAG}{{1,8}}[^\W\d_]{{1,2}}(?!\w)){{2}}")
_LEAST_TAGGED = 2
#: What may be words joined by signs or capitals, and by nothing.
_LONG_TOKEN = 12
#: Characters of a token, where hardly a word is parted from the next.
_DENSE = 20
_JOINED = re.compile(rf"(?<!\S)\S{{{_LONG_TOKEN},}}")
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_BETWEEN = re.compile(rf"(?<=[^\W_])(?:[^\w\s']|_)+(?=[^\W_])|{_CAPITAL.pattern}")
_BEFORE_SIGN = re.compile(r"\s+(?=[^\w\s])")
_ONE_SIGN = frozenset(("", ".", "_", "-"))
#: Signs of code, whose names are joined words.
_CODE = re.compile(r"[][(){}<>=\"'`]")
_ADDRESS = re.compile(r"://|www\.")
#: Words that are joined: in a text of hardly anything else, and amid others, where compounds
#: (state-of-the-art) and names have fewer.
_LEAST_JOINED, _LEAST_AMID = 3, 6
#: A run of letters amid others: hardly a word is as long, and capitals within would part one.
_LONG_RUN = re.compile(r"(?<![^\W\d_])(?:[A-Z]?[a-z]{20,}|[A-Z]{20,})(?![^\W\d_])")


def without_signs(text: str) -> str:
    """Take out signs that stand alone where they are one to two thirds of all."""
    if text.isascii():
        return text
    found, words = len(_SIGNS.findall(text)), len(text.split())
    if found < _LEAST_SIGNS or not words <= 3 * found <= 2 * words:
        return text
    return _SIGNS.sub("", text)


def without_tags(text: str) -> str:
    """Take out tags where they part letters of words."""
    if "<" not in text or len(_TAGGED.findall(text)) < _LEAST_TAGGED:
        return text
    return _TAG.sub("", text)


def letters_joined(text: str) -> str:
    """Join letters that one and the same sign sets apart, or any signs if English comes out."""

    def join(match: re.Match[str]) -> str:
        if sum(map(str.isalpha, match.group())) < _LEAST_APART:
            return match.group()
        sign = re.escape(match.group(1))
        words = re.split(r"\s{2,}", match.group())
        return " ".join(re.sub(sign, "", word) for word in words)

    return _SPACED.sub(_respaced, _APART.sub(join, text))


def _respaced(match: re.Match[str]) -> str:
    """Join single letters: a blank ends a word, or says as little as the other signs."""
    words = ["".join(_GAP.split(word)) for word in match[0].split()]
    for read in (words, parted("".join(words))):
        if len(read) > 1 and are_words(read):
            return " ".join(read)
    return match[0]


def lines_joined(text: str) -> str:
    """Join the lines of a text that has a word of a sentence on each."""
    lines = [line.strip() for line in text.split("\n")]
    words = [line for line in lines if line]
    if len(words) < 2 or any(" " in word for word in words) or not is_sentence(words):
        return text
    return " ".join(words)


def halves_joined(text: str) -> str:
    """Join what hyphens part where more of the long words are English without one than have
    none."""
    if text.count("-") < _LEAST_HALVED:
        return text
    words = text.split()
    halved = sum(are_words([_HYPHEN.sub("", w)]) for w in words if _HYPHEN.search(w))
    whole = sum(len(word) >= _LONG_WORD and "-" not in word for word in words)
    if halved < _LEAST_HALVED or halved <= whole:
        return text
    return _HYPHEN.sub("", text)


def words_parted(text: str) -> str:
    """Part words that signs, capitals or nothing join, where they are a sentence or most of the
    text."""
    tokens = text.split()
    dense = sum(map(len, tokens)) >= _DENSE * len(tokens)

    def part(match: re.Match[str]) -> str:
        token: str = match[0]
        mostly = 2 * len(token) >= len(text)
        read = _without_joints(token, mostly or dense)
        if read == token and (mostly or dense or _LONG_RUN.search(token)):
            read = _words_of(token)
            if not (mostly or is_sentence(pieces(read))) or _ADDRESS.search(token):
                return token
        return read

    return _JOINED.sub(part, text)


def _without_joints(token: str, mostly: bool) -> str:
    words = pieces(token)
    if len(words) < (_LEAST_JOINED if mostly else _LEAST_AMID):
        return token
    joints = Counter(_BETWEEN.findall(token))
    [(joint, times)] = joints.most_common(1) or [("", 0)]
    if is_sentence(words):
        joined = len(_CODE.findall(token)) <= (len(words) // 3 if mostly else 0)
    else:
        alike = joint in _ONE_SIGN and 3 * times > 2 * joints.total()
        joined = mostly and alike and are_words(words)
    if not joined:
        return token
    if 2 * times < joints.total():
        return _BETWEEN.sub(" ", token)
    if not joint:
        return _CAPITAL.sub(" ", token)
    return re.sub(rf"(?<=\S){re.escape(joint)}(?=[\w\"'(])", " ", token)


def _words_of(token: str) -> str:
    """Return the words of a token without joints, blanks between them, or the token."""
    words = parted(token)
    return token if len(words) == 1 else _BEFORE_SIGN.sub("", " ".join(words))
