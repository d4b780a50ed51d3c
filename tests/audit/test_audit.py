"""An audit finds what tells a label, as strong as independent measures say, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from guardkit.audit import audit as audit_module
from guardkit.audit.audit import audit
from guardkit.audit.findings import Audit, Finding, as_json, described, warning_lines
from guardkit.audit.shortcuts import FEATURES
from guardkit.data.splits import FOLDS, group_folds, group_names
from guardkit.errors import DataError
from guardkit.types import UNLABELLED, Examples

WORDS = ["apple", "river", "stone", "cloud", "paper", "green", "seven", "under", "table", "music"]


def sentence(chance: random.Random, n: int = 8) -> str:
    """Return a sentence in which nothing tells anything."""
    return " ".join(chance.choice(WORDS) for _ in range(n))


def examples_of(texts: Sequence[str], labels: Sequence[str | None], **columns: Any) -> Examples:
    names = tuple(sorted({label for label in labels if label}))
    labels_N = [names.index(label) if label else UNLABELLED for label in labels]
    return Examples(texts, np.array(labels_N, np.int64), names, **columns)


def with_sign(sign: str, share_a: float, share_b: float, n: int = 400, seed: int = 0) -> Examples:
    """Return as many texts of label ``a`` as of ``b``, of which these shares end in ``sign``."""
    chance = random.Random(seed)
    labels = ["a", "b"] * (n // 2)
    shares = {"a": share_a, "b": share_b}
    texts = [
        sentence(chance) + (sign if chance.random() < shares[label] else "") for label in labels
    ]
    return examples_of(texts, labels)


def named(found: Audit, feature: str) -> Finding:
    return next(f for f in found.features if f.feature == feature)


def of(feature: str, texts: Sequence[str]) -> list[str | float]:
    return [next(f for f in FEATURES if f.name == feature).of(text) for text in texts]


def test_of_a_yes_or_no_the_auroc_is_the_balanced_accuracy() -> None:
    examples = with_sign(" 👍", 0.6, 0.1)
    finding = named(audit(examples), "emoji")
    has = np.array(of("emoji", examples.texts)) == "yes"
    expected = sk.balanced_accuracy_score(examples.labels_N == 0, has)
    assert finding.auroc["value"] == pytest.approx(expected)
    assert finding.auroc["value"] == pytest.approx(sk.roc_auc_score(examples.labels_N == 0, has))
    assert (finding.label, finding.strongest.value) == ("a", "yes")
    assert finding.strongest.texts == has.sum()


def test_the_auroc_is_that_of_ranks_from_the_other_folds() -> None:
    chance = random.Random(3)
    signs = [".", "!", "?", "", ":"]
    labels = [chance.choice("abc") for _ in range(500)]
    texts = [sentence(chance) + signs[(chance.random() < 0.6) * "abc".index(x)] for x in labels]
    groups = [f"g{i // 3}" for i in range(500)]
    examples = examples_of(texts, labels, groups=groups)
    finding = named(audit(examples), "final sign")
    value = of("final sign", texts)
    kinds = sorted({str(x) for x in value})
    fold_N = group_folds(examples.labels_N, group_names(examples), seed=0)
    aurocs = []
    has_VN = np.array([[x == kind for x in value] for kind in kinds])
    for label in "abc":
        is_N = np.array(labels) == label
        guess_N = np.zeros(500)
        for fold in range(FOLDS):
            others_N = fold_N != fold
            with_V2 = [
                [(has_N & own & others_N).sum() for own in (is_N, ~is_N)] for has_N in has_VN
            ]
            odds_V = np.array([a + 0.5 for a, _ in with_V2]) / [b + 0.5 for _, b in with_V2]
            for v, has_N in enumerate(has_VN):
                guess_N[(fold_N == fold) & has_N] = (odds_V < odds_V[v]).sum()
        aurocs.append(sk.roc_auc_score(is_N, guess_N))
    assert finding.auroc["value"] == pytest.approx(max(aurocs))
    assert finding.label == "abc"[int(np.argmax(aurocs))]


def test_the_order_of_strength_is_that_of_mutual_information() -> None:
    chance = random.Random(1)
    labels = ["a", "b"] * 300
    texts = []
    for label in labels:
        odds = (0.9, 0.75, 0.6) if label == "a" else (0.1, 0.25, 0.4)
        emoji, digits, quotes = (chance.random() < share for share in odds)
        texts.append(sentence(chance) + " 👍" * emoji + " 1" * digits + ' "x"' * quotes)
    found = audit(examples_of(texts, labels))
    names = ["emoji", "digits", "quotation marks"]
    information = {x: sk.mutual_info_score(labels, list(map(str, of(x, texts)))) for x in names}
    ordered = [f.feature for f in found.features if f.feature in names]
    assert ordered == sorted(names, key=lambda name: -information[name])
    assert [bool(named(found, x).warning) for x in names] == [True, True, False]


def test_shares_without_groups_have_wilson_intervals() -> None:
    examples = with_sign("!", 0.3, 0.0)
    value = named(audit(examples), "final sign").strongest
    assert value.value == "exclamation mark"
    for c, label in enumerate("ab"):
        own = [x for x, y in zip(examples.texts, examples.labels_N, strict=True) if y == c]
        k = sum(text.endswith("!") for text in own)
        interval = stats.binomtest(k, len(own)).proportion_ci(method="wilson")
        share = value.shares[label]
        assert (share["value"], share["low"], share["high"]) == pytest.approx(
            (k / len(own), interval.low, interval.high)
        )


def test_with_groups_near_duplicates_do_not_narrow_the_intervals() -> None:
    single = with_sign("!", 0.5, 0.2, n=120)
    alone = audit(
        examples_of(single.texts, [single.label_names[y] for y in single.labels_N],
                    groups=[f"g{i}" for i in range(120)])
    )  # fmt: skip
    texts, labels, groups = [], [], []
    for i, text in enumerate(single.texts):
        texts += [f"{text}"] * 10
        labels += [single.label_names[single.labels_N[i]]] * 10
        groups += [f"g{i}"] * 10
    repeated = audit(examples_of(texts, labels, groups=groups))
    for key in ("auroc", "share"):
        widths = []
        for found in (alone, repeated):
            finding = named(found, "final sign")
            interval = finding.auroc if key == "auroc" else finding.strongest.shares["a"]
            assert interval["low"] is not None
            assert interval["high"] is not None
            widths.append(interval["high"] - interval["low"])
        assert widths[1] == pytest.approx(widths[0], rel=0.25)


def test_a_share_of_none_or_all_has_an_interval_all_the_same() -> None:
    examples = with_sign("!", 1.0, 0.0, n=80)
    grouped = examples_of(examples.texts, ["a", "b"] * 40, groups=[f"g{i}" for i in range(80)])
    value = named(audit(grouped), "final sign").strongest
    for label, k in (("a", 40 if value.value == "exclamation mark" else 0),):
        interval = stats.binomtest(k, 40).proportion_ci(method="exact")
        share = value.shares[label]
        ends = (share["low"], share["high"])
        expected = (interval.low, interval.high)
        assert ends == pytest.approx(expected)


def test_where_nothing_tells_the_label_nothing_is_warned_of() -> None:
    for seed in range(5):
        chance = random.Random(seed)
        labels = [chance.choice("ab") for _ in range(1000)]
        texts = [
            sentence(chance, chance.randrange(3, 30)) + chance.choice(["", ".", "!", " 👍"])
            for _ in labels
        ]
        found = audit(examples_of(texts, labels, sources=[chance.choice("xyz") for _ in labels]))
        assert found.warnings == []
        assert warning_lines(found, most=3) == []
        for finding in found.features:
            assert finding.auroc["value"] == pytest.approx(0.5, abs=0.06)


def test_a_length_that_tells_only_in_the_middle_is_found() -> None:
    chance = random.Random(0)
    labels = ["a", "b"] * 200
    texts = [sentence(chance, chance.choice([3, 40]) if x == "a" else 15) for x in labels]
    lengths = [len(text) for text in texts]
    assert sk.roc_auc_score([x == "a" for x in labels], lengths) == pytest.approx(0.5, abs=0.1)
    finding = named(audit(examples_of(texts, labels)), "length in words")
    assert finding.auroc["value"] == pytest.approx(1.0)
    assert finding.strongest.value == "15"
    assert sum(value.texts for value in finding.values) == 400


def test_a_rare_sign_that_gives_the_label_away_is_warned_of_though_its_auroc_is_low() -> None:
    found = audit(with_sign(" 👍", 0.08, 0.0, n=1000))
    finding = named(found, "emoji")
    assert (finding.auroc["value"] or 1) < 0.6
    assert finding.warning.startswith("gives the label away")
    assert "'a'" in finding.warning
    assert finding.hint.startswith("about ")
    assert "of 'b' with it" in finding.hint


def test_a_sign_in_many_texts_of_one_group_gives_nothing_away() -> None:
    chance = random.Random(0)
    texts = [sentence(chance) for _ in range(400)] + [sentence(chance) + " 👍" for _ in range(60)]
    labels = ["a", "b"] * 200 + ["a"] * 60
    groups = [f"g{i}" for i in range(400)] + ["one"] * 60
    assert named(audit(examples_of(texts, labels, groups=groups)), "emoji").warning == ""
    ungrouped = audit(examples_of(texts, labels))
    assert named(ungrouped, "emoji").warning != ""


def test_the_number_of_texts_that_even_a_sign_out_evens_it_out() -> None:
    examples = with_sign("!", 0.5, 0.1, n=1000)
    finding = named(audit(examples), "final sign")
    more = int(finding.hint.split()[1].replace(",", ""))
    assert "of 'b' with it" in finding.hint
    chance = random.Random(9)
    texts = [*examples.texts, *(sentence(chance) + "!" for _ in range(more))]
    labels = [*("ab"[y] for y in examples.labels_N), *["b"] * more]
    assert named(audit(examples_of(texts, labels)), "final sign").auroc["value"] < 0.52  # type: ignore[operator]


def test_sources_with_one_label_each_tell_it_though_no_source_does() -> None:
    chance = random.Random(0)
    labels = ["a", "b"] * 200
    sources = [f"{label}{chance.randrange(20)}" for label in labels]
    found = audit(examples_of([sentence(chance) for _ in labels], labels, sources=sources))
    finding = named(found, "source")
    assert finding.auroc["value"] == pytest.approx(1.0, abs=0.01)  # some are in one fold alone
    assert finding.warning.startswith("tells the label")
    assert {value.value for value in finding.values} == set(sources)
    assert warning_lines(found, most=3) == []  # no model sees the source


def test_phrases_that_give_a_label_away_are_listed_and_widespread_ones_warned_of() -> None:
    chance = random.Random(0)
    texts, labels = [], []
    for i in range(600):
        label = "ab"[i % 2]
        text = sentence(chance)
        if label == "a" and i % 10 < 2:
            text = f"Human: {text}"
        if label == "b" and i % 24 == 1:
            text = f"{text} zebra"
        texts.append(text)
        labels.append(label)
    found = audit(examples_of(texts, labels))
    phrases = {(p.feature, p.strongest.value): p for p in found.phrases}
    assert ("first words", "Human:") in phrases
    assert phrases["first words", "Human:"].warning
    zebra = next(p for (_, words), p in phrases.items() if "zebra" in words)
    assert zebra.strongest.texts == 25
    assert zebra.label == "b"
    quick = audit(examples_of(texts, labels), quick=True)
    assert {p.feature for p in quick.phrases} == {"first words", "last words"}


def test_texts_to_blame_are_named_by_row_and_nothing_unseen_is_in_them() -> None:
    chance = random.Random(0)
    texts: list[str] = ["unlabelled"]
    labels: list[str | None] = [None]
    for i in range(100):
        bad = i % 2 == 0
        texts.append(f"\x1b[31m{sentence(chance)}\u202e\n!" if bad else sentence(chance))
        labels.append("bad" if bad else "good")
    found = audit(examples_of(texts, labels))
    assert (found.texts, found.read, found.unlabelled) == (100, 100, 1)
    quotes = [q for f in [*found.features, *found.phrases] if f.label == "bad" for q in f.texts]
    assert quotes
    for quote in quotes:
        assert labels[quote.row - 1] == quote.label
        assert quote.text is not None
        assert quote.text.isprintable()
    shown = named(found, "unseen characters").texts[0]
    assert shown.text is not None
    assert shown.text.startswith("[U+001B][31m")
    assert shown.text.endswith("[U+202E]\\n!")
    none = audit(examples_of(texts, labels), texts=False)
    assert {q.text for f in [*none.features, *none.phrases] for q in f.texts} == {None}


def test_a_quick_audit_reads_some_texts_of_every_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "QUICK_TEXTS", 50)
    chance = random.Random(0)
    labels = ["a"] * 4999 + ["b"]
    texts = [sentence(chance) for _ in labels]
    found = audit(examples_of(texts, labels), quick=True)
    assert (found.read, found.texts) == (50, 5000)
    assert found.labels["b"] == 1
    monkeypatch.setattr(audit_module, "QUICK_CHARACTERS", 1)
    assert audit(examples_of(texts, labels), quick=True).read == 2


def test_fewer_than_two_labels_are_refused() -> None:
    with pytest.raises(DataError, match="two labels or more; there is 'a'"):
        audit(examples_of(["x", "y"], ["a", None]))
    with pytest.raises(DataError, match="there is none"):
        audit(examples_of(["x", "y"], [None, None]))


@pytest.mark.parametrize("texts", [["a", "b"], ["", "?"], ["same", "same"]])
def test_two_texts_are_enough(texts: list[str]) -> None:
    assert audit(examples_of(texts, ["x", "y"])).read == 2


def test_everything_is_json_and_the_same_every_time() -> None:
    examples = with_sign("!", 0.5, 0.1)
    one, other = (as_json(audit(examples)) for _ in range(2))
    text = json.dumps(one, allow_nan=False)
    assert text == json.dumps(other)
    back = json.loads(text)
    assert back["thresholds"]["auroc"] == 0.6
    assert back["features"][0]["auroc"].keys() == {"value", "low", "high"}


def test_one_line_a_subject_names_the_strongest_shortcuts() -> None:
    chance = random.Random(0)
    labels = ["a", "b"] * 200
    texts = [
        sentence(chance, 4) + "?" if x == "a" else sentence(chance, 30).upper() for x in labels
    ]
    found = audit(examples_of(texts, labels))
    lines = warning_lines(found, most=3)
    assert len(lines) == 3
    assert len([line for line in lines if line.startswith(("length", "lines"))]) == 1
    assert any(
        line.startswith("final sign tells the label: ") and "100% of" in line for line in lines
    )


def test_a_long_phrase_is_shortened_where_it_is_shown() -> None:
    chance = random.Random(0)
    labels = ["a", "b"] * 50
    blob = "A" * 5000
    texts = [f"{blob if x == 'a' else ''} {sentence(chance)}" for x in labels]
    found = audit(examples_of(texts, labels), quick=True)
    phrase = next(p for p in found.phrases if p.feature == "first words")
    assert phrase.strongest.value == blob
    assert len(described(phrase)) < 200
