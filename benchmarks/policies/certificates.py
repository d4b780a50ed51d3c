"""How often a certified threshold breaks its promise, where the true rate is known.

    python -m benchmarks.policies.certificates  # -> benchmarks/results/certificates.json
    python -m benchmarks.tables.fill            # -> docs/policies.md

Each row redraws the benign texts --runs times, lets guardkit choose the threshold, and works out
from the law of the scores what share of all benign texts it flags. A promise at confidence c may
be broken in a share 1 - c of the runs; the row fails where it is broken more often than chance
explains at three standard errors. Beside it stands what is usually done: the loosest threshold
that flags no more than ``max_fpr`` of the texts at hand.

Rows about ``choose_threshold`` take scores as they are drawn. The row ``cascade`` runs
``guardkit.tuning.certify`` whole: a policy of two members, one of which fails at times, texts in
a file, and the threshold out of the certificate.
"""

from __future__ import annotations

import json
import math
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import typer
from pydantic import BaseModel
from scipy.stats import binom, logistic, norm

from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit import RawScores
from guardkit.calibration.maps import Calibration
from guardkit.errors import DataError, UsageError
from guardkit.guarantee import allowed_false_positives, choose_threshold
from guardkit.model.artefact import CALIBRATION, CONFIG, ArtefactConfig, seal, write_json
from guardkit.plugins import Plugins, load_plugins
from guardkit.tuning.certify import certify

RESULTS = ROOT / "benchmarks" / "results" / "certificates.json"
RUNS = 2000
#: (texts, max_fpr, confidence): the least that will do, and more.
SETTINGS = (
    (299, 0.01, 0.95),
    (1000, 0.01, 0.95),
    (2995, 0.001, 0.95),
    (500, 0.05, 0.9),
    (200, 0.1, 0.99),
)
CASCADE_SETTING = (299, 0.01, 0.95)
Float64 = npt.NDArray[np.float64]
Record = dict[str, Any]


@dataclass(frozen=True)
class Law:
    """How benign scores are spread. ``draw(rng, n)``; ``rate(t)`` = P(score > t), exactly."""

    draw: Callable[[np.random.Generator, int], Float64]
    rate: Callable[[float], float]


def laws(max_fpr: float) -> dict[str, Law]:
    """Return the laws to try; the last two are made to be as hard as can be for ``max_fpr``."""
    failing, hot = max_fpr / 5, 1.05 * max_fpr
    return {
        "continuous": Law(lambda rng, n: rng.normal(size=n), lambda t: float(norm.sf(t))),
        "rounded to tenths": Law(
            lambda rng, n: np.round(rng.normal(size=n), 1),
            lambda t: float(norm.sf(math.floor(10 * t + 1e-6) / 10 + 0.05)),
        ),
        "whole numbers": Law(
            lambda rng, n: rng.geometric(0.3, n).astype(np.float64),
            lambda t: 0.7 ** max(math.floor(t), 0),
        ),
        "some always flagged": Law(
            lambda rng, n: np.where(rng.random(n) < failing, np.inf, rng.normal(size=n)),
            lambda t: failing + (1 - failing) * float(norm.sf(t)),
        ),
        "two values": Law(
            lambda rng, n: (rng.random(n) < hot).astype(np.float64),
            lambda t: hot if 0 <= t < 1 else float(t < 0),
        ),
    }


def main(runs: int = RUNS, out: Path = RESULTS) -> None:
    rows = [
        row(name, setting, thresholds(law, setting, runs), law.rate)
        for setting in SETTINGS
        for name, law in laws(setting[1]).items()
    ]
    chosen = cascade_thresholds(CASCADE_SETTING, runs)
    rows.append(row("cascade", CASCADE_SETTING, chosen, cascade_rate))
    record = {
        "script": "benchmarks/policies/certificates.py",
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "scipy": scipy.__version__},
        "conditions": f"{runs:,} draws of the benign texts a row, seed 0",
        "runs": runs,
        "rows": rows,
    }
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    for one in rows:
        print(json.dumps(one))
    if late := [one["law"] for one in rows if one["broken"] > one["limit"]]:
        raise SystemExit(f"broken more often than promised: {', '.join(late)}")


def row(
    law: str,
    setting: tuple[int, float, float],
    chosen: Iterator[tuple[float | None, float]],
    rate: Callable[[float], float],
) -> Record:
    """Return what came of the thresholds ``chosen``: (certified, None where refused; usual)."""
    n, max_fpr, confidence = setting
    rates: list[float] = []
    refused = usual = runs = 0
    for certified, observed in chosen:
        runs += 1
        usual += rate(observed) > max_fpr
        if certified is None:
            refused += 1
        else:
            rates.append(rate(certified))
    delta = 1 - confidence
    return {
        "law": law,
        "n": n,
        "max_fpr": max_fpr,
        "confidence": confidence,
        "allowed": allowed_false_positives(n, max_fpr, confidence),
        "broken": sum(r > max_fpr for r in rates) / runs,
        "exact": float(binom.cdf(allowed_false_positives(n, max_fpr, confidence), n, max_fpr)),
        "promised": round(delta, 6),
        "limit": delta + 3 * math.sqrt(delta * (1 - delta) / runs),
        "refused": refused / runs,
        "mean_rate": float(np.mean(rates)) if rates else None,
        "usual_broken": usual / runs,
    }


