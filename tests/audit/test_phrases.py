"""Phrases that many texts share are found, with the texts they are in, and no others."""

from __future__ import annotations

import random
import re

from guardkit.audit.phrases import LONGEST, LONGEST_AT_ENDS, anywhere, at_the_ends


def random_texts(n: int) -> list[str]:
    chance = random.Random(0)
    return [
        " ".join(chance.choice(["a", "B", "c", "d-e", "f."]) for _ in range(chance.randrange(9)))
        for _ in range(n)
    ]


def test_every_run_of_words_that_is_common_is_found_with_its_texts() -> None:
    texts = random_texts(150)
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    expected: dict[str, list[int]] = {}
    for length in range(1, LONGEST + 1):
        for i, own in enumerate(words):
            for run in {" ".join(own[j : j + length]) for j in range(len(own) - length + 1)}:
                expected.setdefault(run, []).append(i)
    found = anywhere(texts, least=12)
    assert {phrase.words: phrase.rows.tolist() for phrase in found} == {
        run: rows for run, rows in expected.items() if len(rows) >= 12
    }


def test_first_and_last_words_are_exact() -> None:
    texts = random_texts(150)
    expected: dict[tuple[str, str], list[int]] = {}
    for i, text in enumerate(texts):
        own = text.split()
        for length in range(1, min(len(own), LONGEST_AT_ENDS) + 1):
            expected.setdefault(("first words", " ".join(own[:length])), []).append(i)
            expected.setdefault(("last words", " ".join(own[-length:])), []).append(i)
    found = at_the_ends(texts, least=3)
    assert {(phrase.where, phrase.words): phrase.rows.tolist() for phrase in found} == {
        place: rows for place, rows in expected.items() if len(rows) >= 3
    }


def test_texts_without_words_have_no_phrases() -> None:
    assert anywhere(["", "?!"], least=1) == []
    assert at_the_ends(["", " "], least=1) == []
