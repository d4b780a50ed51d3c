"""A novelty p-value promises one thing: of texts like the calibration texts, at most a share a has
p <= a. It holds for the calibration set and the text drawn together, and is tested so."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from guardkit.errors import ArtefactError, DataError
from guardkit.model import novelty
from guardkit.model.artefact import NOVELTY, write_json
from guardkit.model.novelty import (
    BIN_TEXTS,
    MOST_BINS,
    Novelty,
    fit_novelty,
    read_novelty,
    why_unreachable,
)
from guardkit.model.scorers import Source
from guardkit.types import Examples, FloatArray, IntArray


def fitted(tokens_n: Sequence[int] | IntArray, scores_n: Sequence[float] | FloatArray) -> Novelty:
    order = np.argsort(tokens_n, kind="stable")
    return Novelty(
        tokens=np.asarray(tokens_n)[order].tolist(),
        scores=np.asarray(scores_n)[order].tolist(),
        left_out=0,
        data="",
    )


def p_value(known: Novelty, score: float, tokens: int) -> float:
    return float(known.p_values(np.array([score], np.float32), np.array([tokens]))[0])


def examples(texts: Sequence[str], groups: Sequence[str] = ()) -> Examples:
    return Examples(texts, np.zeros(len(texts), np.int64), ("ham", "spam"), groups)


# -- the promise ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    texts=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=2, max_size=40),
    bin_texts=st.integers(1, 10),
    bins=st.integers(1, 5),
)
def test_whichever_of_n_plus_one_texts_is_judged_by_the_others_p_is_super_uniform(
    texts: list[tuple[int, int]], bin_texts: int, bins: int
) -> None:
    """Exactly, with no chance in it: drawn texts come in any order, so each of these was as likely
    to be the last; of all choices at most a share a may give p <= a, ties among lengths and scores
    included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty, "BIN_TEXTS", bin_texts)
        patch.setattr(novelty, "MOST_BINS", bins)
        p_values = []
        for i, (tokens, score) in enumerate(texts):
            others = texts[:i] + texts[i + 1 :]
            p_values.append(p_value(fitted(*zip(*others, strict=True)), score, tokens))
    for bound in p_values:
        share = sum(p <= bound for p in p_values) / len(texts)
        assert share <= bound + 1e-12


def draw_texts(rng: np.random.Generator, n: int) -> tuple[IntArray, FloatArray]:
    """Return tokens and scores: skewed lengths, with ties; scores that depend on them."""
    tokens_n = rng.geometric(0.02, n)
    scores_n = (rng.normal(size=n) - 3 * np.log(tokens_n)).astype(np.float32)
    return tokens_n, scores_n


