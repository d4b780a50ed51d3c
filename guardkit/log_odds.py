"""Probabilities and log-odds, each from the other.

Shape letters: N texts.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_Float64 = npt.NDArray[np.float64]


def logit(p: float) -> float:
    """Return the log-odds of a probability: -inf of 0, +inf of 1."""
    if p in (0.0, 1.0):
        return math.inf if p else -math.inf
    return math.log(p) - math.log1p(-p)


def logit_N(p_N: npt.ArrayLike) -> _Float64:
    """Return the log-odds of probabilities between 0 and 1.

    ``logit`` may give another last digit: numpy and the C library round logarithms differently.
    """
    log_odds_N: _Float64 = np.log(p_N) - np.log1p(np.negative(p_N))
    return log_odds_N


def sigmoid_N(log_odds_N: npt.ArrayLike) -> _Float64:
    """Return the probabilities of log-odds; no size of them overflows."""
    p_N: _Float64 = np.exp(log_sigmoid_N(log_odds_N))
    return p_N


def log_sigmoid_N(log_odds_N: npt.ArrayLike) -> _Float64:
    """Return the logarithms of the probabilities of log-odds."""
    log_p_N: _Float64 = -np.logaddexp(0.0, np.negative(log_odds_N))
    return log_p_N
