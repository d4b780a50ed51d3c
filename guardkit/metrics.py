"""Metrics of probabilities against labels, and their intervals: numpy alone.

Every metric takes a weight per text: a bootstrap resample is then a vector of counts, and nothing
is sorted twice. What is undefined is NaN, such as the AUC without a positive text.

Shape letters: N texts, C labels, B blocks of texts with equal scores, K bins or points of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from guardkit.types import IntArray

ECE_BINS = 15
_Z95 = 1.959963984540054  # the normal distribution has 95% within so many standard deviations
_RANKING_NAMES = ("roc_auc", "auprc", "recall_at_fpr_1%", "recall_at_fpr_0.1%")
_Float64 = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]

#: Where curves are read off: false-positive rates even and logarithmic, recalls even.
#: (Not by np.unique, which would load numpy.ma at every start.)
FPR_GRID_K = np.array(
    sorted({*np.linspace(0, 1, 101).round(6), *np.geomspace(0.001, 1, 61).round(6)})
)
RECALL_GRID_K = np.linspace(0.01, 1, 100).round(6)

#: ``value``, ``low`` and ``high``: a number and its 95% interval, None where undefined.
Interval = Mapping[str, float | None]
#: name -> interval
Intervals = Mapping[str, Interval]
#: f(weight_N) -> name -> value
Measure = Callable[[_Float64], Mapping[str, float]]
#: f(weight_N) -> name -> values_K
Measures = Callable[[_Float64], Mapping[str, _Float64]]


class ProbabilityMetrics:
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
        self._per_label = PerLabel(labels_N, predicted_N, self._n_labels)
        confidence_N = p_NC.max(axis=1)
        self._order = np.argsort(confidence_N, kind="stable")
        self._gap_N = (confidence_N - correct_N)[self._order]

    def __call__(self, weight_N: _Float64) -> Mapping[str, float]:
        total = weight_N.sum()
        means = {name: float(weight_N @ x_N / total) for name, x_N in self._means.items()}
        return {**means, "macro_f1": self._macro_f1(weight_N), "ece": self._ece(weight_N)}

    def _macro_f1(self, weight_N: _Float64) -> float:
        return float(np.nanmean(self._per_label(weight_N)["f1"]))  # NaN: a label that is not there

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
        fpr_B, recall_B, precision_B = self._points(weight_N)
        if np.isnan(recall_B[-1]):
            return dict.fromkeys(_RANKING_NAMES, np.nan)
        auprc = float((np.diff(recall_B) * precision_B).sum())
        if np.isnan(fpr_B[-1]):
            return dict.fromkeys(_RANKING_NAMES, np.nan) | {"auprc": auprc}
        auc = float((np.diff(fpr_B) * (recall_B[1:] + recall_B[:-1])).sum() / 2)
        at = _recall_at(fpr_B, recall_B, np.array([0.01, 0.001]))
        return dict(zip(_RANKING_NAMES, (auc, auprc, *at.tolist()), strict=True))

    def curves(self, weight_N: _Float64) -> Mapping[str, _Float64]:
        """Return ``roc``, the recall at each rate of FPR_GRID_K, and ``pr``, the precision where
        recall first reaches each of RECALL_GRID_K. NaN where a class is missing."""
        fpr_B, recall_B, precision_B = self._points(weight_N)
        roc_K, pr_K = np.full(len(FPR_GRID_K), np.nan), np.full(len(RECALL_GRID_K), np.nan)
        if not np.isnan(recall_B[-1] + fpr_B[-1]):
            roc_K = _recall_at(fpr_B, recall_B, FPR_GRID_K)
            # a recall is a sum of ratios: the last one may be a hair under 1
            reached_K = np.searchsorted(recall_B[1:], RECALL_GRID_K - 1e-12)
            pr_K = precision_B[np.minimum(reached_K, len(precision_B) - 1)]
        return {"roc": roc_K, "pr": pr_K}

    def _points(self, weight_N: _Float64) -> tuple[_Float64, _Float64, _Float64]:
        """Return false-positive rates and recalls, from 0 up, and precisions, one fewer."""
        w_N = weight_N[self._order]
        all_B = np.cumsum(w_N)[self._ends_B]
        true_B = np.cumsum(w_N * self._positive_N)[self._ends_B]
        n_positive, n_negative = true_B[-1], all_B[-1] - true_B[-1]
        return (
            np.append(0.0, (all_B - true_B) / (n_negative or np.nan)),
            np.append(0.0, true_B / (n_positive or np.nan)),
            true_B / np.maximum(all_B, 1),  # all_B is 0 where nothing was drawn yet
        )


class BinaryRates:
    """Recall, false-positive rate, precision and accuracy of binary predictions."""

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


class PerLabel:
    """Recall, precision and F1 of each label, values_C, where one label was given each text."""

    def __init__(self, labels_N: IntArray, predicted_N: IntArray, n_labels: int) -> None:
        self._n_labels = n_labels
        self._cell_N = labels_N * n_labels + predicted_N

    def confusion(self, weight_N: _Float64) -> _Float64:
        """Return confusion_CC: a row a true label, a column a predicted one."""
        n_labels = self._n_labels
        counts = np.bincount(self._cell_N, weights=weight_N, minlength=n_labels**2)
        return counts.astype(np.float64).reshape(n_labels, n_labels)

    def __call__(self, weight_N: _Float64) -> Mapping[str, _Float64]:
        confusion_CC = self.confusion(weight_N)
        right_C, is_C, said_C = (
            confusion_CC.diagonal(),
            confusion_CC.sum(axis=1),
            confusion_CC.sum(axis=0),
        )
        with np.errstate(invalid="ignore"):  # 0 / 0: undefined
            return {
                "recall": right_C / is_C,
                "precision": right_C / said_C,
                "f1": 2 * right_C / (is_C + said_C),
            }


class ReliabilityCurve:
    """The share of hits in each bin of a probability, observed_K.

    Bins hold equally many texts as far as equal probabilities allow, which stay together.
    """

    def __init__(self, hit_N: _Bool, p_N: npt.NDArray[np.floating], bins: int = ECE_BINS) -> None:
        p_N = p_N.astype(np.float64)
        inner = np.quantile(p_N, np.linspace(0, 1, bins + 1))[1:-1]
        _, self._bin_N = np.unique(np.searchsorted(inner, p_N), return_inverse=True)
        self._hit_N = hit_N.astype(np.float64)
        self.count_K = np.bincount(self._bin_N)
        self.mean_K = np.bincount(self._bin_N, weights=p_N) / self.count_K

    def __call__(self, weight_N: _Float64) -> Mapping[str, _Float64]:
        hits_K = np.bincount(self._bin_N, weights=weight_N * self._hit_N)
        with np.errstate(invalid="ignore"):  # a bin that no text was drawn from
            return {"observed": hits_K / np.bincount(self._bin_N, weights=weight_N)}


def mean_of(measures: Sequence[Measure]) -> Measure:
    """Return the measure that averages ``measures``, leaving out what is undefined."""

    def mean(weight_N: _Float64) -> Mapping[str, float]:
        results = [measure(weight_N) for measure in measures]
        defined = {k: [r[k] for r in results if not np.isnan(r[k])] for k in results[0]}
        return {k: sum(values) / len(values) if values else np.nan for k, values in defined.items()}

    return mean


def mean_curves(rankings: Sequence[Ranking]) -> Measures:
    """Return the measure that averages the curves of ``rankings``, leaving out what is
    undefined."""

    def mean(weight_N: _Float64) -> Mapping[str, _Float64]:
        results = [ranking.curves(weight_N) for ranking in rankings]
        defined = [r for r in results if not np.isnan(r["roc"][0])] or results[:1]
        return {name: np.mean([r[name] for r in defined], axis=0) for name in results[0]}

    return mean


def bootstrap(
    measure: Measure, groups: Sequence[str], *, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """Return {name: {value, low, high}}: the value on all texts, and its 95% interval.

    The intervals are those of the percentile bootstrap over whole groups; None where undefined.
    Resampling itself raises a calibration error, so the interval of ``ece`` is lowered by the mean
    rise.
    """
    values = measure(np.ones(len(groups)))
    draws: dict[str, list[float]] = {name: [] for name in values}
    for weight_N in _resamples(groups, resamples, seed):
        for name, value in measure(weight_N).items():
            draws[name].append(value)
    return {name: _interval(name, value, np.array(draws[name])) for name, value in values.items()}


def bands(
    measure: Measures, groups: Sequence[str], *, resamples: int, seed: int
) -> dict[str, dict[str, list[float | None]]]:
    """Return {name: {value, low, high}}, each a list of K: ``bootstrap`` for every point."""
    values = measure(np.ones(len(groups)))
    draws: dict[str, list[_Float64]] = {name: [] for name in values}
    for weight_N in _resamples(groups, resamples, seed):
        for name, value_K in measure(weight_N).items():
            draws[name].append(value_K)
    result = {}
    for name, value_K in values.items():
        draws_KR = np.stack(draws[name], axis=1)
        points = [_interval(name, v, d) for v, d in zip(value_K, draws_KR, strict=True)]
        result[name] = {end: [point[end] for point in points] for end in ("value", "low", "high")}
    return result


def rates(
    positive_N: _Bool, flagged_N: _Bool, groups: Sequence[str], *, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """Return ``BinaryRates`` with intervals, never of width 0.

    Where a rate is 0 or 1 every resample has the same value, so that the bootstrap's interval would
    have no width: it is then the exact binomial one over the groups (Clopper and Pearson 1934).
    """
    result = bootstrap(BinaryRates(positive_N, flagged_N), groups, resamples=resamples, seed=seed)
    everything_N = np.ones(len(positive_N), bool)
    of = {"recall": positive_N, "fpr": ~positive_N, "precision": flagged_N}
    for name, rate in result.items():
        among_N = of.get(name, everything_N)
        n_groups = count_groups(groups, among_N)
        if rate["value"] == 0:
            rate["high"] = 1 - 0.025 ** (1 / n_groups)
        elif rate["value"] == 1:
            rate["low"] = 0.025 ** (1 / n_groups)
    return result


def group_index(groups: Sequence[str]) -> IntArray:
    """Return each text's group as a number, group_N, counted from 0."""
    _, group_N = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    return group_N


