"""Log-odds and probabilities are each other's inverse, at the ends too."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guardkit.log_odds import log_sigmoid_N, logit, logit_N, sigmoid_N


def test_a_probability_comes_back_from_its_log_odds() -> None:
    p_N = np.array([1e-12, 0.02, 0.5, 0.98, 1 - 1e-12])
    assert sigmoid_N(logit_N(p_N)) == pytest.approx(p_N, rel=1e-9)
    assert [logit(p) for p in p_N.tolist()] == pytest.approx(logit_N(p_N).tolist(), rel=1e-12)


def test_what_is_certain_has_infinite_log_odds() -> None:
    assert (logit(0.0), logit(0.5), logit(1.0)) == (-math.inf, 0.0, math.inf)


def test_no_log_odds_are_too_large() -> None:
    x_N = np.array([-1e6, -745.0, 0.0, 745.0, 1e6])
    assert sigmoid_N(x_N).tolist() == [0.0, np.exp(-745.0), 0.5, 1.0, 1.0]
    assert log_sigmoid_N(x_N).tolist()[0] == -1e6
