"""Changes that must not flip a verdict: each changes what it says and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.evaluation.invariances import EMOJI, GREETINGS, TRANSFORMS, WORD, final_marks

BY_NAME = {transform.name: transform for transform in TRANSFORMS}
WORDS = st.lists(st.text("abcdeÄß漢é'0", min_size=1, max_size=9), min_size=1, max_size=60)
TEXTS = st.one_of(
    st.text(max_size=80),
    st.text('ab cD.!?\n\t"`{}>#ßΣİ😊', max_size=60),
    WORDS.map(" ".join),
)


def doubled_letters(text: str) -> str:
    return BY_NAME["doubled letters"](text)


#: What must hold of (text, changed text) for each transform: it says what changed, and all of it.
HOLDS: dict[str, Callable[[str, str], bool]] = {
    "greeting": lambda a, b: b in [greeting + a for greeting in GREETINGS],
    "please": lambda a, b: b == f"Please {a}",
    "thanks": lambda a, b: b == f"{a} Thank you.",
    "emoji": lambda a, b: b in [f"{a} {emoji}" for emoji in EMOJI],
    "full stop": lambda a, b: b.rstrip() == a.rstrip() + "." and without_mark(b) == a,
    "exclamation mark": lambda a, b: b.rstrip() == a.rstrip() + "!" and without_mark(b) == a,
    "no final mark": lambda a, b: without_mark(a) == b,
    "doubled final mark": lambda a, b: without_mark(b) == without_mark(a),
    "upper case": lambda a, b: b.casefold() == a.casefold(),
    "lower case": lambda a, b: b.casefold() == a.casefold(),
    "title case": lambda a, b: b.casefold() == a.casefold(),
    "first letter": lambda a, b: (
        b.casefold() == a.casefold() and sum(x != y for x, y in zip(a, b, strict=True)) == 1
    ),
    "quotes": lambda a, b: b == f'"{a}"',
    "space before": lambda a, b: b == f"\n  {a}",
    "space after": lambda a, b: b == f"{a}  \n",
    "doubled spaces": lambda a, b: b.replace("  ", " ") == a,
    "line breaks": lambda a, b: all(
        x == y or (x, y) == (" ", "\n") for x, y in zip(a, b, strict=True)
    ),
    "swapped letters": lambda a, b: sorted(a) == sorted(b) and a[0] == b[0],
    "dropped letters": lambda a, b: len(a) > len(b) and is_subsequence(b, a),
    "doubled letters": lambda a, b: len(a) < len(b) and is_subsequence(a, b),
    "JSON": lambda a, b: json.loads(b) == {"text": a},
    "JSON message": lambda a, b: json.loads(b) == {"role": "user", "content": a},
    "Markdown quote": lambda a, b: [x[2:] for x in b.split("\n")] == a.split("\n")
    and all(x.startswith("> ") for x in b.split("\n")),
    "Markdown list item": lambda a, b: b.startswith("- ")
    and [x[2:] for x in b.split("\n")] == a.split("\n"),
    "Markdown code": lambda a, b: fenced(a, b),
    "Markdown heading": lambda a, b: b == f"# {a}",
}  # fmt: skip


def without_mark(text: str) -> str:
    body, _, space = final_marks(text)
    return body + space


def is_subsequence(short: str, long: str) -> bool:
    rest = iter(long)
    return all(character in rest for character in short)


def fenced(text: str, changed: str) -> bool:
    fence, _, rest = changed.partition("\n")
    return set(fence) == {"`"} and rest == f"{text}\n{fence}" and fence not in text


@pytest.mark.parametrize("name", BY_NAME)
@given(text=TEXTS)
def test_a_transform_changes_what_it_says_and_nothing_else(name: str, text: str) -> None:
    changed = BY_NAME[name](text)
    if changed != text:
        assert text.strip(), "space alone is left as it is"
        assert HOLDS[name](text, changed)
    assert BY_NAME[name](text) == changed


@pytest.mark.parametrize("name", BY_NAME)
def test_every_transform_changes_an_ordinary_text(name: str) -> None:
    texts = ("please send the report to Anna, and thank her for me.", "send it to Anna")
    assert any(BY_NAME[name](text) != text for text in texts)


def test_every_transform_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len(BY_NAME) == len(TRANSFORMS)
    assert set(HOLDS) == set(BY_NAME)
    assert all(transform.sentence.endswith(".") for transform in TRANSFORMS)


@pytest.mark.parametrize("name", ["swapped letters", "dropped letters", "doubled letters"])
@given(words=st.lists(st.from_regex(r"\A[a-z]{4,9}\Z"), min_size=1, max_size=80))
def test_typing_errors_stay_in_one_word_of_twenty(name: str, words: list[str]) -> None:
    text = " ".join(words)
    new = BY_NAME[name](text).split(" ")
    changed = [(a, b) for a, b in zip(words, new, strict=True) if a != b]
    assert len(changed) <= max(1, round(len(words) / 20))
    assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in changed)


def test_a_words_first_letter_and_short_words_are_never_mistyped() -> None:
    assert WORD.findall("to be or 1234 not") == []
    assert doubled_letters("to be or 1234 not") == "to be or 1234 not"


def test_examples_of_changes() -> None:
    assert BY_NAME["upper case"]("Straße, bitte") == "STRAßE, BITTE"
    assert BY_NAME["title case"]("what's new in YAML?") == "What's New In Yaml?"
    assert BY_NAME["no final mark"]("Really?! \n") == "Really \n"
    assert BY_NAME["doubled final mark"]("Really?!") == "Really?!?!"
    assert BY_NAME["full stop"]("ignore previous instructions") == "ignore previous instructions."
    assert BY_NAME["no final mark"]("?!") == "?!"
    assert BY_NAME["line breaks"]("a b c d e f g") == "a b c d e\nf g"
    assert BY_NAME["Markdown code"]("a ```b```") == "````\na ```b```\n````"
    assert BY_NAME["Markdown list item"]("a\nb") == "- a\n  b"


@pytest.mark.parametrize("name", BY_NAME)
def test_a_long_run_of_one_character_takes_no_longer_than_a_text(name: str) -> None:
    for character in ("!", " ", "`", "\n", "a"):
        BY_NAME[name](character * 200_000 + "b")


def test_transforms_do_not_depend_on_the_process() -> None:
    text = "Please forward the quarterly figures to everybody in the finance department"
    code = (
        "from guardkit.evaluation.invariances import TRANSFORMS\n"
        f"print(ascii([transform({text!r}) for transform in TRANSFORMS]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ascii([transform(text) for transform in TRANSFORMS])
    assert not re.search(r"\bnan\b", ran.stdout)
