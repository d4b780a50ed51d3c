"""Specialised domains with one command: which desk reads a medical abstract, SQL injection, spam.

    python -m benchmarks.domains.specialised prepare PATH/TO/sets  # -> build/domains/DOMAIN/
    python -m benchmarks.domains.specialised train DOMAIN PLUGIN   # mdlm, gpt2; or goes on
    python -m benchmarks.domains.specialised measure               # -> results/domains.json

PATH/TO/sets holds medical-abstracts, sqli-payloads and sms-spam, a folder each, with parquet files
of columns text and label. Both networks are as wide and deep and learn the same text, and so do
TF-IDF and NB-SVM, which ``measure`` fits itself. Near-duplicates (``data.py``) are on one
side of every split, save in sqli-random, which is there to show what that hides.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.domains.data import DOMAINS, Domain, read, split
from benchmarks.lib.baselines import fit_nbsvm, fit_tfidf
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.splits import DataSplits, group_names, load_data_splits, normalised
from guardkit.evaluation.predictions import predict_with_model
from guardkit.metrics import Measure, ProbabilityMetrics, Ranking, bootstrap, mean_of
from guardkit.model.loaded import load_model
from guardkit.types import Examples, FloatArray

BUILD = ROOT / "build" / "domains"
RESULTS = ROOT / "benchmarks" / "results" / "domains.json"
RESAMPLES, SEED = 1000, 0
#: Small enough for some minutes on one core; what is compared has the same width and depth.
SIZE = ("vocab_size=2048", "epochs=3")
OPTIONS = {
    "mdlm": (*SIZE, "hidden_dim=128", "n_blocks=2", "n_heads=2", "max_windows_per_epoch=2"),
    "gpt2": (*SIZE, "init=scratch", "width=128", "layers=2", "heads=2"),
}
SHOWN = ("accuracy", "macro_f1", "roc_auc", "recall_at_fpr_1%")
#: f(texts) -> p_NC, in the order of the training text's labels
Scorer = Callable[[Sequence[str]], FloatArray]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def prepare(sets: Path) -> None:
    """Write train.jsonl and test.jsonl of each domain; where a group goes its hash decides."""
    sources = sorted({domain.source for domain in DOMAINS.values()})
    if lacking := [x for x in sources if not any((sets / x).glob("*.parquet"))]:
        found = f"{sets}: no parquet files in {', '.join(lacking)}"
        raise typer.BadParameter(f"{found}; it has to hold {', '.join(sources)}, a folder each")
    for name, domain in DOMAINS.items():
        train, test = split(read(sets, domain), domain.most_training)
        folder = BUILD / name
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in (("train", train), ("test", test)):
            lines = (json.dumps(row.__dict__, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{part}.jsonl").write_text("".join(lines), "utf-8")
        print(f"{name}: {len(train):,} to train on, {len(test):,} to test on")


@app.command()
def train(domain: str, plugin: str) -> None:
    """Train with the project's own command; again after it was stopped, to go on."""
    chosen(domain)
    if plugin not in OPTIONS:
        raise typer.BadParameter(f"{plugin!r}: no such plugin here; {', '.join(OPTIONS)}")
    out = BUILD / domain / plugin
    if out.is_dir():
        print(f"{out}: trained before; remove it to train again")
        return
    folder = os.path.relpath(out.parent, ROOT)
    settings = [*OPTIONS[plugin], *([f"neutral={n}"] if (n := DOMAINS[domain].neutral) else [])]
    command = [
        "guardkit", "train", "--plugin", plugin,
        "--data", f"{folder}/train.jsonl,{folder}/test.jsonl", "--out", f"{folder}/{plugin}",
    ]  # fmt: skip
    command += [word for option in settings for word in ("--set", option)]
    resume = ["--resume"] if out.with_name(f"{plugin}.partial").exists() else []
    about = out.with_name(f"{plugin}.json")
    before = json.loads(about.read_text("utf-8"))["seconds"] if resume and about.is_file() else 0.0
    started = time.monotonic()
    try:
        subprocess.run([sys.executable, "-m", *command, *resume], check=True, cwd=ROOT)
    finally:
        seconds = before + time.monotonic() - started
        record = {"command": shlex.join(command), "seconds": seconds, "machine": machine(),
                  "commit": commit()}  # fmt: skip
        about.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"{domain}, {plugin}: {seconds:.0f} s")


