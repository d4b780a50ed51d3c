"""The kinds of map, each against an independent formula, and how one of them is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

from guardkit.calibration.fit import ChosenCalibration, _fit, choose_calibration, log_losses
from guardkit.calibration.maps import (
    Calibration,
    CalibrationMap,
    Method,
    expected_calibration_error,
    read_calibration,
)
from guardkit.data.splits import group_folds
from guardkit.errors import ArtefactError, DataError
from guardkit.metrics import bootstrap
from guardkit.model.artefact import write_json

AB, ABC = ("a", "b"), ("a", "b", "c")
#: What `guardkit train` wrote before there was more than one method.
FORMAT_1 = """{
  "format": 1, "task": "multiclass", "labels": ["neg", "pos"], "method": "platt",
  "scale": [0.8880233177829865, 0.8880233177829865], "bias": [0.0, 0.034666445478447654],
  "prior": [0.44490472245236123, 0.5550952775476388], "n": 1207, "data": "adc3",
  "ece_before": 0.013, "ece_after": 0.015, "log_loss_before": 0.284, "log_loss_after": 0.283
}"""


def sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-x))
    return result


def softmax(z_NC: np.ndarray) -> np.ndarray:
    p_NC: np.ndarray = np.exp(z_NC - z_NC.max(1, keepdims=True))
    return p_NC / p_NC.sum(1, keepdims=True)


def sample(p_NC: np.ndarray, seed: int) -> np.ndarray:
    """Draw a label for each row of probabilities."""
    drawn = np.random.default_rng(seed).random((len(p_NC), 1))
    result: np.ndarray = (drawn > p_NC.cumsum(1)).sum(1).clip(max=p_NC.shape[1] - 1)
    return result


def overconfident(
    n: int, *, exponent: float = 0.0, n_labels: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, tokens and labels: the true scale is (tokens / 100)^-exponent / 2."""
    rng = np.random.default_rng(seed)
    tokens_N = np.exp(rng.uniform(np.log(10), np.log(1000), n)).astype(np.int64)
    z_NC = rng.normal(scale=3.0, size=(n, n_labels)).astype(np.float32)
    true_NC = 0.5 * z_NC * ((tokens_N / 100.0) ** -exponent)[:, None]
    return z_NC, tokens_N, sample(softmax(true_NC), seed + 1)


