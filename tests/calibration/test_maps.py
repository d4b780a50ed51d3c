"""Logits become calibrated log-odds, as independent formulas say they must."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from guardkit.calibration.fit import fit_calibration
from guardkit.calibration.maps import (
    Calibration,
    calibration_file,
    expected_calibration_error,
    read_calibration,
)
from guardkit.errors import ArtefactError, DataError
from guardkit.model.artefact import write_json

ABC = ("a", "b", "c")


def calibration(
    labels: Sequence[str] = ("neg", "pos"),
    *,
    task: Literal["multiclass", "multilabel"] = "multiclass",
    scale: Sequence[float] | None = None,
    bias: Sequence[float] | None = None,
    prior: Sequence[float] | None = None,
) -> Calibration:
    """Return a calibration that changes nothing, but for what is said."""
    n = len(labels)
    return Calibration(
        task=task,
        labels=list(labels),
        scale=list(scale or [1.0] * n),
        bias=list(bias or [0.0] * n),
        prior=list(prior or [1 / n] * n),
        n=100,
        data="0" * 64,
        ece_before=0.0,
        ece_after=0.0,
        log_loss_before=0.0,
        log_loss_after=0.0,
    )


def softmax(z_NC: np.ndarray) -> np.ndarray:
    p_NC: np.ndarray = np.exp(z_NC - z_NC.max(1, keepdims=True))
    return p_NC / p_NC.sum(1, keepdims=True)


def ones(logits_NC: np.ndarray) -> np.ndarray:
    """Return a token for each text, for maps that do not ask."""
    return np.ones(len(logits_NC), np.int64)


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def draw(
    n: int, scale: float, bias: list[float], seed: int = 0, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels drawn from softmax(scale * logits + bias)."""
    generator = np.random.default_rng(seed)
    z_NC = generator.normal(scale=spread, size=(n, len(bias))).astype(np.float32)
    cumulative_NC = softmax(z_NC * scale + bias).cumsum(1)
    labels_N = (generator.random((n, 1)) > cumulative_NC).sum(1)
    return z_NC, labels_N.clip(max=len(bias) - 1).astype(np.int64)


# -- fitting ---------------------------------------------------------------------------------


def test_two_labels_are_fitted_as_logistic_regression_on_platts_targets() -> None:
    z_NC, labels_N = draw(300, 2.0, [0.0, 0.7])
    fitted = fit_calibration(z_NC, labels_N, ["neg", "pos"], data="")
    # each text once as positive and once as negative, weighted by its smoothed target
    n_pos = labels_N.sum()
    n_neg = len(labels_N) - n_pos
    target_N = np.where(labels_N == 1, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    lead = (z_NC[:, 1] - z_NC[:, 0]).astype(np.float64)[:, None]
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.concatenate([lead, lead]),
        np.repeat([1, 0], len(lead)),
        sample_weight=np.concatenate([target_N, 1 - target_N]),
    )
    assert fitted.scale == pytest.approx([reference.coef_[0, 0]] * 2, rel=1e-3)
    bias = fitted.bias[1] - fitted.bias[0]
    assert bias == pytest.approx(reference.intercept_[0], abs=1e-3)


@pytest.mark.parametrize(
    ("scale", "bias"), [(0.5, [0.0, -1.0]), (3.0, [0.0, 0.8, -0.6]), (1.0, [0.0, 0.0, 0.0])]
)
def test_a_known_map_is_recovered(scale: float, bias: list[float]) -> None:
    z_NC, labels_N = draw(40_000, scale, bias)
    fitted = fit_calibration(z_NC, labels_N, ABC[: len(bias)], data="")
    assert fitted.scale == pytest.approx([scale] * len(bias), rel=0.05)
    assert np.subtract(fitted.bias, fitted.bias[0]) == pytest.approx(bias, abs=0.06)


def test_no_nearby_map_fits_better() -> None:
    z_NC, labels_N = draw(2_000, 1.7, [0.0, 0.5, -1.0])
    fitted = fit_calibration(z_NC, labels_N, ABC, data="")
    counts_C = np.bincount(labels_N)
    own_N = ((counts_C + 1) / (counts_C + 3))[labels_N]
    target_NC = np.repeat(((1 - own_N) / 2)[:, None], 3, 1)
    target_NC[np.arange(len(labels_N)), labels_N] = own_N

    def loss(scale: float, bias_C: np.ndarray) -> float:
        return float(-(target_NC * np.log(softmax(z_NC * scale + bias_C))).sum(1).mean())

    best = loss(fitted.scale[0], np.array(fitted.bias))
    for step in (-0.02, 0.02):
        assert loss(fitted.scale[0] + step, np.array(fitted.bias)) > best
        for label in range(3):
            assert loss(fitted.scale[0], np.array(fitted.bias) + step * np.eye(3)[label]) > best


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_unit_of_the_logits_does_not_matter(unit: float) -> None:
    z_NC, labels_N = draw(2_000, 2.0, [0.0, 0.5])
    plain = fit_calibration(z_NC, labels_N, ["a", "b"], data="").log_odds_NC(z_NC, ones(z_NC))
    scaled = (z_NC * unit).astype(np.float32)
    again = fit_calibration(scaled, labels_N, ["a", "b"], data="").log_odds_NC(scaled, ones(scaled))
    assert again == pytest.approx(plain, abs=5e-3)


