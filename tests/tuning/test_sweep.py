"""The arithmetic of a sweep: thresholds, recall, the choices of bounds, and the halves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.log_odds import logit
from guardkit.metrics import RecallAt
from guardkit.tuning.replay import NEVER, Stages
from guardkit.tuning.sweep import (
    MAX_CHOICES,
    Point,
    SweepInput,
    bound_choices,
    halves,
    loosest_threshold,
    shortest_probability,
)


@given(
    st.lists(st.tuples(st.sampled_from([-2.0, -1, 0, 1, 2, 3]), st.booleans()), min_size=2),
    st.sampled_from([0.0, 0.1, 0.25, 0.5]),
)
def test_the_loosest_threshold_is_the_lowest_that_keeps_to_the_rate(
    rows: list[tuple[float, bool]], rate: float
) -> None:
    score_N, positive_N = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    threshold = loosest_threshold(score_N, positive_N, rate, -5.0, 5.0)
    negative_N = score_N[~positive_N]
    candidates = [-5.0, *sorted(set(negative_N))]
    allowed = [t for t in candidates if (negative_N > t).sum() <= rate * len(negative_N) + 1e-9]
    assert threshold is not None
    assert (score_N > threshold).tolist() == (score_N > min(allowed)).tolist() or not len(
        negative_N
    )
    assert loosest_threshold(np.array([9.0, 9.0]), np.array([True, False]), 0.0, -5.0, 5.0) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([-1.0, 0, 1, 2, 3]), st.booleans()), min_size=2, max_size=20
    ),
    st.lists(st.integers(0, 3), min_size=20, max_size=20),
    st.sampled_from([0.0, 0.1, 0.34]),
)
def test_recall_under_weights_is_that_of_texts_written_so_often(
    rows: list[tuple[float, bool]], counts: list[int], rate: float
) -> None:
    score_N, positive_N = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    count_N = np.array(counts[: len(rows)])
    got = RecallAt(positive_N, score_N, rate)(count_N.astype(np.float64))
    many_N, label_N = np.repeat(score_N, count_N), np.repeat(positive_N, count_N)
    if not label_N.any() or label_N.all():
        assert math.isnan(got)
        return
    thresholds = [-9.0, *many_N]
    best = max(
        (many_N[label_N] > t).mean()
        for t in thresholds
        if (many_N[~label_N] > t).mean() <= rate + 1e-9
    )
    assert got == pytest.approx(best)


@given(st.floats(-15, 15), st.floats(1e-6, 3))
def test_a_short_probability_flags_the_same_texts(low: float, width: float) -> None:
    p = shortest_probability(low, low + width)
    assert low <= logit(p) < low + width
    assert width < 1 or len(repr(p)) < 12


def inputs(n_swept: int = 1) -> SweepInput:
    rng = np.random.default_rng(0)
    lo_SN = rng.normal(size=(n_swept + 1, 90))
    none_SN, asks_SM = np.zeros(lo_SN.shape, bool), np.eye(n_swept + 1, dtype=bool)
    ms_MN = np.ones((n_swept + 1, 90))
    stages = Stages(lo_SN, lo_SN, none_SN, none_SN, asks_SM, ms_MN, closed=True)
    bounds = (*[(0.1, 0.9)] * n_swept, NEVER)
    positive_N = np.arange(90) % 3 == 0
    names = [f"m{i}" for i in range(n_swept + 1)]
    groups = [str(i // 2) for i in range(90)]
    return SweepInput(names, stages, {}, bounds, range(n_swept), 0.5, positive_N, groups, 0.05)


@pytest.mark.parametrize("n_swept", [1, 2, 3, 4])
def test_choices_hold_the_file_s_bounds_and_leave_room_for_a_threshold(n_swept: int) -> None:
    tried = list(bound_choices(inputs(n_swept)))
    assert tried[0] == inputs(n_swept).bounds
    assert len(set(tried)) == len(tried) <= MAX_CHOICES + 1
    assert len(tried) > 50
    for bounds in tried:
        assert max(b for b, _ in bounds[:-1]) <= min(a for _, a in bounds[:-1])
    assert ((0.0, 1.0),) * n_swept in {bounds[:-1] for bounds in tried}  # the backup reads all


def test_halves_keep_groups_whole_and_classes_even() -> None:
    p = inputs()
    half_N = halves(p.positive_N, p.groups, 0)
    for group in set(p.groups):
        inside = [h for h, g in zip(half_N, p.groups, strict=True) if g == group]
        assert len(set(inside)) == 1
    assert abs(half_N[p.positive_N].sum() - 15) <= 2
    assert abs(half_N.sum() - 45) <= 2


def test_a_point_dominates_by_being_no_worse_anywhere_and_better_somewhere() -> None:
    def point(ms: float, recall: float, fpr: float) -> Point:
        return Point("", (), 0.5, recall, fpr, ms)

    assert point(1, 0.5, 0.1).dominates(point(2, 0.5, 0.1))
    assert point(1, 0.6, 0.1).dominates(point(1, 0.5, 0.1))
    assert not point(1, 0.5, 0.1).dominates(point(1, 0.5, 0.1))
    assert not point(1, 0.5, 0.2).dominates(point(2, 0.5, 0.1))