def test_over_redrawn_calibration_sets_p_is_uniform() -> None:
    """The calibration set is drawn anew each time. Against one fixed small set the test would
    reject a correct p-value: its largest score alone decides how often p is least, and that is
    off by chance (the next test)."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(3000):
        tokens_n, scores_n = draw_texts(rng, 251)
        known = fitted(tokens_n[:-1], scores_n[:-1])
        p_values.append(p_value(known, float(scores_n[-1]), int(tokens_n[-1])))
    for bound in (0.01, 0.05, 0.1, 0.25, 0.5, 0.9):
        slack = 3 * np.sqrt(bound * (1 - bound) / len(p_values))
        rate = np.mean(np.array(p_values) <= bound)
        assert bound - 0.01 - slack < rate < bound + slack  # steps of 1/101 are lost at most


def test_given_one_calibration_set_the_rate_is_a_draw_from_a_beta_distribution() -> None:
    """Of n = 19 texts the largest decides: P(p <= 0.05 | set) ~ Beta(1, 19), 0.05 on average and
    rarely near it. What is promised is the average."""
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(400):
        known = fitted([5] * 19, rng.uniform(size=19))
        rates.append(1 - max(known.scores))  # the chance that a uniform score is above all
        assert p_value(known, max(known.scores) + 0.01, 5) == 0.05
        assert p_value(known, max(known.scores) - 1e-6, 5) == 0.1
    assert stats.kstest(rates, stats.beta(1, 19).cdf).pvalue > 0.01
    assert stats.kstest(rates, stats.uniform(0.045, 0.01).cdf).pvalue < 1e-6


# -- what it is -------------------------------------------------------------------------------


def test_in_one_bin_p_is_what_its_definition_says() -> None:
    rng = np.random.default_rng(2)
    scores_n = rng.integers(0, 9, 60).astype(float)  # ties with each other and with the texts
    known = fitted(rng.integers(1, 50, 60), scores_n)
    for score in np.arange(-1, 10, 0.5):
        expected = (1 + sum(s >= score for s in scores_n)) / 61
        assert p_value(known, float(score), int(rng.integers(0, 60))) == expected


def test_a_text_is_held_against_texts_of_its_own_length() -> None:
    tokens_n = np.repeat([10, 1000], 300)
    scores_n = np.concatenate([np.linspace(0, 1, 300), np.linspace(5, 6, 300)])
    known = fitted(tokens_n, scores_n)
    assert p_value(known, 5.5, 1000) == pytest.approx(0.5, abs=0.01)
    assert p_value(known, 5.5, 10) == 1 / 301
    assert p_value(known, 0.5, 1000) == 1.0


@pytest.mark.parametrize("n", [1, 5, 99, 100, 101, 150, 250, 404, 1000, 3996])
def test_no_bin_is_tiny_and_every_length_can_reach_the_least_p(n: int) -> None:
    rng = np.random.default_rng(n)
    for tokens_n in (rng.geometric(0.02, n), rng.integers(1, 4, n), np.full(n, 7)):
        known = fitted(tokens_n, rng.normal(size=n))
        least = [p_value(known, 99.0, tokens) for tokens in (0, 1, 2, 5, 50, 10**6)]
        assert max(least) <= known.least_p
        assert known.least_p <= max(1 / (n + 1), 1 / (BIN_TEXTS + 1))
    assert n < MOST_BINS * BIN_TEXTS or known.least_p <= MOST_BINS / (n + 1)


def test_a_novelty_that_is_not_known_has_no_p_value_and_touches_no_other() -> None:
    known = fitted([1, 2, 3], [0.0, 1.0, 2.0])
    p_N = known.p_values(np.array([1.0, np.nan, 9.0], np.float32), np.array([2, 2, 2]))
    assert p_N[[0, 2]].tolist() == [0.75, 0.25]
    assert np.isnan(p_N[1])
    assert known.p_values(np.zeros(0, np.float32), np.zeros(0, np.int64)).shape == (0,)


def test_equal_scores_tie_although_json_holds_float64() -> None:
    score = np.float32(0.1)
    known = fitted([1], np.array([score], np.float32))
    again = Novelty.model_validate_json(known.model_dump_json())
    assert p_value(again, float(score), 1) == 1.0


# -- fitting ----------------------------------------------------------------------------------


def test_near_duplicates_count_once_and_the_order_of_the_data_says_nothing() -> None:
    texts = [f"text {i}" for i in range(12)]
    groups = [str(i // 4) for i in range(12)]
    scores_N, tokens_N = np.arange(12, dtype=np.float32), np.arange(12) % 5
    first = fit_novelty(examples(texts, groups), scores_N, tokens_N, data="d")
    assert len(first.tokens) == 3
    assert sorted(int(s) // 4 for s in first.scores) == [0, 1, 2]
    order = random.Random(0).sample(range(12), 12)
    shuffled = examples([texts[i] for i in order], [groups[i] for i in order])
    assert fit_novelty(shuffled, scores_N[order], tokens_N[order], data="d") == first
    assert len(fit_novelty(examples(["A b", "a  B", "c"]), *[np.ones(3)] * 2, data="").scores) == 2


def test_texts_without_a_novelty_are_left_out_and_counted() -> None:
    scores_N = np.array([1.0, np.nan, 3.0], np.float32)
    known = fit_novelty(examples(["a", "b", "c"]), scores_N, np.array([5, 6, 4]), data="")
    assert (known.tokens, known.scores, known.left_out) == ([4, 5], [3.0, 1.0], 1)
    with pytest.raises(DataError, match="not one of 1 calibration texts has a novelty"):
        fit_novelty(examples(["a"]), np.array([np.nan]), np.array([1]), data="")


# -- what a policy may ask of it -----------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.5, 0.2, 0.07, 0.01, 0.0099, 0.005, 0.001])
def test_a_bound_that_cannot_hold_is_refused_with_the_number_of_texts_it_takes(
    tmp_path: Path, bound: float
) -> None:
    def problem(n: int) -> str | None:
        write_json(tmp_path / NOVELTY, fitted(np.arange(n), np.arange(n)))
        return why_unreachable(Source(tmp_path), bound)

    refused = problem(1) if bound < 0.5 else "one takes 1 texts"
    assert refused is not None
    needed = int(refused.split(" takes ")[1].split()[0].replace(",", ""))
    assert problem(needed) is None
    if needed > 1:
        told = problem(needed - 1)
        assert told is not None
        assert f"one of {bound:g} takes {needed:,} texts" in told
        least = float(told.split("let a bound be ")[1].split()[0])
        assert bound < least
        bound = least  # what the message says is possible is
        assert problem(needed - 1) is None


def test_a_model_without_a_record_of_novelty_says_how_to_get_one(tmp_path: Path) -> None:
    assert "`guardkit calibrate` fits one" in str(why_unreachable(Source(tmp_path), 0.05))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "Invalid JSON"),
        ('{"tokens": [2, 1], "scores": [0, 0], "left_out": 0, "data": ""}', "must ascend"),
        ('{"tokens": [1], "scores": [0, 0], "left_out": 0, "data": ""}', "2 scores for 1 texts"),
        ('{"tokens": [], "scores": [], "left_out": 0, "data": ""}', "at least 1 item"),
        ('{"tokens": [1], "scores": [1e999], "left_out": 0, "data": ""}', "finite"),
        ('{"tokens": [-1], "scores": [0], "left_out": 0, "data": ""}', "greater than or equal"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / NOVELTY).write_text(content)
    with pytest.raises(ArtefactError, match=says):
        read_novelty(tmp_path / NOVELTY)
    assert says in str(why_unreachable(Source(tmp_path), 0.5))