def bent(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, tokens and labels of a classifier whose low scores all mean 10%, and whose
    high ones all mean 90%: no line in the log-odds fits that."""
    x_N = np.random.default_rng(seed).normal(scale=6.0, size=n)
    p_N = np.where(x_N < -1, 0.1, np.where(x_N > 1, 0.9, 0.5))
    z_NC = np.stack([-x_N / 2, x_N / 2], axis=1).astype(np.float32)
    return z_NC, np.ones(n, np.int64), sample(np.stack([1 - p_N, p_N], axis=1), seed + 1)


def choose(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
    labels: Sequence[str] = AB,
    groups: Sequence[str] | None = None,
    **how: Any,
) -> ChosenCalibration:
    names = groups or [str(i) for i in range(len(data[0]))]
    return choose_calibration(*data, labels, names, data="f00", **how)


def p_of(fitted: CalibrationMap, z_NC: np.ndarray, tokens_N: np.ndarray) -> np.ndarray:
    return sigmoid(fitted.log_odds_NC(z_NC, tokens_N).astype(np.float64))


# -- the maps --------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [-0.4, 0.0, 0.5, 0.9])
def test_a_known_dependence_on_length_is_found(exponent: float) -> None:
    z_NC, tokens_N, labels_N = overconfident(20_000, exponent=exponent)
    fitted = _fit("length", z_NC, tokens_N, labels_N, AB)
    assert fitted.length is not None
    assert fitted.length.exponent == pytest.approx(exponent, abs=0.05)
    for tokens in (20, 100, 800):
        slope = fitted.scale[0] * fitted.length.factor_N(np.array([tokens]))[0]
        assert slope == pytest.approx(0.5 * (tokens / 100) ** -exponent, rel=0.12)


def test_the_length_map_is_softmax_of_a_times_logits_over_a_power_of_length() -> None:
    z_NC, tokens_N, labels_N = overconfident(500, exponent=0.5, n_labels=3)
    fitted = _fit("length", z_NC, tokens_N, labels_N, ABC)
    assert fitted.length is not None
    scale_N = fitted.scale[0] * (tokens_N / fitted.length.unit_tokens) ** -fitted.length.exponent
    expected = softmax(z_NC * scale_N[:, None] + fitted.bias)
    assert p_of(fitted, z_NC, tokens_N) == pytest.approx(expected, abs=1e-6)


def test_a_length_never_seen_counts_as_the_nearest_that_was() -> None:
    z_NC, tokens_N, labels_N = overconfident(500, exponent=0.5)
    fitted = _fit("length", z_NC, tokens_N, labels_N, AB)
    x_NC = np.array([[0.0, 2.0]] * 2, np.float32)
    beyond = fitted.log_odds_NC(x_NC, np.array([0, 10**9]))
    edge = fitted.log_odds_NC(x_NC, np.array([tokens_N.min(), tokens_N.max()]))
    assert np.array_equal(beyond, edge)
    assert beyond[0, 1] > beyond[1, 1]


def test_isotonic_is_scikit_learns_but_for_what_breaks_its_ties() -> None:
    z_NC, tokens_N, labels_N = bent(800)
    z_NC = z_NC.round(1)  # some texts share a score
    fitted = _fit("isotonic", z_NC, tokens_N, labels_N, AB)
    x_N = z_NC.astype(np.float64) @ [-1, 1] * fitted.scale[0] + fitted.bias[1]
    least = 1 / 802
    oracle = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(
        x_N, labels_N
    )
    new_NC = np.random.default_rng(9).normal(scale=8, size=(500, 2)).astype(np.float32)
    new_N = new_NC.astype(np.float64) @ [-1, 1] * fitted.scale[0] + fitted.bias[1]
    ones = np.ones(500, np.int64)
    got_N = p_of(fitted, new_NC, ones)[:, 1]
    step_N = oracle.predict(new_N)
    assert np.abs(got_N - step_N).max() <= least
    expected = (1 - least) * step_N + least * (least + (1 - 2 * least) * sigmoid(new_N))
    assert got_N == pytest.approx(expected, abs=1e-6)
    # what it is for: texts on one step keep their order
    order = np.argsort(new_N)
    tied = np.diff(step_N[order]) == 0
    assert tied.mean() > 0.5
    assert (np.diff(fitted.log_odds_NC(new_NC, ones)[order, 1])[tied] > 0).mean() > 0.9


def test_isotonic_stays_within_what_its_size_allows() -> None:
    labels_N = np.arange(40) % 2
    z_NC = np.where(np.eye(2)[labels_N] == 1, 50.0, -50.0).astype(np.float32)
    fitted = _fit("isotonic", z_NC, np.ones(40, np.int64), labels_N, AB)
    far_NC = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    p_NC = p_of(fitted, far_NC, np.ones(2, np.int64))
    assert p_NC[:, 1] == pytest.approx([1 / 42, 41 / 42], abs=1e-6)


FITTED: dict[tuple[Method, int], CalibrationMap] = {
    (method, n_labels): _fit(method, *overconfident(300, exponent=0.4, n_labels=n_labels), names)
    for n_labels, names in ((2, AB), (3, ABC))
    for method in ("platt", "length", "isotonic")
    if (method, n_labels) != ("isotonic", 3)
}
logits = st.floats(-60, 60, width=32)


@pytest.mark.parametrize("key", FITTED, ids=str)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_more_for_a_label_is_never_less_probable(key: tuple[Method, int], data: Any) -> None:
    fitted, n_labels = FITTED[key], key[1]
    z_C = data.draw(arrays(np.float32, n_labels, elements=logits))
    label = data.draw(st.integers(0, n_labels - 1))
    more_C = z_C.copy()
    more_C[label] += data.draw(st.floats(0, 30, width=32))
    tokens = data.draw(st.integers(0, 5000))
    less, more = fitted.log_odds_NC(np.stack([z_C, more_C]), np.array([tokens, tokens]))[:, label]
    assert more >= less


@pytest.mark.parametrize("key", FITTED, ids=str)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_probabilities_lie_between_0_and_1_and_sum_to_1(key: tuple[Method, int], data: Any) -> None:
    fitted, n_labels = FITTED[key], key[1]
    z_NC = data.draw(arrays(np.float32, (5, n_labels), elements=st.floats(-20, 20, width=32)))
    tokens_N = data.draw(arrays(np.int64, 5, elements=st.integers(0, 10**6)))
    log_odds_NC = fitted.log_odds_NC(z_NC, tokens_N)
    assert np.isfinite(log_odds_NC).all()
    p_NC = sigmoid(log_odds_NC.astype(np.float64))
    assert ((p_NC > 0) & (p_NC <= 1)).all()  # 1 - 1e-17 is 1
    assert p_NC.sum(1) == pytest.approx(np.ones(5), abs=1e-5)


@pytest.mark.parametrize("key", FITTED, ids=str)
def test_a_text_that_failed_stays_unknown_under_every_map(key: tuple[Method, int]) -> None:
    z_NC = np.full((2, key[1]), np.nan, np.float32)
    z_NC[1] = 0.0
    p_NC = FITTED[key].probabilities_NC(z_NC, np.array([0, 5]))
    assert np.isnan(p_NC[0]).all()
    assert np.isfinite(p_NC[1]).all()


# -- the choice ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "labels", "expected"),
    [
        (overconfident(1500), AB, "platt"),
        (overconfident(1500, n_labels=3), ABC, "platt"),
        (overconfident(1500, exponent=0.6), AB, "length"),
        (overconfident(1500, exponent=0.6, n_labels=3), ABC, "length"),
        (bent(1500), AB, "isotonic"),
    ],
    ids=["a scale is enough", "so it is for three", "length matters", "for three", "no line fits"],
)
def test_the_map_that_made_the_data_is_chosen(data: Any, labels: Any, expected: str) -> None:
    chosen = choose(data, labels).calibration
    assert chosen.method == expected
    assert set(chosen.candidates) == {"platt", "length", "isotonic"} - (
        ({"isotonic"} if labels == ABC else set()) | ({"length"} if len({*data[1]}) == 1 else set())
    )
    one = chosen.candidates[chosen.method]
    assert one.excess <= one.standard_error
    assert min(c.excess for c in chosen.candidates.values()) == 0.0


def test_every_text_is_judged_by_a_map_that_never_saw_its_group() -> None:
    z_NC, tokens_N, labels_N = overconfident(300, exponent=0.6)
    groups = [f"g{i % 60}" for i in range(300)]
    chosen = choose((z_NC, tokens_N, labels_N), groups=groups, method="length")
    fold_N = group_folds(labels_N, groups, seed=0)
    for fold in range(5):
        inside = fold_N == fold
        assert not {g for g, i in zip(groups, inside, strict=True) if i} & {
            g for g, i in zip(groups, inside, strict=True) if not i
        }
        other = _fit("length", z_NC[~inside], tokens_N[~inside], labels_N[~inside], AB)
        expected = other.log_odds_NC(z_NC[inside], tokens_N[inside])
        assert np.array_equal(chosen.after_NC[inside], expected)
    # while the map itself is fitted to all of them
    whole = _fit("length", z_NC, tokens_N, labels_N, AB)
    assert (whole.scale, whole.length) == (chosen.calibration.scale, chosen.calibration.length)


def test_the_figures_are_those_of_scikit_learn_on_the_held_out_probabilities() -> None:
    z_NC, tokens_N, labels_N = overconfident(600)
    chosen = choose((z_NC, tokens_N, labels_N))
    c = chosen.calibration
    before_NC, after_NC = softmax(z_NC.astype(np.float64)), sigmoid(chosen.after_NC)
    assert c.log_loss_before == pytest.approx(log_loss(labels_N, before_NC))
    assert c.log_loss_after == pytest.approx(log_loss(labels_N, after_NC[:, 1]), rel=1e-5)
    assert c.brier_before == pytest.approx(brier_score_loss(labels_N, before_NC[:, 1]))
    assert c.brier_after == pytest.approx(brier_score_loss(labels_N, after_NC[:, 1]), rel=1e-5)
    assert c.ece_before == pytest.approx(expected_calibration_error(before_NC, labels_N))
    assert c.ece_after == pytest.approx(expected_calibration_error(after_NC, labels_N), abs=1e-4)
    assert c.log_loss_after < c.log_loss_before
    assert c.candidates["platt"].log_loss == pytest.approx(c.log_loss_after)
    assert (c.n, c.data, c.replaces) == (600, "f00", None)


def test_the_standard_error_is_that_of_resampled_groups() -> None:
    z_NC, tokens_N, labels_N = bent(600)
    copies = 3  # near-duplicates: a third of the texts that there seem to be
    data = tuple(np.repeat(x, copies, axis=0) for x in (z_NC, tokens_N, labels_N))
    groups = [f"g{i // copies}" for i in range(600 * copies)]
    made = {m: choose(data, groups=groups, method=m) for m in ("platt", "isotonic")}  # type: ignore[arg-type]
    candidates = made["platt"].calibration.candidates
    assert candidates["isotonic"].excess == 0.0
    excess_N = log_losses(data[2], made["platt"].after_NC) - log_losses(
        data[2], made["isotonic"].after_NC
    )
    assert candidates["platt"].excess == pytest.approx(excess_N.mean())
    interval = bootstrap(
        lambda w_N: {"x": float(w_N @ excess_N / w_N.sum())}, groups, resamples=2000, seed=1
    )["x"]
    assert interval["low"] is not None
    assert interval["high"] is not None
    spread = (interval["high"] - interval["low"]) / (2 * 1.96)
    assert candidates["platt"].standard_error == pytest.approx(spread, rel=0.1)


def test_a_method_that_is_asked_for_is_taken_and_the_others_are_shown() -> None:
    chosen = choose(bent(1500), method="platt").calibration
    assert chosen.method == "platt"
    assert chosen.candidates["platt"].excess > chosen.candidates["platt"].standard_error


def test_before_is_under_the_calibration_in_use() -> None:
    data = overconfident(600)
    first = choose(data).calibration
    again = choose(data, replaces=first).calibration
    assert again.replaces == "f00"
    assert again.log_loss_before == pytest.approx(first.log_loss_after, abs=0.01)
    assert again.log_loss_after == first.log_loss_after


def test_the_reliability_of_two_labels_is_the_seconds_of_more_the_highest_ones() -> None:
    two = choose(overconfident(900))
    bins = two.calibration.reliability_after
    assert sum(b.n for b in bins) == 900
    assert bins[0].mean < 0.2 < 0.8 < bins[-1].mean
    gap = sum(b.n * abs(b.mean - b.share) for b in bins) / 900
    before = two.calibration.reliability_before
    assert gap < sum(b.n * abs(b.mean - b.share) for b in before) / 900
    three = choose(overconfident(900, n_labels=3), ABC).calibration
    assert min(b.mean for b in three.reliability_after) > 1 / 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "isotonic", "labels": ABC, "n_labels": 3}, "'isotonic' needs a model of two"),
        ({"method": "length", "tokens": 7}, "'length' needs texts of different lengths"),
        ({"groups": ["one"] * 60}, "one group; it needs two"),
        ({"labels": ("a", "b", "c")}, "no example of c"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: dict[str, Any], message: str) -> None:
    z_NC, tokens_N, labels_N = overconfident(60, n_labels=change.pop("n_labels", 2))
    if (tokens := change.pop("tokens", None)) is not None:
        tokens_N[:] = tokens
    with pytest.raises(DataError, match=message):
        choose((z_NC, tokens_N, labels_N), change.pop("labels", AB), **change)


# -- on disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["platt", "length", "isotonic"])
def test_every_kind_survives_writing_and_reading_to_the_last_bit(
    method: Method, tmp_path: Path
) -> None:
    z_NC, tokens_N, labels_N = overconfident(400, exponent=0.5)
    fitted = choose((z_NC, tokens_N, labels_N), method=method).calibration
    write_json(tmp_path / "calibration.json", fitted)
    read = read_calibration(tmp_path / "calibration.json").of(None)
    assert read is not None
    assert read == fitted
    assert read.log_odds_NC(z_NC, tokens_N).tobytes() == (
        fitted.log_odds_NC(z_NC, tokens_N).tobytes()
    )


def test_a_calibration_of_format_1_gives_the_numbers_it_always_gave(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(FORMAT_1)
    z_NC = np.random.default_rng(0).normal(scale=4, size=(1000, 2)).astype(np.float32)
    tokens_N = np.arange(1000)
    fitted = read_calibration(path)
    x_NC = z_NC.astype(np.float64) * [0.8880233177829865] + [0.0, 0.034666445478447654]
    lead_N = (x_NC[:, 1] - x_NC[:, 0]).astype(np.float32)
    assert fitted.log_odds(z_NC, tokens_N, [1]).tobytes() == lead_N.tobytes()
    p_N = np.exp(-np.logaddexp(0.0, -lead_N.astype(np.float64))).astype(np.float32)
    assert fitted.probabilities_NC(z_NC, tokens_N)[:, 1].tobytes() == p_N.tobytes()
    assert (fitted.method, fitted.candidates, fitted.brier_before) == ("platt", {}, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "isotonic"},
        {"method": "length"},
        {"scale": [1.0]},
        {"method": "isotonic", "isotonic": {"log_odds": [0, 1], "probability": [0.5]}},
        {"method": "isotonic", "isotonic": {"log_odds": [0, 1], "probability": [0.5, 1.0]}},
        {"method": "isotonic", "isotonic": {"log_odds": [0, 1], "probability": [0.5, 0.4]}},
        {"method": "isotonic", "isotonic": {"log_odds": [1, 0], "probability": [0.4, 0.5]}},
        {"isotonic": {"log_odds": [0, 1], "probability": [0.4, 0.5]}},
        {"format": 3},
    ],
    ids=str,
)
def test_a_map_that_does_not_hang_together_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    whole = Calibration.model_validate_json(FORMAT_1).model_dump(mode="json")
    write_json(tmp_path / "calibration.json", whole | changes)
    with pytest.raises(ArtefactError, match="not a calibration"):
        read_calibration(tmp_path / "calibration.json")
