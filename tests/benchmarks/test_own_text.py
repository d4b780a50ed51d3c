"""benchmarks/corpus: the same text each time, of every kind, apart from test text."""

from __future__ import annotations

import random
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.corpus import own_text, stdlib_documents
from benchmarks.corpus.codes import CODES
from benchmarks.corpus.phrases import Choice, Slot, Writer, count, find, parse, parse_lines
from guardkit.training import over_defence

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def grammar() -> Any:
    return own_text.load()


@pytest.fixture(scope="module")
def rows(grammar: Any) -> Rows:
    return list(own_text.make(grammar, attacks=2000, benign=3000, seed=3))


def test_the_same_seed_gives_the_same_texts(grammar: Any, rows: Rows) -> None:
    assert list(own_text.make(grammar, attacks=2000, benign=3000, seed=3)) == rows
    other = own_text.make(grammar, attacks=2000, benign=3000, seed=4)
    assert len({r["text"] for r in other} & {r["text"] for r in rows}) < 500


def test_there_are_as_many_of_each_label_as_asked_for(rows: Rows) -> None:
    assert [r["label"] for r in rows] == ["injection"] * 2000 + ["benign"] * 3000


def test_every_kind_and_language_occurs_under_its_label(grammar: Any, rows: Rows) -> None:
    made = {(r["label"], *r["group"].split("-")[:2]) for r in rows}
    assert {(k.label, k.name, k.language) for k in grammar.kinds} <= made
    kinds_of_document = {document.kind for document in grammar.documents}
    for label in ("injection", "benign"):
        assert {(label, "document", kind) for kind in kinds_of_document} <= made


def test_no_text_comes_twice_and_the_same_words_only_where_they_are_few(rows: Rows) -> None:
    assert len({r["text"] for r in rows}) == len(rows)
    words = Counter(own_text.words_of(r["text"]) for r in rows)
    assert max(words.values()) == own_text.FORMS
    again = [text for text, times in words.items() if times > 1]
    assert max(len(text.split()) for text in again) <= own_text.FEW_WORDS


def test_the_same_words_never_have_two_labels(rows: Rows) -> None:
    label_of: dict[str, str] = {}
    for row in rows:
        assert label_of.setdefault(own_text.words_of(row["text"]), row["label"]) == row["label"]


def test_no_text_borrows_from_the_over_defence_set(rows: Rows) -> None:
    held_out = over_defence.bundled()
    five_words = {
        " ".join(words[i : i + 5])
        for words in map(str.split, map(own_text.normal, held_out))
        for i in range(len(words) - 4)
    }
    for row in rows:
        words = own_text.normal(row["text"]).split()
        assert not five_words & {" ".join(words[i : i + 5]) for i in range(len(words) - 4)}
    assert not {own_text.normal(row["text"]) for row in rows} & set(map(own_text.normal, held_out))


def test_a_group_has_one_label_unless_it_has_planted_twins(rows: Rows) -> None:
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row["group"], set()).add(row["label"])
    assert len(labels) > 2500
    twins = {group for group, found in labels.items() if len(found) > 1}
    assert {group.split("-")[0] for group in twins} == {"document", "record"}


def test_nearly_every_poisoned_record_has_its_clean_twin(rows: Rows) -> None:
    records = [r for r in rows if r["group"].startswith("record")]
    poisoned = {r["group"] for r in records if r["label"] == "injection"}
    clean = {r["group"] for r in records if r["label"] == "benign"}
    assert len(poisoned) > 100
    assert len(poisoned & clean) > 0.9 * len(poisoned)


def test_a_planted_document_is_about_a_window_long(rows: Rows) -> None:
    documents = [r for r in rows if r["group"].startswith("document")]
    longest = {
        label: max(len(r["text"]) for r in documents if r["label"] == label)
        for label in ("benign", "injection")
    }
    assert longest["injection"] < 6 * own_text.AROUND < longest["benign"]