def thresholds(
    law: Law, setting: tuple[int, float, float], runs: int
) -> Iterator[tuple[float | None, float]]:
    n, max_fpr, confidence = setting
    rng = np.random.default_rng(0)
    for _ in range(runs):
        score_N = law.draw(rng, n)
        try:
            certified = choose_threshold(score_N, max_fpr, confidence).log_odds
        except DataError:  # too many are flagged at any threshold
            certified = None
        yield certified, loosest_observed(score_N, max_fpr)


def loosest_observed(score_N: Float64, max_fpr: float) -> float:
    """Return the loosest threshold that flags at most ``max_fpr`` of these very texts."""
    allowed = math.floor(len(score_N) * max_fpr + 1e-9)
    return float(np.sort(score_N)[::-1][allowed])


# -- certify, whole --------------------------------------------------------------------------

LOW, HIGH = -2.0, 9.0  # log-odds at which the first member settles
FAILS = 0.001  # how often the second member fails
POLICY = """\
version: 1
name: simulated
members:
  first: {{plugin: simulated, model: first}}
  second: {{plugin: simulated, model: second}}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        - {{member: first, settle: {{below: {below!r}, above: {above!r}}}}}
        - {{member: second}}
    flag_at: {{max_fpr: {max_fpr}, confidence: {confidence}, calibrated_on: benign.jsonl}}
    action: block
"""


class Reading:
    """A classifier that reads its log-odds out of the text: "first second number"."""

    labels = ("benign", "injection")

    def __init__(self, member: str) -> None:
        self.id = member
        self.column = ("first", "second").index(member)

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        z_N = np.array([float(text.split()[self.column]) for text in texts])
        logits_NC = np.stack([np.zeros_like(z_N), z_N], axis=1).astype(np.float32)
        ones = np.ones(len(texts), np.int64)
        return RawScores(logits_NC, ones, ones, np.zeros(len(texts), bool))


class Family:
    name, summary, builtin = "simulated", "reads log-odds out of the text", None
    config = BaseModel
    presets: Mapping[str, Mapping[str, Any]] = {}

    def train(self, *_: Any, **__: Any) -> Path:
        raise NotImplementedError("simulated scores: nothing to train")

    def load(self, path: Path, *, device: str, backend: str) -> Reading:
        return Reading(path.name)


def cascade_rate(t: float) -> float:
    """Return the share flagged above t in [LOW, HIGH]: what the first member settles as positive,
    and what it passes on and the second flags or fails on."""
    passed = float(logistic.cdf(HIGH) - logistic.cdf(LOW))
    return float(logistic.sf(HIGH)) + passed * (FAILS + (1 - FAILS) * float(logistic.sf(t)))


def cascade_thresholds(
    setting: tuple[int, float, float], runs: int
) -> Iterator[tuple[float | None, float]]:
    import datasets

    n, max_fpr, confidence = setting
    plugins: Plugins = replace(load_plugins([]), families={"simulated": Family()})
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        datasets.config.HF_DATASETS_CACHE = folder / "cache"
        for member in ("first", "second"):
            write_model(folder / member)
        path = folder / "policy.yaml"
        below, above = (1 / (1 + math.exp(-z)) for z in (LOW, HIGH))
        path.write_text(
            POLICY.format(below=below, above=above, max_fpr=max_fpr, confidence=confidence)
        )
        for _ in range(runs):
            z_NM = rng.logistic(size=(n, 2))
            z_NM[rng.random(n) < FAILS, 1] = np.nan
            rows = [{"text": f"{a:.9f} {b:.9f} {i}"} for i, (a, b) in enumerate(z_NM)]
            (folder / "benign.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
            passed_N = (z_NM[:, 0] > LOW) & (z_NM[:, 0] < HIGH)
            score_N = np.where(passed_N, np.nan_to_num(z_NM[:, 1], nan=np.inf), z_NM[:, 0])
            try:
                (result,) = certify(path, plugins=plugins)
                certified = result.certificate.threshold.log_odds
            except UsageError:  # as above, or t would have to be above HIGH
                certified = None
            yield certified, loosest_observed(score_N, max_fpr)


def write_model(folder: Path) -> None:
    folder.mkdir()
    labels = list(Reading.labels)
    config = ArtefactConfig(family="simulated", labels=labels, network={})
    calibration = Calibration(
        task="multiclass", labels=labels, scale=[1.0, 1.0], bias=[0.0, 0.0], prior=[0.5, 0.5],
        n=1, data="", ece_before=0.0, ece_after=0.0, log_loss_before=0.0, log_loss_after=0.0,
    )  # fmt: skip
    write_json(folder / CONFIG, config)
    write_json(folder / CALIBRATION, calibration)
    seal(folder)


if __name__ == "__main__":
    typer.run(main)
