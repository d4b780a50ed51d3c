"""Metrics against scikit-learn, weighted and not; intervals against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from guardkit.calibration.maps import expected_calibration_error
from guardkit.metrics import (
    FPR_GRID_K,
    RECALL_GRID_K,
    BinaryRates,
    PerLabel,
    ProbabilityMetrics,
    Ranking,
    ReliabilityCurve,
    bands,
    bootstrap,
    mean_curves,
    mean_of,
    rates,
    wilson_interval,
)

N = 500


def made_up(labels: int, seed: int, *, ties: bool = False) -> tuple[Any, Any]:
    """Return (labels_N, p_NC): probabilities that know something of the labels."""
    rng = np.random.default_rng(seed)
    y_N = rng.integers(0, labels, N)
    logits_NC = rng.normal(size=(N, labels)) + 1.2 * np.eye(labels)[y_N]
    if ties:
        logits_NC = np.round(logits_NC)
    p_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    return y_N, p_NC.astype(np.float32)


def weights(kind: str) -> Any:
    if kind == "ones":
        return np.ones(N)
    return np.random.default_rng(5).integers(0, 4, N).astype(np.float64)


@pytest.mark.parametrize("kind", ["ones", "counts"])
@pytest.mark.parametrize("labels", [2, 5])
def test_smooth_metrics_agree_with_scikit_learn(labels: int, kind: str) -> None:
    y_N, p_NC = made_up(labels, seed=labels)
    w_N = weights(kind)
    got = ProbabilityMetrics(y_N, p_NC)(w_N)
    predicted = p_NC.argmax(axis=1)
    p64 = p_NC.astype(np.float64) / p_NC.astype(np.float64).sum(axis=1, keepdims=True)
    expected = {
        "accuracy": sk.accuracy_score(y_N, predicted, sample_weight=w_N),
        "macro_f1": sk.f1_score(y_N, predicted, average="macro", sample_weight=w_N),
        "log_loss": sk.log_loss(y_N, p64, sample_weight=w_N),
        "brier": sk.brier_score_loss(y_N, p64 if labels > 2 else p64[:, 1], sample_weight=w_N),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-6), name


def test_the_calibration_error_is_that_of_the_repeated_texts() -> None:
    y_N, p_NC = made_up(3, seed=1)
    smooth = ProbabilityMetrics(y_N, p_NC)
    assert smooth(np.ones(N))["ece"] == pytest.approx(expected_calibration_error(p_NC, y_N))
    w_N = weights("counts")
    index = np.repeat(np.arange(N), w_N.astype(int))
    repeated = expected_calibration_error(p_NC[index], y_N[index])
    assert smooth(w_N)["ece"] == pytest.approx(repeated)
    few = ProbabilityMetrics(y_N[:7], p_NC[:7])
    assert few(np.ones(7))["ece"] == pytest.approx(expected_calibration_error(p_NC[:7], y_N[:7]))


@pytest.mark.parametrize("kind", ["ones", "counts"])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_ranking_metrics_agree_with_scikit_learn(ties: bool, kind: str) -> None:
    y_N, p_NC = made_up(2, seed=3, ties=ties)
    w_N, score_N = weights(kind), p_NC[:, 1]
    got = Ranking(y_N == 1, score_N)(w_N)
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y_N, score_N, sample_weight=w_N))
    average = sk.average_precision_score(y_N, score_N, sample_weight=w_N)
    assert got["auprc"] == pytest.approx(average)
    fpr, tpr, _ = sk.roc_curve(y_N, score_N, sample_weight=w_N, drop_intermediate=False)
    for name, rate in (("recall_at_fpr_1%", 0.01), ("recall_at_fpr_0.1%", 0.001)):
        assert got[name] == pytest.approx(tpr[fpr <= rate].max()), name


def test_recall_at_a_rate_uses_the_whole_rate() -> None:
    # 100 negatives, the best-scored above half of the positives: one false positive is 1%
    score = np.concatenate([[0.9], np.zeros(99), np.full(5, 0.95), np.full(5, 0.8)])
    positive = np.arange(110) >= 100
    got = Ranking(positive, score)(np.ones(110))
    assert got["recall_at_fpr_1%"] == 1.0
    assert got["recall_at_fpr_0.1%"] == 0.5


def test_one_against_the_rest_is_averaged() -> None:
    y_N, p_NC = made_up(4, seed=4)
    average = mean_of([Ranking(y_N == c, p_NC[:, c]) for c in range(4)])(np.ones(N))
    p64 = p_NC.astype(np.float64) / p_NC.astype(np.float64).sum(axis=1, keepdims=True)
    expected = sk.roc_auc_score(y_N, p64, multi_class="ovr", average="macro")
    assert average["roc_auc"] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(mean_of([Ranking(y_N > 9, p_NC[:, 0])])(np.ones(N))["roc_auc"])


def test_what_one_class_cannot_define_is_not_a_number() -> None:
    score = np.linspace(0, 1, 5)
    none = Ranking(np.zeros(5, bool), score)(np.ones(5))
    assert all(np.isnan(value) for value in none.values())
    every = Ranking(np.ones(5, bool), score)(np.ones(5))
    assert np.isnan(every["roc_auc"])
    assert every["auprc"] == 1.0
    flags = BinaryRates(np.zeros(5, bool), np.array([True, False, False, False, False]))(np.ones(5))
    assert flags["fpr"] == 0.2
    assert np.isnan(flags["recall"])


def test_flags_agree_with_scikit_learn() -> None:
    y_N, p_NC = made_up(2, seed=6)
    flagged, w_N = p_NC[:, 1] > 0.7, weights("counts")
    got = BinaryRates(y_N == 1, flagged)(w_N)
    assert got["recall"] == pytest.approx(sk.recall_score(y_N, flagged, sample_weight=w_N))
    assert got["precision"] == pytest.approx(sk.precision_score(y_N, flagged, sample_weight=w_N))
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y_N, flagged, sample_weight=w_N))
    fpr = sk.recall_score(1 - y_N, flagged, sample_weight=w_N)
    assert got["fpr"] == pytest.approx(fpr)


def test_a_probability_rounded_to_zero_costs_a_finite_loss() -> None:
    p_NC = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert np.isfinite(ProbabilityMetrics(np.array([1, 1]), p_NC)(np.ones(2))["log_loss"])


def test_an_interval_without_groups_is_as_wide_as_theory_says() -> None:
    y_N, p_NC = made_up(2, seed=8)
    texts = [f"text {i}" for i in range(N)]
    m = bootstrap(ProbabilityMetrics(y_N, p_NC), texts, resamples=1000, seed=0)["accuracy"]
    assert m["value"] is not None
    assert m["low"] is not None
    assert m["high"] is not None
    standard_error = (m["value"] * (1 - m["value"]) / N) ** 0.5
    assert m["high"] - m["low"] == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert m["low"] < m["value"] < m["high"]


def test_groups_that_answer_alike_widen_the_interval() -> None:
    y_N = np.ones(N, np.int64)
    right_N = np.arange(N) // 20 % 2  # groups of 20, all right or all wrong
    p_NC = np.stack([1 - right_N, right_N], axis=1).astype(np.float32)
    smooth = ProbabilityMetrics(y_N, p_NC)

    def width(groups: list[str]) -> float:
        m = bootstrap(smooth, groups, resamples=500, seed=0)["accuracy"]
        assert m["low"] is not None
        assert m["high"] is not None
        return m["high"] - m["low"]

    alone, grouped = width([str(i) for i in range(N)]), width([str(i // 20) for i in range(N)])
    assert grouped == pytest.approx(alone * 20**0.5, rel=0.15)


def test_the_calibration_error_lies_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    p_N = rng.uniform(size=N)
    y_N = (rng.uniform(size=N) < p_N).astype(np.int64)  # perfectly calibrated: all is noise
    smooth = ProbabilityMetrics(y_N, np.stack([1 - p_N, p_N], axis=1))
    m = bootstrap(smooth, [str(i) for i in range(N)], resamples=300, seed=0)["ece"]
    assert m["low"] is not None
    assert m["value"] is not None
    assert m["high"] is not None
    assert 0 <= m["low"] <= m["value"] <= m["high"]


def test_intervals_repeat_with_the_seed_and_skip_undefined_resamples() -> None:
    y_N = np.array([1, 0, 0, 0])  # a third of the resamples hold no positive
    score_N = np.array([0.9, 0.8, 0.2, 0.1])
    ranking = Ranking(y_N == 1, score_N)
    first = bootstrap(ranking, list("abcd"), resamples=200, seed=3)
    assert first == bootstrap(ranking, list("abcd"), resamples=200, seed=3)
    assert first["roc_auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    none = bootstrap(Ranking(y_N > 1, score_N), list("abcd"), resamples=5, seed=0)
    assert none["roc_auc"] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize("kind", ["ones", "counts"])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_curves_agree_with_scikit_learn(ties: bool, kind: str) -> None:
    y_N, p_NC = made_up(2, seed=11, ties=ties)
    w_N, score_N = weights(kind), p_NC[:, 1]
    got = Ranking(y_N == 1, score_N).curves(w_N)
    fpr, tpr, _ = sk.roc_curve(y_N, score_N, sample_weight=w_N, drop_intermediate=False)
    expected = [tpr[fpr <= rate].max() for rate in FPR_GRID_K]
    assert got["roc"] == pytest.approx(np.array(expected))
    precision, recall, _ = sk.precision_recall_curve(y_N, score_N, sample_weight=w_N)
    # recall falls with the threshold: the last that still reaches r has the highest threshold
    expected = [precision[np.flatnonzero(recall >= r - 1e-12)[-1]] for r in RECALL_GRID_K]
    assert got["pr"] == pytest.approx(np.array(expected))


def test_the_curve_and_the_recalls_at_a_rate_are_one_thing() -> None:
    y_N, p_NC = made_up(2, seed=12)
    ranking = Ranking(y_N == 1, p_NC[:, 1])
    roc = dict(zip(FPR_GRID_K.tolist(), ranking.curves(np.ones(N))["roc"], strict=True))
    assert roc[0.01] == ranking(np.ones(N))["recall_at_fpr_1%"]
    assert roc[0.001] == ranking(np.ones(N))["recall_at_fpr_0.1%"]


def test_curves_of_several_labels_are_averaged_as_their_numbers_are() -> None:
    y_N, p_NC = made_up(3, seed=13)
    several = [Ranking(y_N == c, p_NC[:, c]) for c in range(3)]
    curves = mean_curves(several)(np.ones(N))
    at = mean_of(several)(np.ones(N))["recall_at_fpr_1%"]
    assert curves["roc"][FPR_GRID_K.tolist().index(0.01)] == pytest.approx(at)
    # a label that no text has draws no curve, and spoils none
    absent = Ranking(np.zeros(N, bool), p_NC[:, 0])
    assert mean_curves([*several, absent])(np.ones(N))["roc"] == pytest.approx(curves["roc"])
    assert np.isnan(mean_curves([absent])(np.ones(N))["roc"]).all()


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_reliability_agrees_with_scikit_learn(ties: bool) -> None:
    y_N, p_NC = made_up(2, seed=14, ties=ties)
    p_N = p_NC[:, 1].astype(np.float64)
    measure = ReliabilityCurve(y_N == 1, p_N, bins=8)
    observed, mean = calibration_curve(y_N, p_N, n_bins=8, strategy="quantile")
    assert measure(np.ones(N))["observed"] == pytest.approx(observed)
    assert measure.mean_K == pytest.approx(mean)
    assert measure.count_K.sum() == N


@pytest.mark.parametrize("kind", ["ones", "counts"])
def test_every_label_agrees_with_scikit_learn(kind: str) -> None:
    y_N, p_NC = made_up(4, seed=15)
    predicted_N, w_N = p_NC.argmax(axis=1), weights(kind)
    measure = PerLabel(y_N, predicted_N, 4)
    expected = sk.confusion_matrix(y_N, predicted_N, sample_weight=w_N)
    assert (measure.confusion(w_N) == expected).all()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        y_N, predicted_N, sample_weight=w_N
    )
    got = measure(w_N)
    assert got["precision"] == pytest.approx(precision)
    assert got["recall"] == pytest.approx(recall)
    assert got["f1"] == pytest.approx(f1)


def test_a_band_is_the_interval_of_every_point() -> None:
    y_N, p_NC = made_up(2, seed=16)
    ranking, groups = Ranking(y_N == 1, p_NC[:, 1]), [f"g{i // 5}" for i in range(N)]
    band = bands(ranking.curves, groups, resamples=60, seed=3)["roc"]
    alone = bootstrap(ranking, groups, resamples=60, seed=3)["recall_at_fpr_1%"]
    k = FPR_GRID_K.tolist().index(0.01)
    assert {end: values[k] for end, values in band.items()} == alone


def test_rates_of_nothing_and_of_everything_have_an_exact_interval() -> None:
    positive, flagged = np.arange(30) < 10, np.arange(30) < 10
    groups = [f"g{i // 2}" for i in range(30)]  # 5 groups of positives, 10 of negatives
    got = rates(positive, flagged, groups, resamples=50, seed=0)
    none = binomtest(0, 10).proportion_ci(method="exact")
    every = binomtest(5, 5).proportion_ci(method="exact")
    assert got["fpr"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(none.high)}
    assert got["recall"] == {"value": 1.0, "low": pytest.approx(every.low), "high": 1.0}
    partly = rates(positive, np.arange(30) < 8, groups, resamples=50, seed=0)["recall"]
    drawn = bootstrap(BinaryRates(positive, np.arange(30) < 8), groups, resamples=50, seed=0)[
        "recall"
    ]
    assert partly == drawn


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 10), (10, 10), (400, 1000)])
def test_the_interval_of_a_share_is_wilsons(k: int, n: int) -> None:
    oracle = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(k / n, n) == (oracle.low, oracle.high)
