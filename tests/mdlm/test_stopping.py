"""Early stopping: when a class is settled, what it costs, and how often it is another."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from guardkit_mdlm.stopping import StoppingRule, flips, pooled_spread, stop_early

RULE = StoppingRule(alpha=0.05, cap=8, pooled_spread=1.0)


def two_classes(leads_NP: np.ndarray) -> np.ndarray:
    """Draws whose second class leads the first by ``leads_NP``."""
    return np.stack([np.zeros_like(leads_NP), leads_NP], axis=2)


def test_a_class_is_settled_where_its_lead_exceeds_its_noise() -> None:
    z = NormalDist().inv_cdf(1 - 0.05 / 16)
    assert RULE.z == z
    close = np.array([[z * 0.999], [z * 1.001], [-z * 1.001]])
    np.testing.assert_array_equal(RULE.settled(two_classes(close)), [False, True, True])
    three = np.repeat(close, 3, axis=1) / 3**0.5
    np.testing.assert_array_equal(RULE.settled(two_classes(three)), [False, True, True])


def test_from_four_draws_on_a_texts_own_spread_counts() -> None:
    even = np.array([[1.0, 1.1, 0.9, 1.0]])
    uneven = np.array([[4.0, -2.0, 4.0, -2.0]])
    pooled = RULE.z / 4**0.5
    assert pooled > 1.0  # with the pooled spread neither would be settled
    assert RULE.settled(two_classes(even)).tolist() == [True]
    assert RULE.settled(two_classes(uneven)).tolist() == [False]


def test_every_rival_must_be_left_behind() -> None:
    draws = np.array([[[0.0, 9.0, 8.9]], [[0.0, 9.0, 1.0]]])
    assert RULE.settled(draws).tolist() == [False, True]


def test_no_text_stops_before_the_least_number_of_draws_or_after_the_cap() -> None:
    rng = np.random.default_rng(0)
    draws = two_classes(rng.normal(size=(400, 1)) * 5 + rng.normal(size=(400, 8)))
    for least in (1, 3, 6):
        rule = StoppingRule(0.05, 8, 1.0, least)
        stopped = stop_early(rule, 400, lambda rows, p: draws[rows, p])
        assert stopped.draws_N.min() == least
        assert stopped.draws_N.max() == 8
        for text, p in enumerate(stopped.draws_N):
            np.testing.assert_allclose(stopped.estimate_NC[text], draws[text, :p].mean(0))


def test_the_network_runs_for_open_texts_alone() -> None:
    rng = np.random.default_rng(1)
    draws = two_classes(rng.normal(size=(100, 1)) * 3 + rng.normal(size=(100, 8)))
    asked: list[np.ndarray] = []

    def draw(rows: np.ndarray, p: int) -> np.ndarray:
        assert len(asked) == p
        asked.append(rows)
        return draws[rows, p]

    stopped = stop_early(RULE, 100, draw)
    assert sum(len(rows) for rows in asked) == stopped.draws_N.sum() < 800
    for p, rows in enumerate(asked):
        np.testing.assert_array_equal(rows, np.flatnonzero(stopped.draws_N > p))


def test_texts_far_from_the_boundary_cost_one_draw() -> None:
    draws = two_classes(np.full((5, 8), 100.0))
    stopped = stop_early(RULE, 5, lambda rows, p: draws[rows, p])
    assert stopped.draws_N.tolist() == [1] * 5


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_early_decisions_differ_from_all_masks_no_more_often_than_promised(noise: float) -> None:
    """Normal leads: the share of texts that stop early on another class than their true mean's
    stays below alpha; against the capped estimate the flips are measured."""
    rng = np.random.default_rng(2)
    true_N = rng.normal(size=20_000)
    draws = two_classes(true_N[:, None] + noise * rng.normal(size=(20_000, 8)))
    rule = StoppingRule(0.05, 8, noise)
    stopped = stop_early(rule, 20_000, lambda rows, p: draws[rows, p])
    early, wrong = flips(stopped, two_classes(true_N[:, None])[:, 0], cap=8)
    assert early == np.mean(stopped.draws_N < 8) > 0.1
    assert 0 < wrong < rule.alpha
    _, flipped = flips(stopped, draws.mean(1), cap=8)
    decided = stopped.estimate_NC.argmax(1) != draws.mean(1).argmax(1)
    assert flipped == decided.mean()  # who reaches the cap has the capped estimate
    assert flipped < rule.alpha


def test_the_pooled_spread_is_the_leads_standard_deviation() -> None:
    rng = np.random.default_rng(3)
    draws = two_classes(rng.normal(size=(2000, 1)) + 0.7 * rng.normal(size=(2000, 5)))
    assert pooled_spread(draws) == pytest.approx(0.7, rel=0.03)
