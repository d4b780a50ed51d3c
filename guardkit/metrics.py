"""Metrics of probabilities against labels, and their intervals: numpy alone.

Every metric takes a weight per text, so that a bootstrap resample is a vector of counts and
nothing is sorted twice. Undefined is NaN: AUC without a positive, for one.

Shape letters: N texts, C labels, B blocks of texts with equal scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from guardkit.types import IntArray

ECE_BINS = 15
_RANKING_NAMES = ("roc_auc", "auprc", "recall_at_fpr_1%", "recall_at_fpr_0.1%")
_Float64 = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]

#: f(weight_N) -> name -> value
Measure = Callable[[_Float64], Mapping[str, float]]


class Smooth:
    """Accuracy, macro-F1, log-loss, Brier score and calibration error of p_NC.

    The Brier score is the mean squared error of the second label's probability where there
    are two, else the sum over labels (Brier 1950). ``ece``: see ``expected_calibration_error``.
    """

    def __init__(self, labels_N: IntArray, p_NC: npt.NDArray[np.floating]) -> None:
        n, self._n_labels = p_NC.shape
        p_NC = p_NC.astype(np.float64)
        predicted_N = p_NC.argmax(axis=1)
        correct_N = predicted_N == labels_N
        own_N = p_NC[np.arange(n), labels_N]
        one_hot_NC = np.eye(self._n_labels)[labels_N]
        squares_N = ((p_NC - one_hot_NC) ** 2).sum(axis=1)
        # float32 can round a probability to 0; its log must stay finite
        log_loss_N = -np.log(np.maximum(own_N, np.finfo(np.float32).tiny))
        brier_N = squares_N / 2 if self._n_labels == 2 else squares_N
        self._means = {"accuracy": correct_N, "log_loss": log_loss_N, "brier": brier_N}
        self._cell_N = labels_N * self._n_labels + predicted_N
        confidence_N = p_NC.max(axis=1)
        self._order = np.argsort(confidence_N, kind="stable")
        self._gap_N = (confidence_N - correct_N)[self._order]

    def __call__(self, weight_N: _Float64) -> Mapping[str, float]:
        total = weight_N.sum()
        means = {name: float(weight_N @ x_N / total) for name, x_N in self._means.items()}
        return {**means, "macro_f1": self._macro_f1(weight_N), "ece": self._ece(weight_N)}

    def _macro_f1(self, weight_N: _Float64) -> float:
        n_labels = self._n_labels
        counts = np.bincount(self._cell_N, weights=weight_N, minlength=n_labels**2)
        confusion_CC = counts.reshape(n_labels, n_labels)
        either_C = confusion_CC.sum(axis=0) + confusion_CC.sum(axis=1)
        present_C = either_C > 0
        return float((2 * confusion_CC.diagonal()[present_C] / either_C[present_C]).mean())

    def _ece(self, weight_N: _Float64) -> float:
        """Return sum over equal-count bins of |sum of (confidence - correct)|, over the count."""
        gaps = np.repeat(self._gap_N, weight_N[self._order].astype(np.int64))
        size, larger = divmod(len(gaps), bins := min(ECE_BINS, len(gaps)))
        starts = np.arange(bins) * size + np.minimum(np.arange(bins), larger)
        return float(np.abs(np.add.reduceat(gaps, starts)).sum() / len(gaps))


class Ranking:
    """AUC, AUPRC (average precision) and recall at a false-positive rate of one score."""

    def __init__(self, positive_N: _Bool, score_N: npt.NDArray[np.floating]) -> None:
        self._order = np.argsort(-score_N, kind="stable")
        self._positive_N = positive_N[self._order]
        # a threshold can only stand between different scores: at the last text of each block
        self._ends_B = np.append(np.flatnonzero(np.diff(score_N[self._order])), len(score_N) - 1)

    def __call__(self, weight_N: _Float64) -> Mapping[str, float]:
        w_N = weight_N[self._order]
        all_B = np.cumsum(w_N)[self._ends_B]
        true_B = np.cumsum(w_N * self._positive_N)[self._ends_B]
        n_positive, n_negative = true_B[-1], all_B[-1] - true_B[-1]
        if not n_positive:
            return dict.fromkeys(_RANKING_NAMES, np.nan)
        recall_B = np.append(0.0, true_B / n_positive)
        precision_B = true_B / np.maximum(all_B, 1)  # all_B is 0 where nothing was drawn yet
        auprc = float((np.diff(recall_B) * precision_B).sum())
        if not n_negative:
            return dict.fromkeys(_RANKING_NAMES, np.nan) | {"auprc": auprc}
        fpr_B = np.append(0.0, (all_B - true_B) / n_negative)
        auc = float((np.diff(fpr_B) * (recall_B[1:] + recall_B[:-1])).sum() / 2)
        at = [recall_B[np.searchsorted(fpr_B, rate, side="right") - 1] for rate in (0.01, 0.001)]
        return dict(zip(_RANKING_NAMES, (auc, auprc, *map(float, at)), strict=True))


class Flags:
    """Recall, false-positive rate and accuracy of yes-or-no answers."""

    def __init__(self, positive_N: _Bool, flagged_N: _Bool) -> None:
        self._cell_N = 2 * positive_N.astype(np.int64) + flagged_N

    def __call__(self, weight_N: _Float64) -> Mapping[str, float]:
        tn, fp, fn, tp = np.bincount(self._cell_N, weights=weight_N, minlength=4)
        return {
            "recall": _ratio(tp, tp + fn),
            "fpr": _ratio(fp, fp + tn),
            "precision": _ratio(tp, tp + fp),
            "accuracy": _ratio(tp + tn, tp + tn + fp + fn),
        }


class RecallAt:
    """Recall of the loosest threshold that keeps to ``max_fpr``, under weights of the texts."""

    def __init__(self, positive_N: _Bool, score_N: _Float64, max_fpr: float) -> None:
        self._order = np.argsort(-score_N, kind="stable")
        self._positive_N = positive_N[self._order]
        sorted_N = score_N[self._order]
        # a threshold can only stand between different scores: at the last text of each block
        self._ends_B = np.append(np.flatnonzero(sorted_N[1:] != sorted_N[:-1]), len(score_N) - 1)
        self._max_fpr = max_fpr

    def __call__(self, weight_N: _Float64) -> float:
        w_N = weight_N[self._order]
        true_B = np.append(0.0, np.cumsum(w_N * self._positive_N)[self._ends_B])
        false_B = np.append(0.0, np.cumsum(w_N * ~self._positive_N)[self._ends_B])
        if not true_B[-1] or not false_B[-1]:
            return np.nan
        last = np.searchsorted(false_B, self._max_fpr * false_B[-1] + 1e-9, side="right") - 1
        return float(true_B[last] / true_B[-1])


def mean_of(measures: Sequence[Measure]) -> Measure:
    """Return the measure that averages ``measures``, leaving out what is undefined."""

    def mean(weight_N: _Float64) -> Mapping[str, float]:
        results = [measure(weight_N) for measure in measures]
        defined = {k: [r[k] for r in results if not np.isnan(r[k])] for k in results[0]}
        return {k: sum(values) / len(values) if values else np.nan for k, values in defined.items()}

    return mean


def bootstrap(
    measure: Measure, groups: Sequence[str], *, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """Return {name: {value, low, high}}: the value on all texts, and its 95% interval.

    The percentile bootstrap over whole groups; None where undefined. The noise of a resample
    itself raises a calibration error, so ``ece`` is shifted by the mean rise.
    """
    _, group_N = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    n_groups = int(group_N.max()) + 1
    rng = np.random.default_rng(seed)
    values = measure(np.ones(len(group_N)))
    draws: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(resamples):
        count_G = np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)
        for name, value in measure(count_G[group_N].astype(np.float64)).items():
            draws[name].append(value)
    return {name: _interval(name, value, np.array(draws[name])) for name, value in values.items()}


def _interval(name: str, value: float, draws_R: _Float64) -> dict[str, float | None]:
    draws_R = draws_R[~np.isnan(draws_R)]
    if np.isnan(value) or not len(draws_R):
        return {"value": None, "low": None, "high": None}
    if name == "ece":
        draws_R = np.maximum(draws_R - (draws_R.mean() - value), 0.0)
    low, high = np.quantile(draws_R, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high)}


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else np.nan
