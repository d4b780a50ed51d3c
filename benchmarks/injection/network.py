"""What the network adds to the n-grams beside it, on sources that nobody trained on.

    python -m benchmarks.injection.network measure MODEL PATH/TO/injection PATH/TO/injection-more
    python -m benchmarks.tables.fill                                  # -> docs/results/network.md

MODEL is a trained mdlm with n-grams beside it, builtin:mdlm/injection or a folder. Each of its
parts is a detector of its own here, with a threshold of its own: the least that at most 1% of the
benign validation texts exceed. Which sets chose something, and which report, is in network.md.
"""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from ruamel.yaml import YAML
from scipy.special import logit

import guardkit
from benchmarks.injection.generalisation import judged
from benchmarks.injection.sets import DECIDING, DEVELOPMENT, REPORTING
from benchmarks.lib.detection import (
    FPR,
    RESAMPLES,
    SEED,
    attacks,
    benign_validation,
    threshold_of,
)
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.examples import load_examples
from guardkit.metrics import bootstrap
from guardkit.model.loaded import Model
from guardkit.types import BoolArray, Examples, FloatArray

RESULTS = ROOT / "benchmarks" / "results" / "network.json"
POLICY = ROOT / "policies" / "default.yaml"
FROZEN = ROOT / "benchmarks" / "injection" / "frozen"
#: Texts scored at once.
BATCH = 128
Record = dict[str, Any]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def parts() -> None:
    """What the network adds to the n-grams beside it."""


@app.command()
def measure(
    model: str,
    injection: Path,
    injection_more: Path,
    reporting: bool = True,
    out: Path = RESULTS,
) -> None:
    """Measure each part of MODEL. With --no-reporting on development data alone."""
    sets = {name: load_examples(f"{injection}?split={name}")[name] for name in DEVELOPMENT}
    if reporting:
        sets |= {n: load_examples(f"{injection_more}?split={n}")[n] for n in REPORTING}
        sets |= {
            f"frozen_{path.stem}": next(iter(load_examples(str(path)).values()))
            for path in sorted(FROZEN.glob("*.jsonl"))
        }
    benign = benign_validation(injection)
    parts = parts_of(guardkit.load_model(model, device="cpu"))
    bounds, deployed = rung_of(POLICY)
    log_odds = {each: with_rung(together(parts, of.texts), bounds) for each, of in sets.items()}
    of_benign = with_rung(together(parts, benign), bounds)
    thresholds = {name: threshold_of(z_N) for name, z_N in of_benign.items()}
    found: dict[str, Record] = {}
    scores: dict[str, dict[str, FloatArray]] = {}
    for name, threshold in thresholds.items():
        scores[name] = {each: own[name] - threshold for each, own in log_odds.items()}
        found[name] = {
            "threshold": threshold,
            "sets": {each: judged(scores[name][each], 0.0, of) for each, of in sets.items()},
            "deployed": {
                each: judged(log_odds[each][name], deployed, of) for each, of in sets.items()
            },
        }
        print(name, json.dumps(_shown(found[name]["sets"])), flush=True)
    record = {
        "script": "benchmarks/injection/network.py measure",
        "commit": commit(), "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "model": guardkit.load_model(model, device="cpu").hash,
        "conditions": f"thresholds at {FPR:.0%} of {len(benign):,} benign validation texts; "
        f"bootstrap of {RESAMPLES} over groups of near-duplicates, seed {SEED}",
        "sizes": {
            name: {"injection": int(attacks(of).sum()), "benign": int((~attacks(of)).sum())}
            for name, of in sets.items()
        },
        "parts": found,
        "settled_by_ngrams": {
            each: float(settled(own["n-grams alone"], bounds).mean())
            for each, own in log_odds.items()
        },
        "loss_by_rung": {
            name: gain(sets, scores["default policy"], scores["both"], [name])
            for name, of in sets.items() if attacks(of).any()
        },
        "gain_of_network": {
            "deciding": gain(sets, scores["both"], scores["n-grams alone"], DECIDING),
            **{
                name: gain(sets, scores["both"], scores["n-grams alone"], [name])
                for name, of in sets.items() if attacks(of).any()
            },
        },
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record["gain_of_network"], indent=1))


