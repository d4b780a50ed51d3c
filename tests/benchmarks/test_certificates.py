"""benchmarks/policies/certificates.py, in short, and what is stored of the long run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.policies import certificates


@pytest.mark.parametrize("max_fpr", [0.01, 0.2])
def test_the_rates_that_are_held_against_the_promise_are_those_of_the_draws(max_fpr: float) -> None:
    rng, n = np.random.default_rng(1), 40_000
    for name, law in certificates.laws(max_fpr).items():
        score_N = law.draw(rng, n)
        for t in (*np.quantile(score_N, [0.5, 0.9]), np.sort(score_N)[-500] + 1e-4):
            rate = law.rate(float(t))
            flagged_N = (score_N > t) | (score_N == np.inf)
            assert abs(flagged_N.mean() - rate) <= 4 * np.sqrt(0.25 / n), (name, t)


def test_certifying_whole_and_by_the_rule_alone_agree() -> None:
    runs = list(certificates.cascade_thresholds(certificates.CASCADE_SETTING, 6))
    # none may be flagged here, so the loosest threshold stands at the largest score
    assert certificates.allowed_false_positives(*certificates.CASCADE_SETTING) == 0
    assert all(certified is None or certified > observed for certified, observed in runs)
    first_N, second_N = np.random.default_rng(1).logistic(size=(2, 400_000))
    passed_N = (first_N > certificates.LOW) & (first_N < certificates.HIGH)
    for t in (-1.0, 2.0, 5.0):
        drawn = np.where(passed_N, second_N > t, first_N > t).mean()
        rate = certificates.cascade_rate(t) - passed_N.mean() * certificates.FAILS
        assert rate == pytest.approx(drawn, abs=0.003)


def test_the_stored_run_keeps_the_promise() -> None:
    record = json.loads(certificates.RESULTS.read_text("utf-8"))
    assert record["runs"] == certificates.RUNS == 2000
    laws = {*certificates.laws(0.01), "cascade"}
    assert {row["law"] for row in record["rows"]} == laws
    for row in record["rows"]:
        assert row["broken"] <= row["limit"] < row["promised"] + 0.03, row
    # and is not slack: scores without ties break it as often as the exact binomial says
    for row in record["rows"]:
        if row["law"] == "continuous":
            error = 3 * np.sqrt(row["exact"] * (1 - row["exact"]) / record["runs"])
            assert abs(row["broken"] - row["exact"]) <= error, row
