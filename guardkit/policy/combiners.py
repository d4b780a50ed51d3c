"""Combine the log-odds of several parts into one: the arithmetic of a policy's ``combine`` nodes.

Every function maps x_PN to x_N. NaN is a part that dropped out. An interval is combined by
combining its lower ends and its upper ends. That is exact as long as a part that rises never lowers
the result, which is why weights must be above 0.

Shape letters: N texts, P parts of a combine, M those of them that answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from guardkit.errors import ClassifierError
from guardkit.types import BoolArray, Combiner, FloatArray

_Float64 = npt.NDArray[np.float64]


def failed(lo: _Float64, hi: _Float64) -> BoolArray:
    """Return which intervals are (-inf, +inf): their parts failed."""
    return np.isneginf(lo) & np.isposinf(hi)


def weighted_mean(x_PN: _Float64, weights: Sequence[float]) -> _Float64:
    """Return the weighted mean of the parts that are not NaN."""
    total_N, weight_N = np.zeros(x_PN.shape[1]), np.zeros(x_PN.shape[1])
    for x_N, weight in zip(x_PN, weights, strict=True):  # in order: rounding is the same for any N
        total_N += np.where(np.isnan(x_N), 0.0, weight * x_N)
        weight_N += np.where(np.isnan(x_N), 0.0, weight)
    with np.errstate(invalid="ignore"):  # no part has an opinion: neither has the mean
        return total_N / weight_N


def evidence_sum(
    x_PN: _Float64, prior_P: _Float64, weights: Sequence[float], bias: float
) -> _Float64:
    """Return prior + bias + sum_p weight_p * (x_p - prior_p) over the parts that are not NaN.

    ``prior`` is the mean of their priors. x_p - prior_p is a log likelihood ratio, which does not
    depend on the prevalence: another prevalence moves the result just as it moves every part. With
    unit weights and no bias the parts count as independent experts.
    """
    ratio_N, prior_N, count_N = (np.zeros(x_PN.shape[1]) for _ in range(3))
    for x_N, prior, weight in zip(x_PN, prior_P, weights, strict=True):
        ratio_N += np.where(np.isnan(x_N), 0.0, weight * (x_N - prior))
        prior_N += np.where(np.isnan(x_N), 0.0, prior)
        count_N += ~np.isnan(x_N)
    with np.errstate(invalid="ignore"):  # no part has an opinion: neither has the sum
        return ratio_N + prior_N / count_N + bias


def by_plugin(
    combiner: Combiner, lo_PN: _Float64, hi_PN: _Float64, prior_P: _Float64
) -> tuple[_Float64, _Float64, Mapping[int, str]]:
    """Return lo_N, hi_N and reasons: ``combiner`` on the texts that all parts answered; the others
    are (-inf, +inf), or NaN where no part has an opinion.

    Parts that dropped out (NaN) are left out; texts without the same parts share one call.
    """
    n = lo_PN.shape[1]
    lo_N, hi_N = np.full(n, -np.inf), np.full(n, np.inf)
    reasons: dict[int, str] = {}
    kept_PN = ~np.isnan(lo_PN)
    silent_N = ~kept_PN.any(axis=0)
    lo_N[silent_N] = hi_N[silent_N] = np.nan
    ready_N = (~kept_PN | (lo_PN == hi_PN)).all(axis=0) & ~silent_N
    for kept_P in np.unique(kept_PN[:, ready_N], axis=1).T:
        texts = (ready_N & (kept_PN == kept_P[:, None]).all(axis=0)).nonzero()[0]
        x_MN = lo_PN[kept_P][:, texts].astype(np.float32)
        result_N, failures = _call(combiner, x_MN, prior_P[kept_P].astype(np.float32))
        answered = ~np.isnan(result_N)
        lo_N[texts[answered]] = hi_N[texts[answered]] = result_N[answered]
        reasons |= {int(texts[i]): why for i, why in failures.items()}
    return lo_N, hi_N, reasons


def _call(
    combiner: Combiner, x_MN: FloatArray, prior_M: FloatArray
) -> tuple[_Float64, dict[int, str]]:
    """Return the combiner's log-odds, NaN where it failed, and why; the batch is halved until the
    text that makes it fail is alone."""
    n = x_MN.shape[1]
    try:
        result_N = np.asarray(combiner(x_MN.copy(), prior_M.copy()), np.float64)
        if result_N.shape != (n,):
            raise ClassifierError(f"returned shape {result_N.shape}, expected {(n,)}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic too; recorded per text below; never swallowed
        if n == 1:
            return np.full(1, np.nan), {0: f"{type(error).__name__}: {error}"}
        first_N, reasons = _call(combiner, x_MN[:, : n // 2], prior_M)
        second_N, more = _call(combiner, x_MN[:, n // 2 :], prior_M)
        reasons |= {n // 2 + i: why for i, why in more.items()}
        return np.concatenate([first_N, second_N]), reasons
    bad_N = ~np.isfinite(result_N)
    reason = "returned a value that is not finite"
    return np.where(bad_N, np.nan, result_N), dict.fromkeys(bad_N.nonzero()[0].tolist(), reason)