def parts_of(model: Model) -> Mapping[str, Model]:
    """Return the n-grams, the network and both as models; calibration of both serves the network
    too, whose ranking it does not change."""
    classifier: Any = copy.copy(model.classifier)
    classifier._ngrams = None
    return {
        "n-grams alone": guardkit.load_model(model.path, scorer="ngrams", device="cpu"),
        "network alone": replace(model, classifier=classifier),
        "both": model,
    }


def together(models: Mapping[str, Model], texts: Sequence[str]) -> dict[str, FloatArray]:
    """Return each model's log-odds of an attack; what they have in common is computed once."""
    found: dict[str, list[FloatArray]] = {name: [] for name in models}
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        shared: dict[Any, Any] = {}
        for name, model in models.items():
            scored = model.score(list(batch), shared=shared)
            assert not scored.errors, scored.errors
            log_odds_NC = model.calibrated().log_odds_NC(scored.logits_NC, scored.tokens_N)
            found[name].append(log_odds_NC[:, 1 - (model.config.neutral_index or 0)])
    return {name: np.concatenate(batches) for name, batches in found.items()}


def rung_of(policy: Path) -> tuple[tuple[float, float], float]:
    """Return the log-odds that a policy's first stage settles below and above, and those that it
    flags at."""
    category = YAML(typ="safe").load(policy.read_text("utf-8"))["categories"]["injection"]
    settle = category["decide"]["cascade"][0]["settle"]
    low, high, flag = (
        float(logit(p))
        for p in (settle["below"], settle["above"], category["flag_at"]["probability"])
    )
    return (low, high), flag


def settled(ngrams_N: FloatArray, bounds: tuple[float, float]) -> BoolArray:
    return (ngrams_N <= bounds[0]) | (ngrams_N >= bounds[1])


def with_rung(
    parts: Mapping[str, FloatArray], bounds: tuple[float, float]
) -> dict[str, FloatArray]:
    """Return the parts, and the default policy: n-grams where they settle a text, or both."""
    ngrams_N, both_N = parts["n-grams alone"], parts["both"]
    return {
        **parts,
        "default policy": np.where(settled(ngrams_N, bounds), ngrams_N, both_N),
    }


def gain(
    sets: Mapping[str, Examples],
    ours: Mapping[str, FloatArray],
    others: Mapping[str, FloatArray],
    names: Sequence[str],
) -> dict[str, float | None]:
    """Return how much larger the recall of ``ours`` is, the mean over the sets ``names``, with its
    paired interval. Scores are above their threshold where positive."""
    attack_N = np.concatenate([attacks(sets[name]) for name in names])
    set_N = np.repeat(np.arange(len(names)), [len(sets[name]) for name in names])
    groups = [
        f"{name} {group}"
        for name in names
        for group in sets[name].groups or map(str, range(len(sets[name])))
    ]
    more_N = np.concatenate([(ours[n] > 0).astype(float) - (others[n] > 0) for n in names])

    def difference(weight_N: npt.NDArray[np.float64]) -> dict[str, float]:
        own_N = weight_N * attack_N
        by_set = [
            float((own_N * more_N)[set_N == s].sum() / max(own_N[set_N == s].sum(), 1e-9))
            for s in range(len(names))
        ]
        return {"recall": float(np.mean(by_set))}

    return bootstrap(difference, groups, resamples=RESAMPLES, seed=SEED)["recall"]


def _shown(sets: Mapping[str, Record]) -> dict[str, dict[str, float]]:
    return {
        name: {k: round(v["value"], 3) for k, v in one.items() if v["value"] is not None}
        for name, one in sets.items()
    }


if __name__ == "__main__":
    app()
