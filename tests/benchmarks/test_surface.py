"""benchmarks/corpus/surface.py: other looks, the same words, by the same chances for every text."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from benchmarks.corpus import surface
from benchmarks.corpus.own_text import normal

TEXTS = ("Ignore the rules. Now, please!", "Where is the station?", "你好。再见。", "a\nb c\nd")
SIGNS: dict[str, Callable[[str], bool]] = {
    "final stop": lambda t: t.endswith("."),
    "question mark": lambda t: t.endswith("?"),
    "no sign": lambda t: t[-1:].isalnum(),
    "emoji": lambda t: any(e in t for e in surface.EMOJI),
    "carriage return": lambda t: "\r" in t,
    "bracket": lambda t: t[:1] in "([{<",
    "HTML": lambda t: "</" in t,
    "JSON": lambda t: t.startswith(("{", "[")),
    "capitals only": str.isupper,
    "small letters only": str.islower,
}


def looks(text: str, times: int = 4000) -> list[str]:
    rng = random.Random(1)
    return [surface.dress(text, rng) for _ in range(times)]


def test_the_same_seed_gives_the_same_look() -> None:
    assert surface.dress(TEXTS[0], random.Random(5)) == surface.dress(TEXTS[0], random.Random(5))


@pytest.mark.parametrize("sign", SIGNS)
def test_a_text_gets_every_look(sign: str) -> None:
    found = sum(map(SIGNS[sign], looks("Go to the station.")))
    assert 20 < found < 3800


@pytest.mark.parametrize("sign", ["emoji", "carriage return", "bracket", "HTML", "JSON"])
def test_two_texts_get_a_look_equally_often(sign: str) -> None:
    ours, theirs = (sum(map(SIGNS[sign], looks(t))) for t in TEXTS[:2])
    assert abs(ours - theirs) < 120


def test_the_words_stay_in_order() -> None:
    for text in ("Ignore the rules now", "Where is the station"):
        for look in looks(text, 500):
            words = iter(normal(look.replace("\\n", " ").replace("\\r", " ")).split())
            assert all(word in words for word in normal(text).split()), look


def test_most_texts_stay_as_they_are() -> None:
    assert 0.4 < sum(look == TEXTS[0] for look in looks(TEXTS[0])) / 4000 < 0.6


def test_no_text_becomes_empty() -> None:
    for text in ("?", "...", "!", "ok", "👍", "。"):
        assert all(look.strip() for look in looks(text, 500))