def test_what_is_planted_stays_whole_whatever_is_cut_about_it() -> None:
    rng, words = random.Random(0), "lorem ipsum dolor sit amet " * 100
    for text in (f"{words}PAYLOAD HERE {words}", f"PAYLOAD HERE {words}", "PAYLOAD HERE"):
        for _ in range(50):
            cut = own_text._around(text, "PAYLOAD HERE", rng)
            assert "PAYLOAD HERE" in cut
            assert cut in text
            assert len(cut) <= 2 * own_text.AROUND + len("PAYLOAD HERE")


def test_real_documents_are_pythons_own_and_the_same_each_time() -> None:
    found = stdlib_documents.documents()
    assert found == stdlib_documents.documents()
    assert {kind for kind, _ in found} == set(own_text.CARRIERS)
    source = Path(textwrap.__file__).read_text("utf-8")
    assert any(all(part in source for part in parts) for _, parts in found)


def test_no_slot_of_the_grammar_is_left_unfilled(rows: Rows) -> None:
    slot = re.compile(r"\{[\w:.-]+\}")
    own = [r["text"] for r in rows if not re.match("document-(code|manual)", r["group"])]
    assert not [text for text in own if slot.search(text)]


def test_every_list_that_a_template_asks_for_is_there(grammar: Any) -> None:
    for kind in grammar.kinds:
        for template in kind.templates:
            assert count(template, kind.lists) >= 1
    noted = grammar.records.lists | {"note": grammar.records.lists["remark"]}
    in_records = list(grammar.records.texts)
    in_records += [part for table in grammar.records.tables for f in table.fields for part in f]
    in_records += [option for options in noted.values() for option in options]
    assert all(count(phrase, noted) >= 1 for phrase in in_records)
    for name, options in grammar.planting.items():
        assert all(count(option, grammar.planting) >= 1 for option in options), name
    noted = grammar.planting | {"note": grammar.planting["plant"]}
    carriers = {document.kind: document.carriers for document in grammar.documents}
    phrases = [(d.kind, part) for d in grammar.documents for part in d.parts]
    phrases += [(kind, carrier) for kind, own in carriers.items() for carrier in own]
    for kind, phrase in phrases:
        assert count(phrase, noted) >= 1, kind


def test_every_code_that_a_template_asks_for_is_there(grammar: Any) -> None:
    def codes(sequence: Any) -> Iterator[str]:
        for part in sequence:
            if isinstance(part, Slot):
                yield part.code
            elif isinstance(part, Choice):
                for option in part.options:
                    yield from codes(option)

    templates = [t for kind in grammar.kinds for t in kind.templates]
    templates += [p for kind in grammar.kinds for lists in kind.lists.values() for p in lists]
    asked = {code for template in templates for code in codes(template)} - {""}
    assert asked == CODES.keys()


def test_a_phrase_becomes_each_of_the_texts_it_counts() -> None:
    lists = {"x": parse_lines("a\nb"), "y": parse_lines("(1|2|) (aside) {x}")}
    phrase = parse("{X1}{x1} {y} :(")
    texts = {Writer(random.Random(seed), lists).write(phrase) for seed in range(300)}
    assert len(texts) == count(phrase, lists) == 12
    assert {"Aa 1 (aside) b :(", "Bb  (aside) a :("} <= texts


def test_an_unknown_list_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"no list 'z'.*use one of: x"):
        find({"x": []}, "z")


def test_a_code_hides_the_payload_but_keeps_it() -> None:
    assert CODES["morse"]("so it") == "... --- / .. -"
    assert CODES["caesar"]("abz") == "fge"
    assert CODES["last_first"]("say the key") == "key the say"


def test_a_grammar_that_runs_dry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_text, "TRIES", 2)
    kind = own_text.Kind("one", "en", "benign", [parse("hello")], {})
    document = own_text.Document("d", ["x"], " ", parse_lines("{note}"))
    planting = {name: parse_lines("DOCUMENT") for name in ("frame", "plant", "for_people")}
    grammar = own_text.Grammar([kind], [document], planting)
    with pytest.raises(ValueError, match=r"benign: the grammar made \d+ texts of 900; ask for"):
        list(own_text.make(grammar, attacks=0, benign=900, seed=0))
