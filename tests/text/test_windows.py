"""Windows of a long text, and the pooling of their scores."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardkit.text.windows import pool_windows, windows


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int]:
    length = draw(st.integers(1, 40))
    return draw(st.integers(0, 300)), length, draw(st.integers(0, length - 1))


@given(cuts())
def test_windows_cover_every_token_in_order(cut: tuple[int, int, int]) -> None:
    n, length, overlap = cut
    spans = windows(n, length, overlap)
    assert sorted({t for start, end in spans for t in range(start, end)}) == list(range(n))
    assert spans == sorted(set(spans))
    assert spans[0][0] == 0
    assert spans[-1][1] == n


@given(cuts())
def test_neighbouring_windows_share_the_overlap(cut: tuple[int, int, int]) -> None:
    n, length, overlap = cut
    spans = windows(n, length, overlap)
    for (_, end), (start, _) in pairwise(spans):
        assert end - start >= overlap


@given(cuts())
def test_windows_are_full_where_the_text_is_long_enough(cut: tuple[int, int, int]) -> None:
    n, length, overlap = cut
    assert {end - start for start, end in windows(n, length, overlap)} == {min(n, length)}


@given(cuts(), st.data())
def test_a_payload_no_longer_than_the_overlap_stands_whole_in_a_window(
    cut: tuple[int, int, int], data: st.DataObject
) -> None:
    n, length, overlap = cut
    size = data.draw(st.integers(0, min(overlap, n)))
    start = data.draw(st.integers(0, n - size))
    assert any(a <= start and start + size <= b for a, b in windows(n, length, overlap))


def test_no_more_windows_are_made_than_are_needed() -> None:
    assert windows(10, 4, 1) == [(0, 4), (3, 7), (6, 10)]
    assert windows(11, 4, 1) == [(0, 4), (3, 7), (6, 10), (7, 11)]
    assert windows(0, 4, 1) == [(0, 0)]
    assert windows(4, 4, 1) == [(0, 4)]


@pytest.mark.parametrize(("length", "overlap"), [(4, 4), (4, 5), (4, -1), (0, 0)])
def test_an_overlap_that_makes_no_progress_is_refused(length: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap must be in"):
        windows(10, length, overlap)


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(2, 4), st.data())
def test_pooling_agrees_with_brute_force(
    counts: list[int], n_labels: int, data: st.DataObject
) -> None:
    owners = data.draw(st.permutations([t for t, n in enumerate(counts) for _ in range(n)]))
    seed = data.draw(st.integers(0, 2**32 - 1))
    neutral = data.draw(st.integers(0, n_labels - 1))
    logits_WC = np.random.default_rng(seed).normal(size=(len(owners), n_labels)).astype(np.float32)
    text_W = np.array(owners, np.int64)

    mean_NC = pool_windows(logits_WC, text_W, len(counts), "mean", None)
    max_NC = pool_windows(logits_WC, text_W, len(counts), "max", neutral)
    assert mean_NC.dtype == max_NC.dtype == np.float32
    for text in range(len(counts)):
        own = [logits_WC[w] for w, owner in enumerate(owners) if owner == text]
        for label in range(n_labels):
            mean = sum(float(logits[label]) for logits in own) / len(own)
            lead = max(float(logits[label] - logits[neutral]) for logits in own)
            assert mean_NC[text, label] == pytest.approx(mean, abs=1e-6)
            assert max_NC[text, label] == pytest.approx(lead, abs=1e-6)


def test_one_window_pools_to_the_same_posterior_whatever_the_way() -> None:
    logits_WC = np.array([[0.5, 2.0, -1.0]], np.float32)
    for how, neutral in (("mean", None), ("max", 1)):
        pooled = pool_windows(logits_WC, np.zeros(1, np.int64), 1, how, neutral)  # type: ignore[arg-type]
        p, q = np.exp(pooled[0]), np.exp(logits_WC[0])
        assert p / p.sum() == pytest.approx(q / q.sum(), abs=1e-6)


def test_a_window_that_could_not_be_scored_is_not_hidden_by_its_neighbours() -> None:
    logits_WC = np.array([[0.0, 9.0], [np.nan, np.nan]], np.float32)
    for how in ("mean", "max"):
        pooled = pool_windows(logits_WC, np.zeros(2, np.int64), 1, how, 0)  # type: ignore[arg-type]
        assert np.isnan(pooled).all()


def test_a_text_without_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="a text without a window"):
        pool_windows(np.zeros((1, 2), np.float32), np.array([1]), 2, "mean", None)


def test_max_pooling_without_a_neutral_label_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a neutral label"):
        pool_windows(np.zeros((1, 2), np.float32), np.array([0]), 1, "max", None)


def test_no_texts_pool_to_no_rows() -> None:
    pooled = pool_windows(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 0, "mean", None)
    assert pooled.shape == (0, 3)
