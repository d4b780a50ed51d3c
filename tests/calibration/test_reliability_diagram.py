"""Bins of probabilities, and the picture of them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.calibration.reliability_diagram import (
    ReliabilityBin,
    reliability_bins,
    reliability_diagram,
)

SVG = "{http://www.w3.org/2000/svg}"


def test_bins_hold_equal_counts_their_mean_and_their_share() -> None:
    p_N = np.array([0.9, 0.1, 0.2, 0.8, 0.4, 0.3])
    true_N = np.array([True, False, True, True, False, False])
    got = reliability_bins(p_N, true_N, bins=3)
    expected = [(2, 0.15, 0.5), (2, 0.35, 0.0), (2, 0.85, 1.0)]
    assert [b.n for b in got] == [n for n, _, _ in expected]
    assert [b.mean for b in got] == pytest.approx([mean for _, mean, _ in expected])
    assert [b.share for b in got] == [share for _, _, share in expected]


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.31, 0.5, 0.9]), st.booleans()), min_size=1))
def test_every_text_is_in_one_bin_and_equal_ones_in_the_same(
    texts: list[tuple[float, bool]],
) -> None:
    p_N, true_N = np.array([p for p, _ in texts]), np.array([t for _, t in texts])
    bins = reliability_bins(p_N, true_N, bins=4)
    assert sum(b.n for b in bins) == len(texts)
    assert sum(b.n * b.share for b in bins) == pytest.approx(true_N.sum())
    assert sum(b.n * b.mean for b in bins) == pytest.approx(p_N.sum())
    assert [b.mean for b in bins] == sorted({b.mean for b in bins})
    backwards = reliability_bins(p_N[::-1], true_N[::-1], bins=4)
    assert [(b.n, b.share) for b in backwards] == [(b.n, b.share) for b in bins]


def test_the_picture_shows_every_bin_where_it_belongs() -> None:
    before = [ReliabilityBin(n=10, mean=0.1, share=0.4), ReliabilityBin(n=10, mean=0.9, share=0.6)]
    after = [ReliabilityBin(n=20, mean=0.5, share=0.5)]
    root = ET.fromstring(reliability_diagram(before, after, of="<spam> & co"))
    circles = root.findall(f"{SVG}circle")
    x, y = ([float(c.get(axis, "nan")) for c in circles] for axis in ("cx", "cy"))
    assert len(circles) == 3
    assert x[0] < x[1] < x[2]  # left to right, and the second panel beside the first
    assert y[0] > y[2] > y[1]  # up is more
    frames = [f for f in root.findall(f"{SVG}rect") if f.get("fill") == "none"]
    middle = float(frames[1].get("x", "nan")) + float(frames[1].get("width", "nan")) / 2
    assert x[2] == pytest.approx(middle, abs=0.1)
    words = {t.text for t in root.findall(f"{SVG}text")}
    assert {"before: 20 texts", "after: 20 texts", "probability given to <spam> & co"} <= words