def count_groups(groups: Sequence[str], among_N: _Bool) -> int:
    """Return how many groups the texts marked in ``among_N`` belong to."""
    return len({group for group, is_in in zip(groups, among_N.tolist(), strict=True) if is_in})


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share seen in ``n`` independent texts (Wilson 1927)."""
    denominator = 2 * (n + _Z95**2)
    centre = (2 * n * share + _Z95**2) / denominator
    half = _Z95 / denominator * math.sqrt(4 * n * share * (1 - share) + _Z95**2)
    return (centre - half if share > 0 else 0.0), (centre + half if share < 1 else 1.0)


def _resamples(groups: Sequence[str], resamples: int, seed: int) -> Iterator[_Float64]:
    """Yield how often each text is drawn, weight_N, when whole groups are."""
    group_N = group_index(groups)
    n_groups = int(group_N.max()) + 1
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        count_G = np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)
        yield count_G[group_N].astype(np.float64)


def _interval(name: str, value: float, draws_R: _Float64) -> dict[str, float | None]:
    draws_R = draws_R[~np.isnan(draws_R)]
    if np.isnan(value) or not len(draws_R):
        return {"value": None, "low": None, "high": None}
    if name == "ece":
        draws_R = np.maximum(draws_R - (draws_R.mean() - value), 0.0)
    low, high = np.quantile(draws_R, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high)}


def _recall_at(fpr_B: _Float64, recall_B: _Float64, rate_K: _Float64) -> _Float64:
    """Return the highest recall at no more than each false-positive rate."""
    return recall_B[np.searchsorted(fpr_B, rate_K, side="right") - 1]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else np.nan
