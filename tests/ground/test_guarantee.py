"""The rule behind a guaranteed false-positive rate, against closed forms and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control import BinaryClassificationController
from scipy.stats import beta, binom, norm

from guardkit.errors import DataError
from guardkit.guarantee import (
    REPEATABLE,
    allowed_false_positives,
    choose_threshold,
    least_sample_size,
    upper_bound,
)

rates = st.floats(0.001, 0.6)
sizes = st.integers(1, 400)
confidences = st.floats(0.3, 0.999)


@given(k=st.integers(0, 400), n=sizes, confidence=confidences)
def test_the_upper_bound_is_the_rate_at_which_so_few_would_be_seen_too_rarely(
    k: int, n: int, confidence: float
) -> None:
    k = min(k, n)
    bound = upper_bound(k, n, confidence)
    if k == n:
        assert bound == 1
    else:
        assert binom.cdf(k, n, bound) == pytest.approx(1 - confidence, abs=1e-9)
        assert bound == pytest.approx(beta(k + 1, n - k).ppf(confidence))


@given(n=st.integers(0, 400), max_fpr=rates, confidence=confidences)
def test_the_false_positives_allowed_are_those_whose_bound_keeps_the_rate(
    n: int, max_fpr: float, confidence: float
) -> None:
    k = allowed_false_positives(n, max_fpr, confidence)
    rounding = 1e-9  # a bound may be the rate itself
    assert k == -1 or upper_bound(k, n, confidence) <= max_fpr + rounding
    assert k + 1 >= n or upper_bound(k + 1, n, confidence) > max_fpr - rounding
    assert (k >= 0) == (n >= least_sample_size(max_fpr, confidence))


@pytest.mark.parametrize(
    ("max_fpr", "confidence", "n"),
    [
        (0.01, 0.95, 299),
        (0.001, 0.95, 2995),
        (0.05, 0.9, 45),
        (0.5, 0.75, 2),
        (1e-6, 0.5, 693147),
    ],
)
def test_the_least_sample_size_is_that_of_the_closed_form(
    max_fpr: float, confidence: float, n: int
) -> None:
    assert least_sample_size(max_fpr, confidence) == n
    assert (1 - max_fpr) ** n <= 1 - confidence + 1e-12 < (1 - max_fpr) ** (n - 1)


scores = st.lists(
    st.one_of(st.integers(-3, 3).map(float), st.floats(-9, 9), st.just(-math.inf)),
    min_size=60,
    max_size=90,
)


@given(scores)
def test_the_threshold_is_the_loosest_that_flags_no_more_than_allowed(given_: list[float]) -> None:
    score_N = np.array(given_)
    choice = choose_threshold(score_N, 0.1, 0.9)
    assert (score_N > choice.log_odds).sum() <= choice.allowed
    assert choice.bound == upper_bound(choice.allowed, len(score_N), 0.9) <= 0.1
    # anything looser than the score it stands on flags too many
    below = choice.log_odds - REPEATABLE - 1e-9
    if choice.log_odds > -math.inf:
        assert (score_N > below).sum() > choice.allowed


@pytest.mark.parametrize(("n", "max_fpr"), [(300, 0.02), (700, 0.02), (500, 0.1)])
def test_the_threshold_flags_what_the_loosest_one_flags_that_mapie_finds(
    n: int, max_fpr: float
) -> None:
    """MAPIE tests thresholds one after another, stricter ones first, until one is rejected."""
    p_N = np.round(np.random.default_rng(n).random(n), 2)  # with ties
    controller = BinaryClassificationController(
        predict_function=lambda p_N: np.stack([1 - p_N, p_N], axis=1),
        risk="fpr",
        target_level=max_fpr,
        confidence_level=0.95,
        list_predict_params=np.linspace(1.005, 0.005, 101),  # between the scores
        fwer_method="fixed_sequence",
    ).calibrate(p_N, np.zeros(n, int))
    choice = choose_threshold(p_N, max_fpr, 0.95)
    flagged = (p_N > choice.log_odds).sum()
    assert flagged == (p_N >= min(controller.valid_predict_params)).sum()
    assert 0 < flagged <= choice.allowed


def test_too_few_texts_are_refused_with_the_number_that_is_needed() -> None:
    with pytest.raises(DataError, match=r"takes 299 benign texts at least .*; there are 298"):
        choose_threshold(np.zeros(298), 0.01, 0.95)
    assert choose_threshold(np.zeros(299), 0.01, 0.95).allowed == 0


def test_texts_flagged_at_any_threshold_count_and_may_be_too_many() -> None:
    score_N = np.arange(600.0)
    allowed = allowed_false_positives(600, 0.01, 0.95)
    score_N[:allowed] = math.inf
    choice = choose_threshold(score_N, 0.01, 0.95)
    assert choice.log_odds == 599 + REPEATABLE
    score_N[allowed] = math.inf
    with pytest.raises(DataError, match=f"{allowed + 1} of 600 benign texts are flagged at any"):
        choose_threshold(score_N, 0.01, 0.95)


# Laws of scores: how to draw n, and the true rate F(t) = P(S > t).
LAWS: dict[str, tuple[Callable[[np.random.Generator, int], Any], Callable[[float], float]]] = {
    "normal": (lambda rng, n: rng.normal(size=n), lambda t: float(norm.sf(t))),
    "geometric": (
        lambda rng, n: rng.geometric(0.3, n).astype(float),
        lambda t: 0.7 ** max(math.floor(t), 0),
    ),
    "two values": (
        lambda rng, n: (rng.random(n) < 0.06).astype(float),
        lambda t: 0.06 if 0 <= t < 1 else float(t < 0),
    ),
    "some always flagged": (
        lambda rng, n: np.where(rng.random(n) < 0.02, np.inf, rng.normal(size=n)),
        lambda t: 0.02 + 0.98 * float(norm.sf(t)),
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_the_promise_is_broken_no_more_often_than_it_says(law: str) -> None:
    draw, rate = LAWS[law]
    rng = np.random.default_rng(0)
    runs, broken = 2000, 0
    for _ in range(runs):
        try:
            choice = choose_threshold(draw(rng, 120), 0.05, 0.9)
        except DataError:
            continue  # refused: nothing is promised
        broken += rate(choice.log_odds) > 0.05
    assert broken <= 0.1 * runs + 3 * math.sqrt(runs * 0.1 * 0.9)
    if law == "normal":  # and where scores do not tie, as often as can be: the rule is not slack
        exact = binom.cdf(allowed_false_positives(120, 0.05, 0.9), 120, 0.05)
        assert abs(broken - exact * runs) <= 3 * math.sqrt(runs * exact * (1 - exact)) + 1
