"""Logits to calibrated log-odds: one map per artefact, fitted on data not trained on.

Fitted after windows are pooled, and stored with the class prior of the data it was fitted
on, so that a policy can shift it to the prevalence it expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guardkit.errors import ArtefactError, DataError
from guardkit.types import FloatArray, IntArray, Task


class Calibration(BaseModel):
    """``calibration.json``. multiclass: log p = log_softmax(scale_C * logits + bias_C) with
    one scale for all labels (temperature and class bias; for two labels this is Platt 1999);
    multilabel: log-odds of label c = scale_c * logit_c + bias_c."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: Task
    labels: list[str]
    method: Literal["platt"] = "platt"
    scale: list[float]
    bias: list[float]
    prior: list[float] = Field(description="each label's share in the calibration data")
    n: int = Field(description="texts it was fitted on")
    data: str = Field(description="SHA-256 of those texts and labels")
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float

    def log_odds_NC(self, logits_NC: FloatArray) -> FloatArray:
        """Return each label's calibrated log-odds against all the others."""
        z_NC = logits_NC.astype(np.float64) * self.scale + self.bias
        if self.task == "multilabel":
            return z_NC.astype(np.float32)
        columns = [_log_odds_of(z_NC, [c]) for c in range(z_NC.shape[1])]
        return np.stack(columns, axis=1).astype(np.float32)

    def probabilities_NC(self, logits_NC: FloatArray) -> FloatArray:
        """Return each label's calibrated probability (NaN rows stay NaN)."""
        with np.errstate(invalid="ignore"):  # numpy warns of NaN, here a text that failed
            log_odds_NC = self.log_odds_NC(logits_NC).astype(np.float64)
            return np.exp(-np.logaddexp(0.0, -log_odds_NC)).astype(np.float32)

    def log_odds(
        self, logits_NC: FloatArray, positive: Sequence[int], prevalence: float | None = None
    ) -> FloatArray:
        """Return log_odds_N that the positive labels hold (NaN rows stay NaN).

        multiclass: of the sum of their probabilities; multilabel: the largest. ``prevalence``
        moves the prior from the calibration data's to the one expected (Bayes' rule with the
        likelihood ratio unchanged: Saerens 2002).
        """
        z_NC = logits_NC.astype(np.float64) * self.scale + self.bias
        if self.task == "multilabel":
            shift_C = np.array([self._shift([c], prevalence) for c in positive])
            largest_N: np.ndarray = (z_NC[:, list(positive)] + shift_C).max(axis=1)
            return largest_N.astype(np.float32)
        log_odds_N = _log_odds_of(z_NC, positive) + self._shift(positive, prevalence)
        return log_odds_N.astype(np.float32)

    def prior_log_odds(self, positive: Sequence[int], prevalence: float | None = None) -> float:
        """Return the log-odds of the positive labels before any text is read."""
        if prevalence is not None:
            return _logit(prevalence)
        shares = [self.prior[c] for c in positive]
        return _logit(max(shares) if self.task == "multilabel" else sum(shares))

    def _shift(self, positive: Sequence[int], prevalence: float | None) -> float:
        if prevalence is None:
            return 0.0
        return _logit(prevalence) - self.prior_log_odds(positive)


def read_calibration(path: Path) -> Calibration:
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtefactError(f"{path}: not a calibration: {error}") from error


def fit_calibration(
    logits_NC: FloatArray, labels_N: IntArray, labels: Sequence[str], *, data: str
) -> Calibration:
    """Fit scale and bias by maximum likelihood on held-out, labelled, single-label texts.

    Targets are smoothed as Platt 1999 does, so that separable data gives a finite map.
    Raises DataError where a label has no example.
    """
    from scipy.optimize import minimize

    n, n_labels = logits_NC.shape
    counts_C = np.bincount(labels_N, minlength=n_labels)
    if missing := [labels[int(c)] for c in np.flatnonzero(counts_C == 0)]:
        raise DataError(
            f"calibration data has no example of {', '.join(missing)}; it needs every label"
        )
    # Platt's smoothed target, written for any number of labels: (n_c + 1) / (n_c + C)
    own_N = ((counts_C + 1) / (counts_C + n_labels))[labels_N]
    target_NC = np.repeat(((1 - own_N) / (n_labels - 1))[:, None], n_labels, axis=1)
    target_NC[np.arange(n), labels_N] = own_N
    z_NC = logits_NC.astype(np.float64)
    unit = max(float(np.std(z_NC - z_NC.mean(1, keepdims=True))), 1e-6)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias_C = parameters[0], np.append(0.0, parameters[1:])
        log_p_NC = _log_softmax(scale * z_NC / unit + bias_C)
        residual_NC = (np.exp(log_p_NC) - target_NC) / n
        gradient = [(residual_NC * z_NC / unit).sum(), *residual_NC.sum(0)[1:]]
        return float(-(target_NC * log_p_NC).sum() / n), np.array(gradient)

    start = np.append(1.0, np.log((counts_C[1:] + 1) / (counts_C[0] + 1)))
    # a negative scale would turn the classifier's own order round
    bounds = [(1e-3, None)] + [(None, None)] * (n_labels - 1)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    scale, bias_C = float(best[0] / unit), np.append(0.0, best[1:])
    before_NC, after_NC = _log_softmax(z_NC), _log_softmax(scale * z_NC + bias_C)
    rows = np.arange(n)
    return Calibration(
        task="multiclass",
        labels=list(labels),
        scale=[scale] * n_labels,
        bias=[float(b) for b in bias_C],
        prior=[float(p) for p in counts_C / n],
        n=n,
        data=data,
        ece_before=expected_calibration_error(np.exp(before_NC), labels_N),
        ece_after=expected_calibration_error(np.exp(after_NC), labels_N),
        log_loss_before=float(-before_NC[rows, labels_N].mean()),
        log_loss_after=float(-after_NC[rows, labels_N].mean()),
    )


def expected_calibration_error(p_NC: np.ndarray, labels_N: IntArray, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal-count bins (Nguyen and
    O'Connor 2015)."""
    confidence_N = p_NC.max(1)
    correct_N = p_NC.argmax(1) == labels_N
    order = np.argsort(confidence_N, kind="stable")
    gaps = [
        len(part) * abs(float(confidence_N[part].mean() - correct_N[part].mean()))
        for part in np.array_split(order, min(bins, len(order)))
    ]
    return sum(gaps) / len(order)


def _log_odds_of(z_NC: np.ndarray, positive: Sequence[int]) -> np.ndarray:
    inside = np.zeros(z_NC.shape[1], bool)
    inside[list(positive)] = True
    with np.errstate(invalid="ignore"):  # a text that could not be scored is NaN, and stays so
        difference: np.ndarray = np.logaddexp.reduce(z_NC[:, inside], axis=1) - np.logaddexp.reduce(
            z_NC[:, ~inside], axis=1
        )
    return difference


def _log_softmax(z_NC: np.ndarray) -> np.ndarray:
    result: np.ndarray = z_NC - np.logaddexp.reduce(z_NC, axis=1, keepdims=True)
    return result


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))