@pytest.mark.parametrize("n", [4, 40, 4000])
def test_separable_data_gives_a_finite_map_no_surer_than_its_size_allows(n: int) -> None:
    labels_N = np.arange(n) % 2
    z_NC = np.where(np.eye(2)[labels_N] == 1, 50.0, -50.0).astype(np.float32)
    fitted = fit_calibration(z_NC, labels_N, ["a", "b"], data="")
    p_N = 1 / (1 + np.exp(-fitted.log_odds_NC(z_NC, ones(z_NC))[np.arange(n), labels_N]))
    assert p_N == pytest.approx(np.full(n, (n / 2 + 1) / (n / 2 + 2)), abs=1e-3)


def test_logits_that_say_nothing_give_the_prior() -> None:
    labels_N = np.array([0] * 300 + [1] * 100)
    z_NC = np.zeros((400, 2), np.float32)
    fitted = fit_calibration(z_NC, labels_N, ["a", "b"], data="")
    p_NC = 1 / (1 + np.exp(-fitted.log_odds_NC(z_NC, ones(z_NC))))
    assert p_NC[0] == pytest.approx([0.75, 0.25], abs=0.01)


def test_a_classifier_that_is_wrong_throughout_is_not_turned_round() -> None:
    z_NC, labels_N = draw(2_000, -3.0, [0.0, 0.0])
    fitted = fit_calibration(z_NC, labels_N, ["a", "b"], data="")
    assert 0 < fitted.scale[0] < 0.1


def test_calibration_lowers_the_error_of_an_overconfident_classifier_and_says_so() -> None:
    z_NC, labels_N = draw(5_000, 0.3, [0.0, 0.4, 0.0], spread=4.0)
    fitted = fit_calibration(z_NC, labels_N, ABC, data="f00")
    assert fitted.ece_after < 0.03 < 0.1 < fitted.ece_before
    assert fitted.log_loss_after < fitted.log_loss_before
    assert (fitted.n, fitted.data, fitted.labels) == (5_000, "f00", list(ABC))
    assert fitted.prior == pytest.approx(np.bincount(labels_N) / 5_000)


def test_a_label_without_an_example_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="no example of b, c; it needs every label"):
        fit_calibration(np.zeros((2, 3), np.float32), np.zeros(2, np.int64), ABC, data="")


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    p_NC = np.array([[0.2, 0.8]] * 4 + [[0.6, 0.4]] * 4)
    labels_N = np.array([1, 1, 1, 0, 0, 0, 1, 1])
    expected = (4 * abs(0.8 - 0.75) + 4 * abs(0.6 - 0.5)) / 8
    assert expected_calibration_error(p_NC, labels_N, bins=2) == pytest.approx(expected)


# -- using -----------------------------------------------------------------------------------


def test_every_label_gets_its_log_odds_against_all_the_others() -> None:
    z_NC, _ = draw(50, 1.0, [0.0] * 3)
    fitted = calibration(ABC, scale=[1.5] * 3, bias=[0.0, 1.0, -1.0])
    p_NC = softmax(z_NC * 1.5 + [0.0, 1.0, -1.0])
    assert fitted.log_odds_NC(z_NC, ones(z_NC)) == pytest.approx(logit(p_NC), abs=1e-5)
    assert fitted.log_odds_NC(z_NC, ones(z_NC)).dtype == np.float32


@pytest.mark.parametrize("positive", [[0], [2], [0, 1], [2, 1]])
def test_a_set_of_labels_gets_the_log_odds_of_the_sum_of_their_probabilities(
    positive: list[int],
) -> None:
    z_NC, _ = draw(50, 1.0, [0.0] * 3)
    fitted = calibration(ABC, scale=[1.5] * 3, bias=[0.0, 1.0, -1.0])
    p_N = softmax(z_NC * 1.5 + [0.0, 1.0, -1.0])[:, positive].sum(1)
    assert fitted.log_odds(z_NC, ones(z_NC), positive) == pytest.approx(logit(p_N), abs=1e-5)


