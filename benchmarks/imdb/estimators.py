"""Every estimator of log p(text | class) on one trained network: what masks alone decide.

    python -m benchmarks.imdb.estimators MODEL_DIR PATH/TO/imdb  # -> benchmarks/results/
    python -m benchmarks.tables.fill                             # -> docs/results/estimators.md
    python -m benchmarks.tables.pictures                         # -> docs/results/estimators.svg

The same weights and texts throughout; a text gets the label of the largest logit, pooled over
its windows as the generative scorer does. --texts many stand behind the rows and their paired
gaps: half pairs that all classes share, one mask for each class alone (the rule of the
experiment that got 62%), the one pass, and what needs no network. The first --curve-texts of
them stand behind the curves of all estimators, whose every further evaluation is a pass more,
and behind early stopping.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from guardkit_mdlm.estimators import ESTIMATORS, Scheme
from guardkit_mdlm.scoring import MdlmClassifier
from guardkit_mdlm.stopping import StoppingRule, flips, pooled_spread, stop_early
from guardkit_mdlm.tokenizer import TokenIds, encode, read_tokenizer

from benchmarks.imdb.scorers import linear
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit import Examples, load_model, pool_windows
from guardkit.data.examples import load_split
from guardkit.data.hashes import texts_hash
from guardkit.data.splits import group_names
from guardkit.evaluation.measure import RESAMPLES
from guardkit.metrics import bootstrap
from guardkit.model.loaded import Model

RESULTS = ROOT / "benchmarks" / "results" / "estimators_imdb.json"
#: Evaluations per class that the curves show. A plan's first masks are a plan of fewer.
STEPS = (1, 2, 4, 8)
MOST = STEPS[-1]
#: The published rule: one Bernoulli mask for each class, drawn separately. So often repeated.
REPEATS = 3
#: H pairs beyond the curve's own that stand for all masks.
LIMIT_PAIRS = 16
#: Early stopping: pairs at most, and the share of early decisions that may differ.
STOP_PAIRS, ALPHA = 8, 0.05
CHUNK_TEXTS = 64
Float64 = npt.NDArray[np.float64]
Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A model and tokenised texts with their labels, as columns of the model's logits."""

    model: Model
    examples: Examples
    ids: Sequence[TokenIds]
    labels_N: npt.NDArray[np.int64]

    @property
    def classifier(self) -> MdlmClassifier:
        assert isinstance(self.model.classifier, MdlmClassifier)
        return self.model.classifier

    def first(self, n: int) -> Bench:
        return Bench(self.model, self.examples.select(range(n)), self.ids[:n], self.labels_N[:n])

    def correct(self, logits_NC: npt.NDArray[np.floating]) -> Float64:
        return (logits_NC.argmax(1) == self.labels_N).astype(np.float64)

    def pooled(self, logits_WC: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Pool the logits of all windows into texts', as the model does."""
        _, text_W = self.classifier.cut(self.ids)
        how, neutral = self.model.config.window_pooling, self.model.config.neutral_index
        logits = logits_WC.astype(np.float32)
        return pool_windows(logits, text_W, len(self.ids), how, neutral)

    def draws(self, scheme: Scheme) -> tuple[Float64, float]:
        """Return every draw's logits_WDC and the seconds they took, with a bar for who waits."""
        masks = "shared" if scheme.shared else "own"
        label = f"{scheme.estimator} {scheme.evaluations}, {masks} masks, {len(self.ids)} texts"
        parts, seconds = [], 0.0
        with typer.progressbar(range(0, len(self.ids), CHUNK_TEXTS), label=label) as starts:
            for start in starts:
                pieces, _ = self.classifier.cut(self.ids[start : start + CHUNK_TEXTS])
                started = time.perf_counter()
                parts.append(self.classifier.window_draws(pieces, scheme))
                seconds += time.perf_counter() - started
        return np.concatenate(parts), seconds


def main(
    model: Path,
    data: str,
    texts: int = 1000,
    curve_texts: int = 250,
    seed: int = 0,
    out: Path = RESULTS,
    picture: Path | None = None,
) -> None:
    """Measure MODEL on the test split of DATA and store the figures; PICTURE draws them too."""
    if picture:
        from benchmarks.tables import pictures
    bench = prepare(model, data, texts, seed)
    record = {
        "script": "benchmarks/imdb/estimators.py",
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "conditions": f"bootstrap of {RESAMPLES} over groups of texts (films), seed 0",
        "labels": list(bench.model.labels),
        "model": {"name": bench.model.path.name, "hash": bench.model.hash},
        "data": {
            "seed": seed, "texts": len(bench.ids), "tokens": sum(len(i) for i in bench.ids),
            "hash": texts_hash(bench.examples.texts, [str(y) for y in bench.labels_N]),
        },
        **rows(bench),
        **curves(bench.first(min(curve_texts, len(bench.ids)))),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if picture:
        pictures.estimators(record, picture)
    print(f"written: {out}")


def prepare(folder: Path, data: str, n: int, seed: int) -> Bench:
    """Load the model and ``n`` labelled texts drawn from the test split."""
    _, examples = load_split(data, None)
    labelled = np.flatnonzero(examples.labels_N >= 0)
    examples = examples.select(np.random.default_rng(seed).permutation(labelled)[:n])
    model = load_model(folder)
    columns = np.array([model.labels.index(name) for name in examples.label_names])
    ids = encode(read_tokenizer(model.path), examples.texts)
    bench = Bench(model, examples, ids, columns[examples.labels_N])
    bench.classifier.window_draws(ids[:1], Scheme())  # what is slow but once
    return bench


def rows(bench: Bench) -> Record:
    """Return accuracy and speed of each rule, and the paired gaps between them."""
    correct: dict[str, Float64] = {}
    about: dict[str, Record] = {}
    draws_WDC, seconds = bench.draws(Scheme("half_pairs", MOST))
    for n in STEPS[1:]:
        correct[f"half_pairs_{n}"] = bench.correct(bench.pooled(draws_WDC[:, : n // 2].mean(1)))
        about[f"half_pairs_{n}"] = _cost(bench, n, seconds * n / MOST)
    draws_WDC, seconds = bench.draws(Scheme("bernoulli", REPEATS, shared=False))
    repeats = [bench.correct(bench.pooled(draws_WDC[:, r])) for r in range(REPEATS)]
    correct["experiment"] = np.mean(repeats, axis=0)
    about["experiment"] = _cost(bench, 1, seconds / REPEATS) | {
        "repeats": [float(c.mean()) for c in repeats]
    }
    logits_NC, seconds = _one_pass(bench)
    correct["one_pass"] = bench.correct(logits_NC)
    about["one_pass"] = {"texts_per_s": len(bench.ids) / seconds}
    for name in ("naive_bayes", "wide"):
        logits_NC, _ = linear(bench.model.path, name).score(bench.examples.texts)
        correct[name], about[name] = bench.correct(logits_NC), {}
    best = f"half_pairs_{MOST}"
    gaps = {
        "sharing": correct[best] - correct["experiment"],
        "network": correct[best] - correct["naive_bayes"],
        "network_one_pass": correct["one_pass"] - correct["wide"],
        "second_look": correct[best] - correct["one_pass"],
    }
    found = _intervals(bench, correct | gaps)
    return {
        "rows": {name: about[name] | {"accuracy": found[name]} for name in correct},
        "gaps": {name: found[name] for name in gaps},
    }


def curves(bench: Bench) -> Record:
    """Return every estimator by evaluations, and early stopping, on texts of which many masks
    are known."""
    many_WDC, seconds = bench.draws(Scheme("half_pairs", MOST + 2 * LIMIT_PAIRS))
    limit_NC = bench.pooled(many_WDC[:, MOST // 2 :].mean(1))
    points: list[Record] = []
    correct = {"limit": bench.correct(limit_NC)}

    def point(scheme: Scheme, logits_WC: Float64, seconds: float) -> None:
        logits_NC = bench.pooled(logits_WC)
        correct[str(len(points))] = bench.correct(logits_NC)
        points.append({
            "estimator": scheme.estimator, "shared": scheme.shared,
            "evaluations": scheme.evaluations,
            "correlation": _correlation(logits_NC, limit_NC),
            **_cost(bench, scheme.evaluations, seconds),
        })  # fmt: skip

    for shared in (True, False):
        for estimator in ESTIMATORS:
            if estimator == "partition":  # a partition of fewer groups is another one
                for n in STEPS[2:]:
                    scheme = Scheme(estimator, n, shared)
                    draws_WDC, seconds = bench.draws(scheme)
                    point(scheme, draws_WDC.mean(1), seconds)
                continue
            whole = Scheme(estimator, MOST, shared)
            draws_WDC, seconds = bench.draws(whole)
            for n in STEPS:
                if not n % whole.per_draw:
                    mean_WC = draws_WDC[:, : n // whole.per_draw].mean(1)
                    point(Scheme(estimator, n, shared), mean_WC, seconds * n / MOST)
    stopping, correct["stopped"], correct["capped"] = _early_stopping(bench, many_WDC)
    found = _intervals(bench, correct)
    for number, about in enumerate(points):
        about["accuracy"] = found[str(number)]
    return {
        "curve": {
            "texts": len(bench.ids),
            "limit": {"evaluations": 2 * LIMIT_PAIRS, "accuracy": found["limit"]},
            "points": points,
        },
        "early_stopping": stopping
        | {"accuracy": found["stopped"], "capped_accuracy": found["capped"]},
    }


def _early_stopping(bench: Bench, many_WDC: Float64) -> tuple[Record, Float64, Float64]:
    """Stop each half of the texts with the spread of the other half's masks; also return which
    texts the stopped and the capped decisions get right."""
    cap = STOP_PAIRS
    draws_NPC = np.stack([bench.pooled(many_WDC[:, p]) for p in range(cap)], axis=1)
    draws_NPC = draws_NPC.astype(np.float64)
    full_NC = draws_NPC.mean(1)
    estimate_NC, pairs_N, shares = np.empty_like(full_NC), np.empty(len(full_NC)), []
    for half in (0, 1):
        own_n = np.flatnonzero(np.arange(len(full_NC)) % 2 == half)
        others = np.delete(draws_NPC, own_n, axis=0)
        rule = StoppingRule(ALPHA, cap, pooled_spread(others))
        own = draws_NPC[own_n]
        stopped = stop_early(rule, len(own), lambda rows, p, own=own: own[rows, p])
        estimate_NC[own_n], pairs_N[own_n] = stopped.estimate_NC, stopped.draws_N
        shares.append((len(own_n), *flips(stopped, full_NC[own_n], cap)))
    weights, early, flipped = zip(*shares, strict=True)
    record = {
        "alpha": ALPHA,
        "cap": 2 * cap,
        "evaluations": 2 * float(pairs_N.mean()),
        "stopped_early": float(np.average(early, weights=weights)),
        "flipped": float(np.average(flipped, weights=weights)),
    }
    return record, bench.correct(estimate_NC), bench.correct(full_NC)


def _one_pass(bench: Bench) -> tuple[npt.NDArray[np.float32], float]:
    """Return the one-pass logits_NC, features of other models included, and the seconds."""
    classifier, own = bench.classifier, bench.classifier.scorer
    classifier.scorer = "one_pass"
    started = time.perf_counter()
    pieces, text_W = classifier.cut(bench.ids)
    features_WF = classifier.window_features(bench.examples.texts, text_W)
    logits_NC = bench.pooled(classifier.window_logits(pieces, features_WF))
    seconds = time.perf_counter() - started
    classifier.scorer = own
    return logits_NC, seconds


def _cost(bench: Bench, evaluations: int, seconds: float) -> Record:
    return {"evaluations": evaluations, "texts_per_s": len(bench.ids) / seconds}


def _correlation(logits_NC: npt.NDArray[np.float32], limit_NC: npt.NDArray[np.float32]) -> float:
    """Correlate the log-ratios of each class to the first."""
    ratios = [(x_NC[:, 1:] - x_NC[:, :1]).ravel() for x_NC in (logits_NC, limit_NC)]
    return float(np.corrcoef(*ratios)[0, 1])


def _intervals(bench: Bench, values: dict[str, Float64]) -> Record:
    """Return each value's mean over texts and its interval, all from the same resamples."""
    values_RN = np.stack(list(values.values()))

    def means(weight_N: Float64) -> dict[str, float]:
        return dict(zip(values, (values_RN @ weight_N / weight_N.sum()).tolist(), strict=True))

    return bootstrap(means, group_names(bench.examples), resamples=RESAMPLES, seed=0)


if __name__ == "__main__":
    typer.run(main)
