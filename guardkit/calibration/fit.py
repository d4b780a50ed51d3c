"""Fit calibration maps to held-out, labelled text, and choose among them by cross-fitting.

There are three kinds of map: platt (Platt 1999), the simplest; length, whose scale is a power of
the text's length; and isotonic (Zadrozny and Elkan 2002), which assumes only that the probability
rises with the logit.

Shape letters: N texts, C labels, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from guardkit.calibration.maps import (
    Calibration,
    CalibrationMap,
    Candidate,
    IsotonicSteps,
    LengthScale,
    Method,
    expected_calibration_error,
)
from guardkit.calibration.reliability_diagram import ReliabilityBin, reliability_bins
from guardkit.data.splits import group_folds, refuse_one_group
from guardkit.errors import DataError
from guardkit.log_odds import log_sigmoid_N
from guardkit.metrics import Measure, ProbabilityMetrics, group_index
from guardkit.types import FloatArray, IntArray

#: Range of the length's exponent; at 1 a sum over tokens becomes their mean.
EXPONENTS = (-1.0, 1.0)
_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ChosenCalibration:
    """A calibration and the log-odds_NC it was measured by; see ``Calibration``."""

    calibration: Calibration
    before_NC: FloatArray
    after_NC: FloatArray


def fit_calibration(
    logits_NC: FloatArray, labels_N: IntArray, labels: Sequence[str], *, data: str
) -> Calibration:
    """Fit Platt's map alone, and measure it on the texts it is fitted to.

    Raises DataError where a label has no example.
    """
    _refuse_missing(labels_N, labels)
    n, n_labels = logits_NC.shape
    z_NC = logits_NC.astype(np.float64)
    scale, bias_C, _ = _fit_platt(z_NC, labels_N)
    before_NC, after_NC = _log_softmax(z_NC), _log_softmax(scale * z_NC + bias_C)
    rows = np.arange(n)
    return Calibration(
        task="multiclass",
        labels=list(labels),
        scale=[scale] * n_labels,
        bias=bias_C.tolist(),
        prior=_shares(labels_N, n_labels),
        n=n,
        data=data,
        ece_before=expected_calibration_error(np.exp(before_NC), labels_N),
        ece_after=expected_calibration_error(np.exp(after_NC), labels_N),
        log_loss_before=float(-before_NC[rows, labels_N].mean()),
        log_loss_after=float(-after_NC[rows, labels_N].mean()),
    )


def choose_calibration(
    logits_NC: FloatArray,
    tokens_N: IntArray,
    labels_N: IntArray,
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    data: str,
    method: Method | Literal["auto"] = "auto",
    replaces: Calibration | None = None,
    seed: int = 0,
) -> ChosenCalibration:
    """Fit the kind of map that does best on texts it was not fitted to, or ``method``.

    Each kind is fitted to four folds of whole groups and judged by log-loss on the fifth, in
    turn. The simplest is taken whose loss is within one standard error of the best one's (the
    rule of Breiman et al. 1984, on paired differences): platt, then length, then isotonic.
    The one taken is then fitted to all texts. Its figures are those of the
    cross-fitted probabilities, and slightly optimistic, for it was chosen by them.

    length needs texts of different lengths, isotonic two labels. ``replaces`` is the calibration
    in use so far. Raises DataError where a label has no example, or all texts are one group.
    """
    _refuse_missing(labels_N, labels)
    refuse_one_group(groups)
    offered = _offered(tokens_N, labels)
    if method != "auto" and method not in offered:
        why = "texts of different lengths" if method == "length" else "a model of two labels"
        raise DataError(f"calibration method {method!r} needs {why}")
    fold_N = group_folds(labels_N, groups, seed=seed)
    log_odds = {m: _cross_fitted(m, logits_NC, tokens_N, labels_N, labels, fold_N) for m in offered}
    candidates = _compare(log_odds, labels_N, groups)
    chosen = next(m for m, c in candidates.items() if c.excess <= c.standard_error)
    if method != "auto":
        chosen = method
    fitted = _fit(chosen, logits_NC, tokens_N, labels_N, labels)
    plain = CalibrationMap(
        task="multiclass",
        labels=list(labels),
        scale=[1.0] * len(labels),
        bias=[0.0] * len(labels),
        n=0,
    )
    before_NC = (replaces or plain).log_odds_NC(logits_NC, tokens_N)
    after_NC = log_odds[chosen]
    ones = np.ones(len(labels_N))
    before, after = (calibration_metrics(labels_N, x_NC)(ones) for x_NC in (before_NC, after_NC))
    calibration = Calibration(
        **dict(fitted),
        prior=_shares(labels_N, len(labels)),
        data=data,
        replaces=replaces.data if replaces else None,
        ece_before=before["ece"],
        ece_after=after["ece"],
        brier_before=before["brier"],
        brier_after=after["brier"],
        log_loss_before=before["log_loss"],
        log_loss_after=after["log_loss"],
        candidates=candidates,
        reliability_before=_bins(labels_N, before_NC),
        reliability_after=_bins(labels_N, after_NC),
    )
    return ChosenCalibration(calibration, before_NC, after_NC)


def calibration_metrics(labels_N: IntArray, log_odds_NC: FloatArray) -> Measure:
    """Return the measure of ``ece``, ``brier`` and ``log_loss`` of calibrated log-odds."""
    metrics = ProbabilityMetrics(labels_N, np.exp(_log_p(log_odds_NC)))
    loss_N = log_losses(labels_N, log_odds_NC)

    def measure(weight_N: _Float64) -> Mapping[str, float]:
        found = metrics(weight_N)
        # that of ProbabilityMetrics has a ceiling, which uncalibrated logits may reach
        loss = float(weight_N @ loss_N / weight_N.sum())
        return {"ece": found["ece"], "brier": found["brier"], "log_loss": loss}

    return measure


def log_losses(labels_N: IntArray, log_odds_NC: FloatArray) -> _Float64:
    """Return each text's log-loss, in nats."""
    result: _Float64 = -_log_p(log_odds_NC)[np.arange(len(labels_N)), labels_N]
    return result