def test_log_odds_stay_exact_where_probabilities_would_round_to_one() -> None:
    z_NC = np.array([[-400.0, 400.0]], np.float32)
    assert calibration().log_odds(z_NC, ones(z_NC), [1]) == pytest.approx([800.0])
    assert calibration().log_odds(z_NC, ones(z_NC), [0]) == pytest.approx([-800.0])


@pytest.mark.parametrize("prevalence", [0.001, 0.3, 0.9])
def test_another_prevalence_moves_the_log_odds_as_bayes_says(prevalence: float) -> None:
    """Two Gaussians with known densities: the posterior under any prior is known exactly."""
    prior = 0.25
    x_N = np.linspace(-4, 5, 40)
    likelihood_N, other_N = np.exp(-((x_N - 2) ** 2) / 2), np.exp(-(x_N**2) / 2)

    def posterior(share: float) -> np.ndarray:
        joint_N = share * likelihood_N
        return joint_N / (joint_N + (1 - share) * other_N)

    logits_NC = np.stack([np.zeros(40), logit(posterior(prior))], 1).astype(np.float32)
    fitted = calibration(prior=[1 - prior, prior])
    moved_N = fitted.log_odds(logits_NC, ones(logits_NC), [1], prevalence)
    assert 1 / (1 + np.exp(-moved_N)) == pytest.approx(posterior(prevalence), rel=1e-4)
    assert fitted.prior_log_odds([1], prevalence) == pytest.approx(logit(np.array(prevalence)))


def test_the_prior_of_a_set_of_labels_is_the_sum_of_theirs() -> None:
    fitted = calibration(ABC, prior=[0.5, 0.3, 0.2])
    assert fitted.prior_log_odds([1, 2]) == pytest.approx(0.0)
    assert fitted.prior_log_odds([2]) == pytest.approx(np.log(0.25))
    z_NC, _ = draw(10, 1.0, [0.0] * 3)
    unmoved = fitted.log_odds(z_NC, ones(z_NC), [1, 2], 0.5)
    assert unmoved == pytest.approx(fitted.log_odds(z_NC, ones(z_NC), [1, 2]))


def test_independent_labels_keep_their_own_maps_and_the_largest_stands_for_a_set() -> None:
    fitted = calibration(
        ABC, task="multilabel", scale=[1.0, 2.0, 3.0], bias=[0.1, 0.2, 0.3], prior=[0.1, 0.2, 0.4]
    )
    z_NC, _ = draw(20, 1.0, [0.0] * 3)
    own_NC = z_NC * [1.0, 2.0, 3.0] + [0.1, 0.2, 0.3]
    assert fitted.log_odds_NC(z_NC, ones(z_NC)) == pytest.approx(own_NC, abs=1e-5)
    assert fitted.log_odds(z_NC, ones(z_NC), [0, 2]) == pytest.approx(
        own_NC[:, [0, 2]].max(1), abs=1e-5
    )
    assert fitted.prior_log_odds([0, 2]) == pytest.approx(np.log(0.4 / 0.6))


def test_a_row_that_could_not_be_scored_stays_unknown() -> None:
    logits_NC = np.array([[np.nan, np.nan], [0.0, 1.0]], np.float32)
    for log_odds in (
        calibration().log_odds(logits_NC, ones(logits_NC), [1]),
        calibration().log_odds_NC(logits_NC, ones(logits_NC)),
    ):
        assert np.isnan(log_odds[0]).all()
        assert np.isfinite(log_odds[1]).all()


# -- on disk ---------------------------------------------------------------------------------


def test_a_calibration_survives_writing_and_reading(tmp_path: Path) -> None:
    z_NC, labels_N = draw(500, 1.3, [0.0, 0.5])
    fitted = fit_calibration(z_NC, labels_N, ["a", "b"], data="f00")
    write_json(tmp_path / "calibration.json", fitted)
    assert read_calibration(tmp_path / "calibration.json").of(None) == fitted


def test_the_calibrations_of_several_scorers_are_in_one_file(tmp_path: Path) -> None:
    own, cheap = (
        fit_calibration(*draw(500, scale, [0.0, 0.5]), ["a", "b"], data="f00")
        for scale in (1.3, 0.4)
    )
    path = tmp_path / "calibration.json"
    write_json(path, calibration_file(own, {"cheap": cheap}))
    read = read_calibration(path)
    assert (read.of(None), read.of("cheap"), read.of("dear")) == (own, cheap, None)
    write_json(path, calibration_file(own, {}))
    assert "scorers" not in path.read_text("utf-8")


@pytest.mark.parametrize("content", ["", "{}", '{"method": "isotonic"}'])
def test_a_damaged_calibration_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(ArtefactError, match=r"calibration\.json: not a calibration"):
        read_calibration(path)


def test_a_calibration_is_never_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Calibration.__setattr__(calibration(), "scale", [2.0, 2.0])