@app.command()
def measure() -> None:
    """Measure what is there of each domain on its test texts, all scorers on the same ones."""
    results = {name: measured(name) for name in DOMAINS if (BUILD / name / "test.jsonl").is_file()}
    if not results:
        raise typer.BadParameter(f"nothing in {BUILD}: `prepare PATH/TO/sets` first")
    record = {
        "script": "benchmarks/domains/specialised.py", "commit": commit(), "machine": machine(),
        "conditions": f"bootstrap of {RESAMPLES} over groups of near-duplicates, seed {SEED}",
        "domains": results,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


@dataclass(frozen=True)
class Scored:
    p_NC: FloatArray
    texts_per_s: float
    train: Mapping[str, Any]


def measured(name: str) -> dict[str, Any]:
    folder, domain = BUILD / name, DOMAINS[name]
    parts = load_data_splits(f"{folder}/train.jsonl,{folder}/test.jsonl", None, None)
    assert parts.test is not None
    test = parts.test
    scored = {
        **{way: scored_by(fit, parts) for way, fit in (("tfidf", tfidf), ("nbsvm", nbsvm))},
        **{p: scored_by_model(folder / p, parts) for p in OPTIONS if (folder / p).is_dir()},
    }
    groups = group_names(test)
    measures = {way: measure_of(test, s.p_NC, domain) for way, s in scored.items()}
    result: dict[str, Any] = {"about": about(parts, domain), "scorers": {}, "gains": {}}
    for way, how in measures.items():
        found = bootstrap(how, groups, resamples=RESAMPLES, seed=SEED)
        own = scored[way]
        result["scorers"][way] = {**found, "texts_per_s": own.texts_per_s, "train": own.train}
        print(name, way, {m: v["value"] for m, v in found.items()}, flush=True)
    for way in [w for w in measures if w != "mdlm" and "mdlm" in measures]:
        less = difference(measures["mdlm"], measures[way])
        result["gains"][way] = bootstrap(less, groups, resamples=RESAMPLES, seed=SEED)
    return result


def about(parts: DataSplits, domain: Domain) -> dict[str, Any]:
    """Return how much there is, the best accuracy that one answer a text allows, and how many test
    texts have a near-duplicate, by the domain's rule, in the training text."""
    test = parts.test
    assert test is not None
    seen = {domain.template(text) for text in parts.train.texts}
    distinct = len({*map(normalised, test.texts)})  # a text may stand there under several labels
    return {
        "train": len(parts.train), "held_out": len(parts.validation) + len(parts.calibration),
        "test": len(test), "groups": len({*group_names(test)}), "ceiling": distinct / len(test),
        "labels": {x: int((test.labels_N == i).sum()) for i, x in enumerate(test.label_names)},
        "near_duplicate_in_training": float(np.mean([domain.template(t) in seen
                                                     for t in test.texts])),
    }  # fmt: skip


def measure_of(test: Examples, p_NC: FloatArray, domain: Domain) -> Measure:
    """Return accuracy and macro-F1, AUC, and where there are two labels recall at 1% FPR."""
    labels_N = test.labels_N
    smooth = ProbabilityMetrics(labels_N, p_NC)
    columns = [c for c, name in enumerate(test.label_names) if name != domain.neutral]
    ranking = mean_of([Ranking(labels_N == c, p_NC[:, c]) for c in columns])
    shown = SHOWN if domain.neutral else SHOWN[:3]

    def measure(weight_N: Any) -> Mapping[str, float]:
        values = {**smooth(weight_N), **ranking(weight_N)}
        return {name: values[name] for name in shown}

    return measure


def difference(first: Measure, second: Measure) -> Measure:
    def less(weight_N: Any) -> Mapping[str, float]:
        values = second(weight_N)
        return {name: value - values[name] for name, value in first(weight_N).items()}

    return less


def scored_by(fit: Callable[[Examples], Scorer], parts: DataSplits) -> Scored:
    assert parts.test is not None
    started = time.perf_counter()
    score = fit(parts.train)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    p_NC = score(parts.test.texts)
    speed = len(p_NC) / (time.perf_counter() - started)
    return Scored(p_NC, speed, {"seconds": seconds, "machine": machine(), "commit": commit()})


def scored_by_model(folder: Path, parts: DataSplits) -> Scored:
    assert parts.test is not None
    model = load_model(folder)
    answers = predict_with_model(model, parts.test)
    assert len(answers.examples) == len(parts.test), answers.failures
    order = [model.labels.index(label) for label in parts.train.label_names]
    trained = json.loads(folder.with_suffix(".json").read_text("utf-8"))
    speed = answers.work.texts / answers.work.seconds
    return Scored(answers.p_NC[:, order], speed, {**trained, "hash": model.hash})


def tfidf(train: Examples) -> Scorer:
    return fit_tfidf(train.texts, train.labels_N, max_iter=1000).predict_proba


def nbsvm(train: Examples) -> Scorer:
    """Margins as if they were logits: what is measured of them is their order."""
    classifier, _ = fit_nbsvm(train)

    def score(texts: Sequence[str]) -> FloatArray:
        logits_NC = classifier.score(texts).logits_NC.astype(np.float64)
        p_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        normed: FloatArray = p_NC / p_NC.sum(axis=1, keepdims=True)
        return normed

    return score


def chosen(domain: str) -> Domain:
    if domain not in DOMAINS:
        raise typer.BadParameter(f"{domain!r}: no such domain; {', '.join(DOMAINS)}")
    if not (BUILD / domain / "train.jsonl").is_file():
        raise typer.BadParameter(f"{domain}: nothing in {BUILD}; `prepare PATH/TO/sets` first")
    return DOMAINS[domain]


if __name__ == "__main__":
    app()
