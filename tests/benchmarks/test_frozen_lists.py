"""benchmarks/injection/frozen: lists are what their page says, and signs tell no label."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import takewhile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "injection" / "frozen"
PAGE = (FOLDER / "README.md").read_text("utf-8")
LABELS = {
    "harmless.jsonl": Counter(benign=300),
    "attacks.jsonl": Counter(injection=200),
    "tool_output.jsonl": Counter(benign=60, injection=60),
}
FIELDS = {
    "harmless.jsonl": {"text", "label", "kind", "lang"},
    "attacks.jsonl": {"text", "label", "kind", "lang"},
    "tool_output.jsonl": {"text", "label", "kind", "pair"},
}
Row = dict[str, str]


def read(name: str) -> list[Row]:
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def texts(label: str, *names: str) -> list[str]:
    return [row["text"] for name in names for row in read(name) if row["label"] == label]


@pytest.mark.parametrize("name", LABELS)
def test_a_list_is_frozen(name: str) -> None:
    digest = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
    assert f"| `{name}` | {sum(LABELS[name].values())} | `{digest}` |" in PAGE


@pytest.mark.parametrize("name", LABELS)
def test_a_list_has_its_labels_and_fields(name: str) -> None:
    rows = read(name)
    assert Counter(row["label"] for row in rows) == LABELS[name]
    for row in rows:
        assert set(row) == FIELDS[name]
        assert all(value == value.strip() != "" for value in row.values()), row


def test_no_text_comes_twice() -> None:
    counted = Counter(" ".join(r["text"].lower().split()) for name in LABELS for r in read(name))
    assert [text for text, times in counted.items() if times > 1] == []


@pytest.mark.parametrize("name", LABELS)
def test_kinds_are_those_of_the_page(name: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", section(name), flags=re.M)
    assert {kind: int(number) for kind, number in rows} == Counter(r["kind"] for r in read(name))


def test_languages_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", section("Languages"), flags=re.M)
    harmless, attacks = (
        Counter(r["lang"] for r in read(f"{name}.jsonl")) for name in ("harmless", "attacks")
    )
    assert {lang: int(number) for lang, number, _ in rows} == harmless
    assert {lang: int(number) for lang, _, number in rows if int(number)} == attacks


def test_the_texts_of_a_pair_differ_in_one_place() -> None:
    pairs: dict[str, dict[str, Row]] = {}
    for row in read("tool_output.jsonl"):
        pairs.setdefault(row["pair"], {})[row["label"]] = row
    for both in pairs.values():
        clean, poisoned = both["benign"]["text"], both["injection"]["text"]
        assert both["benign"]["kind"] == both["injection"]["kind"]
        before = equal(zip(clean, poisoned, strict=False))
        after = equal(zip(clean[before:][::-1], poisoned[before:][::-1], strict=False))
        assert 15 < len(poisoned) - before - after < 0.7 * len(poisoned), poisoned
        assert is_json(clean) == is_json(poisoned), poisoned


def equal(letters: Iterable[tuple[str, str]]) -> int:
    """Return how many pairs of letters are equal before the first that is not."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], letters))


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


EMOJI = re.compile("[\U0001f1e6-\U0001faff\u2600-\u27bf]")
SIGNS: dict[str, Callable[[str], bool]] = {
    "final sign": lambda text: text.endswith((".", "!", "?", "。", "\uff01", "\uff1f")),
    "emoji": lambda text: EMOJI.search(text) is not None,
    "capitals": lambda text: len(text) > 3 and text.isupper(),
    "small first letter": lambda text: text[0].islower(),
    "lines": lambda text: "\n" in text,
    "bracket": lambda text: text[0] in "{[<|",
}
PARTS = [("harmless.jsonl", "attacks.jsonl"), ("tool_output.jsonl",)]


@pytest.mark.parametrize("names", PARTS)
@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_does_not_tell_the_label(sign: str, names: tuple[str, ...]) -> None:
    benign, attacks = (
        sum(map(SIGNS[sign], found)) / len(found)
        for found in (texts("benign", *names), texts("injection", *names))
    )
    assert benign == pytest.approx(attacks, abs=0.051)


@pytest.mark.parametrize("names", PARTS)
def test_length_does_not_tell_the_label(names: tuple[str, ...]) -> None:
    benign, attacks = (
        [len(text) for text in texts(label, *names)] for label in ("benign", "injection")
    )
    longer = sum((a > b) + (a == b) / 2 for a in attacks for b in benign)
    assert longer / len(attacks) / len(benign) == pytest.approx(0.5, abs=0.056)
