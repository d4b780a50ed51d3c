"""Logits to calibrated log-odds: one map per scorer of an artefact, fitted on data not trained on.

``guardkit.calibration.fit`` fits it, after windows are pooled. It is stored with the class prior of
the data it was fitted on, so that a policy can shift it to the prevalence it expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guardkit.calibration.reliability_diagram import ReliabilityBin
from guardkit.errors import ArtefactError, first_mistake
from guardkit.log_odds import logit_N, sigmoid_N
from guardkit.types import FloatArray, IntArray, Task

#: From the simplest on.
Method = Literal["platt", "length", "isotonic"]


class LengthScale(BaseModel):
    """Logits of a text of L tokens are divided by (L / unit_tokens)^exponent.

    A sum over tokens is too sure, the more so the more tokens there are, because neighbours carry
    much the same evidence. An exponent below 0 corrects a classifier that is not sure enough
    on long texts. A length outside ``shortest`` to ``longest`` counts as the nearer of the two.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    exponent: float = Field(allow_inf_nan=False)
    unit_tokens: float = Field(gt=0, allow_inf_nan=False)
    shortest: int = Field(ge=1)
    longest: int = Field(ge=1)

    def factor_N(self, tokens_N: IntArray) -> np.ndarray:
        """Return what logits are multiplied by, float64."""
        length_N = np.clip(tokens_N, self.shortest, self.longest).astype(np.float64)
        factor_N: np.ndarray = (length_N / self.unit_tokens) ** -self.exponent
        return factor_N


class IsotonicSteps(BaseModel):
    """A rising function of the second label's log-odds, linear between its points."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    log_odds: list[float] = Field(min_length=1)
    probability: list[float] = Field(min_length=1)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        x, p = np.array(self.log_odds), np.array(self.probability)
        if len(x) != len(p) or not np.isfinite(x).all() or not ((p > 0) & (p < 1)).all():
            raise ValueError("isotonic: expected as many probabilities within (0, 1) as log-odds")
        if (np.diff(x) <= 0).any() or (np.diff(p) < 0).any():
            raise ValueError("isotonic: its points do not rise")
        return self


class Candidate(BaseModel):
    """A kind of map that was tried: cross-fitted log-loss, in nats."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    log_loss: float
    excess: float = Field(description="over the best candidate's")
    standard_error: float = Field(description="of the excess, over groups of texts")


class CalibrationMap(BaseModel):
    """What turns logits into log-odds.

    multiclass: log p = log_softmax(scale_C * logits + bias_C) with one scale for all labels
    (temperature and class bias; for two labels this is Platt 1999); multilabel: log-odds of
    label c = scale_c * logit_c + bias_c. ``length`` divides the logits first. ``isotonic``, for
    two labels that exclude each other, maps those log-odds on; see ``_isotonic``.

    tokens_N are those of ``RawScores``, which ``length`` reads. Rows that are NaN stay NaN.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    format: Literal[1, 2] = Field(
        default=2, description="1: platt alone, measured where it was fitted"
    )
    task: Task
    labels: list[str]
    method: Method = "platt"
    scale: list[float]
    bias: list[float]
    length: LengthScale | None = None
    isotonic: IsotonicSteps | None = None
    n: int = Field(description="texts it was fitted on")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.scale) == len(self.bias) == len(self.labels):
            raise ValueError("scale and bias: expected one number for each label")
        given = {"length": self.length is not None, "isotonic": self.isotonic is not None}
        if given != {name: name == self.method for name in given}:
            raise ValueError(f"method {self.method!r} does not go with its parameters")
        if self.isotonic and (self.task, len(self.labels)) != ("multiclass", 2):
            raise ValueError("isotonic: only for two labels that exclude each other")
        return self

    def log_odds_NC(self, logits_NC: FloatArray, tokens_N: IntArray) -> FloatArray:
        """Return each label's calibrated log-odds against all the others."""
        z_NC = self._z_NC(logits_NC, tokens_N)
        if self.task == "multilabel":
            return z_NC.astype(np.float32)
        columns = [_log_odds_of(z_NC, [c]) for c in range(z_NC.shape[1])]
        return np.stack(columns, axis=1).astype(np.float32)

    def probabilities_NC(self, logits_NC: FloatArray, tokens_N: IntArray) -> FloatArray:
        """Return each label's calibrated probability."""
        with np.errstate(invalid="ignore"):  # numpy warns of NaN, here a text that failed
            log_odds_NC = self.log_odds_NC(logits_NC, tokens_N).astype(np.float64)
            return sigmoid_N(log_odds_NC).astype(np.float32)

    def _z_NC(self, logits_NC: FloatArray, tokens_N: IntArray) -> np.ndarray:
        """Return z_NC: its softmax (multiclass) or sigmoid (multilabel) is the probability."""
        z_NC = logits_NC.astype(np.float64)
        if self.length is not None:
            z_NC *= self.length.factor_N(tokens_N)[:, None]
        z_NC = z_NC * self.scale + self.bias
        if self.isotonic is None:
            return z_NC
        lead_N = self._isotonic(z_NC[:, 1] - z_NC[:, 0], self.isotonic)
        return np.stack([np.zeros_like(lead_N), lead_N], axis=1)

    def _isotonic(self, x_N: np.ndarray, steps: IsotonicSteps) -> np.ndarray:
        """Return log-odds that rise with x_N, within logit of [1/(n+2), (n+1)/(n+2)].

        The steps alone would give whole blocks of texts one value, the surest ones too, and no
        threshold could separate them; so 1/(n+2) of the weight goes to sigmoid(x), which keeps
        their order.
        """
        least = 1 / (self.n + 2)
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            within_N = least + (1 - 2 * least) * sigmoid_N(x_N)
            step_N = np.interp(x_N, steps.log_odds, steps.probability)
            p_N = (1 - least) * step_N + least * within_N
            return logit_N(p_N)