def _offered(tokens_N: IntArray, labels: Sequence[str]) -> list[Method]:
    possible = {
        "platt": True,
        "length": tokens_N.min() < tokens_N.max(),
        "isotonic": len(labels) == 2,
    }
    return [m for m in get_args(Method) if possible[m]]


def _cross_fitted(
    method: Method,
    logits_NC: FloatArray,
    tokens_N: IntArray,
    labels_N: IntArray,
    labels: Sequence[str],
    fold_N: IntArray,
) -> FloatArray:
    """Return log_odds_NC, each text's by a map fitted to the other folds."""
    log_odds_NC = np.empty_like(logits_NC)
    for fold in np.unique(fold_N):
        out_N = fold_N == fold
        fitted = _fit(method, logits_NC[~out_N], tokens_N[~out_N], labels_N[~out_N], labels)
        log_odds_NC[out_N] = fitted.log_odds_NC(logits_NC[out_N], tokens_N[out_N])
    return log_odds_NC


def _compare(
    log_odds: Mapping[Method, FloatArray], labels_N: IntArray, groups: Sequence[str]
) -> dict[Method, Candidate]:
    group_N = group_index(groups)
    n_groups = int(group_N.max()) + 1
    loss_N = {m: log_losses(labels_N, x_NC) for m, x_NC in log_odds.items()}
    best = min(loss_N, key=lambda m: float(loss_N[m].mean()))
    candidates = {}
    for m, loss in loss_N.items():
        excess_N = loss - loss_N[best]
        excess = float(excess_N.mean())
        sum_G = np.bincount(group_N, excess_N - excess)  # texts of a group are not independent
        error = np.sqrt(n_groups / (n_groups - 1) * (sum_G @ sum_G)) / len(labels_N)
        candidates[m] = Candidate(
            log_loss=float(loss.mean()), excess=excess, standard_error=float(error)
        )
    return candidates


def _fit(
    method: Method,
    logits_NC: FloatArray,
    tokens_N: IntArray,
    labels_N: IntArray,
    labels: Sequence[str],
) -> CalibrationMap:
    z_NC = logits_NC.astype(np.float64)
    length = None
    if method == "length":
        length = _fit_length(z_NC, tokens_N, labels_N)
        z_NC *= length.factor_N(tokens_N)[:, None]
    scale, bias_C, _ = _fit_platt(z_NC, labels_N)
    steps = None
    if method == "isotonic":
        lead_N = scale * (z_NC[:, 1] - z_NC[:, 0]) + bias_C[1]
        steps = _fit_steps(lead_N, labels_N == 1)
    return CalibrationMap(
        task="multiclass",
        labels=list(labels),
        method=method,
        scale=[scale] * len(labels),
        bias=bias_C.tolist(),
        length=length,
        isotonic=steps,
        n=len(labels_N),
    )


