"""Copies of texts that differ only in a sign that should not tell the label: a final stop, a
capital, an emoji. Learnt from, they teach that the sign means nothing.

Every text gives two copies that are opposites: what one has, the other lacks, sign by sign, as far
as the text allows. Which has what is drawn by chance from the text, never from its label, so that
every sign is as frequent with each label, alone and together with the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardkit.audit.shortcuts import (
    BEHIND,
    EMOJI,
    FINAL_SIGNS,
    NONE,
    QUOTES,
    final_sign,
    text_format,
)
from guardkit.data.splits import group_names
from guardkit.types import Examples

_ADDED_EMOJI = ("🙂", "👍", "🎉", "🔥", "😀", "❤️")
_SIGNS = frozenset(FINAL_SIGNS) | {"…"}
_ENDING = _SIGNS | frozenset(BEHIND)
#: Kinds of ``final_sign`` that a full stop can follow.
_BARE = (NONE, "other sign")
_STRUCTURED = ("JSON", "HTML")


@dataclass(frozen=True, slots=True)
class Transform:
    """A sign that a text can be given and can lose. Of two with the same ``place`` a text can have
    one only. Where a text cannot be without it, or would be nothing then, both leave the text."""

    add: Callable[[str, int], str]  # of the text and a number drawn for it
    remove: Callable[[str], str]
    place: str


def without_final_sign(text: str) -> str:
    """Return ``text`` without full stop, question or exclamation mark at its end, also where
    quotes, brackets or emoji close it.

    >>> without_final_sign('He said "Really?!" '), without_final_sign("...")
    ('He said "Really" ', '...')
    """
    end, closing = len(text), []
    while end and text[end - 1] in _ENDING:
        end -= 1
        if text[end] not in _SIGNS:
            closing.append(text[end])
    return text[:end] + "".join(reversed(closing)) if end else text


def with_final_sign(sign: str) -> Callable[[str, int], str]:
    """Return what makes ``sign`` the final sign of a text, in place of the one it has."""

    def add(text: str, drawn: int) -> str:
        bare = without_final_sign(text)
        end = len(bare.rstrip(BEHIND))
        return bare[:end] + sign + bare[end:] if end and final_sign(bare) in _BARE else text

    return add


def without_emoji(text: str) -> str:
    """Return ``text`` without emoji and the spaces before them.

    >>> without_emoji("Thanks 👍🏽, bye"), without_emoji("👍")
    ('Thanks, bye', '👍')
    """
    parts = EMOJI.split(text)
    if len(parts) == 1:
        return text
    bare = "".join(part.rstrip(" ") for part in parts[:-1]) + parts[-1]
    return bare if bare.strip() else text


def with_emoji(text: str, drawn: int) -> str:
    """Return ``text`` with an emoji at its end, before closing white space."""
    end = len(text.rstrip())
    if not end or EMOJI.search(without_emoji(text)):
        return text
    return f"{text[:end]} {_ADDED_EMOJI[drawn % len(_ADDED_EMOJI)]}{text[end:]}"


def with_first_letter(change: Callable[[str], str]) -> Callable[[str], str]:
    """Return what changes the case of a text's first letter, where that can be undone."""

    def apply(text: str) -> str:
        at = next((i for i, c in enumerate(text) if c.isalpha()), None)
        if at is None or len(change(text[at])) != 1:
            return text
        return text[:at] + change(text[at]) + text[at + 1 :]

    return apply


def without_quotes(text: str) -> str:
    """Return ``text`` without double quotation marks, unless it is JSON or HTML, which need
    them."""
    bare = QUOTES.sub("", text)
    return text if text_format(text) in _STRUCTURED or not bare.strip() else bare


def with_quotes(text: str, drawn: int) -> str:
    """Return ``text`` in quotation marks, unless it is JSON or HTML."""
    inside = text.strip()
    if text_format(text) in _STRUCTURED or not inside or QUOTES.search(without_quotes(text)):
        return text
    start = text.index(inside)
    return f'{text[:start]}"{inside}"{text[start + len(inside) :]}'


def with_white_space(text: str, drawn: int) -> str:
    """Return ``text`` with a space before it and a line end or a space behind it."""
    bare = text.strip()
    return f" {bare}" + ("\n" if drawn % 2 else " ") if bare else text


def _stripped(text: str) -> str:
    return text.strip() or text


_capital = with_first_letter(str.upper)
#: In the order in which they are applied: what wraps a text comes after what ends it.
TRANSFORMS: Mapping[str, Transform] = {
    "first_letter": Transform(
        lambda text, drawn: _capital(text), with_first_letter(str.lower), "first letter"
    ),
    "final_stop": Transform(with_final_sign("."), without_final_sign, "final sign"),
    "exclamation": Transform(with_final_sign("!"), without_final_sign, "final sign"),
    "quotes": Transform(with_quotes, without_quotes, "quotes"),
    "emoji": Transform(with_emoji, without_emoji, "emoji"),
    "white_space": Transform(with_white_space, _stripped, "white space"),
}


def counterfactual_copies(
    examples: Examples, transforms: Sequence[str] = tuple(TRANSFORMS), *, seed: int = 0
) -> Examples:
    """Return two opposite copies of every text, one behind the other, with its label, its source
    and its group; a text without a group shares one with its copies.

    ``transforms`` are names of ``TRANSFORMS``. The same texts and seed give the same copies.
    """
    unknown = [name for name in transforms if name not in TRANSFORMS]
    if unknown:
        raise ValueError(f"transforms: unknown {unknown}; known: {', '.join(TRANSFORMS)}")
    chosen = [name for name in TRANSFORMS if name in transforms]
    texts = [copy for text in examples.texts for copy in _opposites(text, chosen, seed)]
    doubled = examples.select(np.repeat(np.arange(len(examples)), 2))
    groups = [group for group in group_names(examples) for _ in range(2)]
    return Examples(texts, doubled.labels_N, doubled.label_names, groups, doubled.sources)


def _opposites(text: str, transforms: Sequence[str], seed: int) -> tuple[str, str]:
    digest = hashlib.sha256(f"{seed}:{text}".encode("utf-8", "surrogatepass")).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    has = {name: bool(rng.integers(2)) for name in transforms}
    lacks = {name: not there for name, there in has.items()}
    drawn, preferred = int(rng.integers(60)), int(rng.integers(2))
    first, second = (_copy(text, x, drawn, preferred) for x in (has, lacks))
    return first, second


def _copy(text: str, has: Mapping[str, bool], drawn: int, preferred: int) -> str:
    """Return ``text`` with those signs that it ``has``, and without the others."""
    for name, there in has.items():
        if not there:
            text = TRANSFORMS[name].remove(text)
    places: dict[str, list[str]] = {}
    for name, there in has.items():
        if there:
            places.setdefault(TRANSFORMS[name].place, []).append(name)
    for names in places.values():
        text = TRANSFORMS[names[preferred % len(names)]].add(text, drawn)
    return text
