"""benchmarks/injection/generalisation.py and long_texts.py: what they count, and what they try."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.injection import generalisation, long_texts
from guardkit.types import Examples


def test_a_detector_is_judged_at_the_threshold_it_was_given() -> None:
    examples = Examples(
        [f"t{i}" for i in range(6)], np.array([1, 1, 1, 0, 0, 0]), ("benign", "injection")
    )
    score_N = np.array([0.9, 0.6, 0.2, 0.7, 0.1, 0.3])
    found = generalisation.judged(score_N, 0.5, examples)
    assert found["recall"]["value"] == pytest.approx(2 / 3)
    assert found["fpr"]["value"] == pytest.approx(1 / 3)
    assert found["auroc"]["value"] == pytest.approx(6 / 9)


def test_a_set_without_attacks_has_false_positives_alone() -> None:
    examples = Examples(["a", "b"], np.array([0, 0]), ("benign", "injection"))
    found = generalisation.judged(np.array([0.0, 1.0]), 0.5, examples)
    assert found["fpr"]["value"] == 0.5
    assert found["recall"]["value"] is None
    assert "auroc" not in found


def test_two_opinions_weigh_alike_whatever_their_scales() -> None:
    def length(texts: list[str]) -> np.ndarray:
        return np.array([float(len(text)) for text in texts])

    def thousandfold(texts: list[str]) -> np.ndarray:
        return 1000 * np.array([float(text.count("a")) for text in texts]) - 7

    both = generalisation.mean_of([length, thousandfold], ["a", "bbb"])
    # means 2 and 493, deviations 1 and 500
    assert both(["a", "bbb", "aaaa"]).tolist() == pytest.approx([0.0, 0.0, (2.0 + 7.0) / 2])


@pytest.mark.parametrize(("place", "line"), [("start", 0), ("middle", 2), ("end", 4)])
def test_an_attack_is_a_line_of_its_own_where_it_was_to_be(place: str, line: int) -> None:
    stories = ["one", "two", "three", "four"]
    lines = long_texts.planted("attack", stories, long_texts.PLACES[place]).split("\n")
    assert lines[line] == "attack"
    assert [each for each in lines if each != "attack"] == stories