def _fit_platt(z_NC: _Float64, labels_N: IntArray) -> tuple[float, _Float64, float]:
    """Return scale, bias_C and the loss, by maximum likelihood on Platt's smoothed targets.

    Smoothing keeps the map finite on separable data. bias_C[0] is 0.
    """
    from scipy.optimize import minimize

    n, n_labels = z_NC.shape
    counts_C = np.bincount(labels_N, minlength=n_labels)
    # Platt's smoothed target, written for any number of labels: (n_c + 1) / (n_c + C)
    own_N = ((counts_C + 1) / (counts_C + n_labels))[labels_N]
    target_NC = np.repeat(((1 - own_N) / (n_labels - 1))[:, None], n_labels, axis=1)
    target_NC[np.arange(n), labels_N] = own_N
    unit = max(float(np.std(z_NC - z_NC.mean(1, keepdims=True))), 1e-6)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias_C = parameters[0], np.append(0.0, parameters[1:])
        log_p_NC = _log_softmax(scale * z_NC / unit + bias_C)
        residual_NC = (np.exp(log_p_NC) - target_NC) / n
        gradient = [(residual_NC * z_NC / unit).sum(), *residual_NC.sum(0)[1:]]
        return float(-(target_NC * log_p_NC).sum() / n), np.array(gradient)

    start = np.append(1.0, np.log((counts_C[1:] + 1) / (counts_C[0] + 1)))
    # a negative scale would reverse the order that the classifier gives
    bounds = [(1e-3, None)] + [(None, None)] * (n_labels - 1)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return float(best.x[0] / unit), np.append(0.0, best.x[1:]), float(best.fun)


def _fit_length(z_NC: _Float64, tokens_N: IntArray, labels_N: IntArray) -> LengthScale:
    """Return the exponent under which Platt's map fits best."""
    from scipy.optimize import minimize_scalar

    seen_N = np.maximum(tokens_N, 1)
    unit, shortest, longest = float(np.exp(np.log(seen_N).mean())), seen_N.min(), seen_N.max()

    def scaled(exponent: float) -> LengthScale:
        return LengthScale(
            exponent=exponent, unit_tokens=unit, shortest=int(shortest), longest=int(longest)
        )

    def loss(exponent: float) -> float:
        return _fit_platt(z_NC * scaled(exponent).factor_N(tokens_N)[:, None], labels_N)[2]

    best = minimize_scalar(loss, bounds=EXPONENTS, method="bounded", options={"xatol": 1e-3})
    return scaled(float(best.x))


def _fit_steps(lead_N: _Float64, positive_N: npt.NDArray[np.bool_]) -> IsotonicSteps:
    """Return the least-squares rising fit, its values within [1/(n+2), (n+1)/(n+2)]."""
    from scipy.optimize import isotonic_regression

    x_B, of_N = np.unique(lead_N, return_inverse=True)
    count_B = np.bincount(of_N)
    fit = isotonic_regression(np.bincount(of_N, positive_N) / count_B, weights=count_B)
    least = 1 / (len(lead_N) + 2)
    # the first and the last point of every level stretch stand for it
    ends = np.unique(np.concatenate([fit.blocks[:-1], fit.blocks[1:] - 1]))
    p = np.clip(fit.x[ends], least, 1 - least)
    return IsotonicSteps(log_odds=x_B[ends].tolist(), probability=p.tolist())


def _bins(labels_N: IntArray, log_odds_NC: FloatArray) -> list[ReliabilityBin]:
    p_NC = np.exp(_log_p(log_odds_NC))
    if p_NC.shape[1] == 2:
        return reliability_bins(p_NC[:, 1], labels_N == 1)
    return reliability_bins(p_NC.max(1), p_NC.argmax(1) == labels_N)


def _refuse_missing(labels_N: IntArray, labels: Sequence[str]) -> None:
    counts_C = np.bincount(labels_N, minlength=len(labels))
    if missing := [labels[int(c)] for c in np.flatnonzero(counts_C == 0)]:
        raise DataError(
            f"calibration data has no example of {', '.join(missing)}; it needs every label"
        )


def _shares(labels_N: IntArray, n_labels: int) -> list[float]:
    shares: list[float] = (np.bincount(labels_N, minlength=n_labels) / len(labels_N)).tolist()
    return shares


def _log_p(log_odds_NC: FloatArray) -> _Float64:
    return log_sigmoid_N(log_odds_NC.astype(np.float64))


def _log_softmax(z_NC: _Float64) -> _Float64:
    result: _Float64 = z_NC - np.logaddexp.reduce(z_NC, axis=1, keepdims=True)
    return result
