"""Opposite copies of a text differ in the signs alone, and unmake a shortcut."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.audit.audit import audit
from guardkit.audit.counterfactual import TRANSFORMS, counterfactual_copies
from guardkit.audit.shortcuts import EMOJI, FEATURES
from guardkit.types import Examples

from .test_audit import examples_of, sentence

#: Of each transform, the feature of the audit that it changes.
FEATURE = {
    "first_letter": "first letter",
    "final_stop": "final sign",
    "exclamation": "final sign",
    "quotes": "quotation marks",
    "emoji": "emoji",
    "white_space": "leading white space",
}
PRESENT = {
    "first_letter": "capital",
    "final_stop": "full stop",
    "exclamation": "exclamation mark",
}
OF = {feature.name: feature.of for feature in FEATURES}


def shortcut(name: str, share: float = 0.95) -> Examples:
    """Return texts most of which have the sign if they are of label ``a``, and lack it if not."""
    chance = random.Random(0)
    labels = [chance.choice("aab") for _ in range(400)]
    texts = []
    for label in labels:
        text = sentence(chance)
        if (label == "a") == (chance.random() < share):
            text = TRANSFORMS[name].add(text, chance.randrange(9))
        texts.append(text)
    return examples_of(texts, labels)


def auroc(examples: Examples, feature: str) -> float:
    found = [f.auroc["value"] for f in audit(examples).features if f.feature == feature]
    return found[0] if found and found[0] is not None else 0.5  # the same in every text


@pytest.mark.parametrize("name", TRANSFORMS)
def test_copies_bring_a_shortcut_down_to_chance(name: str) -> None:
    examples = shortcut(name)
    assert auroc(examples, FEATURE[name]) > 0.9
    alone = counterfactual_copies(examples, [name])
    assert auroc(alone, FEATURE[name]) == pytest.approx(0.5, abs=0.001)
    together = counterfactual_copies(examples)
    assert auroc(together, FEATURE[name]) < 0.55
    for found in audit(together).features:
        assert found.feature not in FEATURE.values() or not found.warning


def test_copies_keep_label_source_and_group_and_differ_in_nothing_else() -> None:
    chance = random.Random(1)
    texts = [f"{sentence(chance)}?" for _ in range(60)]
    labels = [chance.choice("ab") for _ in texts]
    examples = examples_of(texts, labels, sources=[f"s{i}" for i in range(60)])
    copies = counterfactual_copies(examples)
    assert len(copies) == 120
    assert copies.label_names == examples.label_names
    assert np.array_equal(copies.labels_N, np.repeat(examples.labels_N, 2))
    assert list(copies.sources) == [source for source in examples.sources for _ in range(2)]
    assert list(copies.groups[::2]) == list(copies.groups[1::2])
    assert len(set(copies.groups)) == len(set(texts))

    def core(text: str) -> str:
        return EMOJI.sub("", text).strip().strip('".!?').strip().strip('".!?').lower()

    assert [core(text) for text in copies.texts] == [core(t) for t in texts for _ in range(2)]
    grouped = examples_of(texts, labels, groups=["g"] * 60)
    assert set(counterfactual_copies(grouped).groups) == {"g"}


def test_copies_do_not_depend_on_the_label_and_are_the_same_every_time() -> None:
    texts = [sentence(random.Random(i)) for i in range(40)]
    one = counterfactual_copies(examples_of(texts, ["a", "b"] * 20))
    other = counterfactual_copies(examples_of(texts, ["b"] * 20 + ["a"] * 20))
    assert one.texts == other.texts
    assert counterfactual_copies(examples_of(texts, ["a", "b"] * 20), seed=1).texts != one.texts


@given(st.text(), st.sampled_from(list(TRANSFORMS)), st.integers(0, 9))
def test_of_any_text_one_copy_has_the_sign_and_one_lacks_it_or_none_is_changed(
    text: str, name: str, seed: int
) -> None:
    pair = counterfactual_copies(examples_of([text], ["a"]), [name], seed=seed).texts
    assert all(pair) or not text
    kinds = {OF[FEATURE[name]](copy) for copy in pair}
    present = PRESENT.get(name, "yes")
    if present in kinds:
        assert len(kinds) == 2 or set(pair) == {text}
    else:
        assert set(pair) == {text}


def test_json_and_html_keep_their_quotes() -> None:
    texts = ['{"a": "b"}', '<a href="x">y</a>']
    copies = counterfactual_copies(examples_of(texts, ["a", "b"]), ["quotes"])
    assert copies.texts == [text for text in texts for _ in range(2)]


def test_an_unknown_transform_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown \['shout'\]; known: first_letter, final_stop"):
        counterfactual_copies(examples_of(["x"], ["a"]), ["shout"])