class Calibration(CalibrationMap):
    """A map, what it was fitted on and what it is worth.

    ``before`` is without this calibration: under the one it replaced, or else with the softmax of
    the logits. ``after`` is cross-fitted, each text by a map fitted to the other folds, if there
    are ``candidates``; otherwise it is measured on the texts that the map was fitted to.
    """

    prior: list[float] = Field(description="each label's share in the calibration data")
    data: str = Field(description="SHA-256 of those texts and labels")
    replaces: str | None = Field(default=None, description="`data` of the calibration it replaced")
    ece_before: float
    ece_after: float
    brier_before: float | None = None
    brier_after: float | None = None
    log_loss_before: float
    log_loss_after: float
    candidates: dict[Method, Candidate] = Field(default_factory=dict)
    reliability_before: list[ReliabilityBin] = Field(
        default_factory=list,
        description="of two labels the second's probability, of more the highest one",
    )
    reliability_after: list[ReliabilityBin] = Field(default_factory=list)

    def log_odds(
        self,
        logits_NC: FloatArray,
        tokens_N: IntArray,
        positive: Sequence[int],
        prevalence: float | None = None,
    ) -> FloatArray:
        """Return log_odds_N that the positive labels hold.

        multiclass: of the sum of their probabilities; multilabel: the largest. ``prevalence``
        moves the prior from the calibration data's to the one expected (Bayes' rule with the
        likelihood ratio unchanged: Saerens 2002).
        """
        z_NC = self._z_NC(logits_NC, tokens_N)
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


class CalibrationFile(Calibration):
    """``calibration.json``: the calibration of the model's default scorer, and of its others."""

    scorers: dict[str, Calibration] = Field(
        default_factory=dict, description="of scorers other than the default one, by name"
    )

    def of(self, scorer: str | None) -> Calibration | None:
        """Return a scorer's calibration, the default one's where ``scorer`` is None."""
        if scorer is not None:
            return self.scorers.get(scorer)
        return Calibration(**{name: getattr(self, name) for name in Calibration.model_fields})


def calibration_file(default: Calibration, others: Mapping[str, Calibration]) -> Calibration:
    """Return what ``calibration.json`` holds, ``scorers`` only where there are ``others``."""
    return CalibrationFile(**dict(default), scorers=dict(others)) if others else default


def read_calibration(path: Path) -> CalibrationFile:
    try:
        return CalibrationFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = first_mistake(error) if isinstance(error, ValidationError) else error
        raise ArtefactError(f"{path}: not a calibration: {why}") from error


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


def _logit(p: float) -> float:
    return float(logit_N(p))
