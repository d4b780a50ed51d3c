"""Injection detectors on sources they never saw, at one threshold set on benign text.

    python -m benchmarks.injection.bundled_models prepare PATH/TO/injection  # what they learnt
    python -m benchmarks.injection.generalisation prepare PATH/TO/injection  # every source
    python -m benchmarks.injection.generalisation train MINILM               # an mdlm on it
    python -m benchmarks.injection.generalisation measure PATH/TO/injection [DETECTOR ...]
    python -m benchmarks.tables.fill                                         # -> docs/results/

PATH/TO/injection is as for bundled_models.py. A detector's threshold is the least that at most 1%
of the benign validation texts exceed; no text that is measured on has a part in it. Beside the
networks stand TF-IDF with logistic regression on the same training text, and what the data came
with: hashed words and pairs of train.parquet alone. A run keeps the other detectors' figures.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

import guardkit
from benchmarks.injection.bundled_models import BUILD as PERMISSIVE_BUILD
from benchmarks.injection.bundled_models import trained
from benchmarks.lib.baselines import fit_tfidf
from benchmarks.lib.detection import (
    FPR,
    RESAMPLES,
    SEED,
    attacks,
    benign_validation,
    log_odds,
    threshold_of,
    without_lines,
)
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.examples import load_examples
from guardkit.metrics import BinaryRates, Ranking, bootstrap
from guardkit.types import Examples, FloatArray

BUILD = ROOT / "build" / "generalisation"
RESULTS = ROOT / "benchmarks" / "results" / "generalisation.json"
SETS = (
    "test", "test_jackhhao", "ood_deepset_test", "ood_safeguard", "ood_notinject", "ood_bipia",
)  # fmt: skip
Scorer = Callable[[Sequence[str]], FloatArray]
Record = dict[str, Any]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def prepare(injection: Path) -> None:
    """Put every source's rows beside those that the bundled models were trained on."""
    BUILD.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in (PERMISSIVE_BUILD / "train.jsonl").open(encoding="utf-8")]
    texts = {row["text"] for row in known}
    for split, own in (("train", known), ("validation", [])):
        examples = load_examples(f"{injection}?split={split}")[split]
        rows = [
            {"text": text, "label": examples.label_names[label], "group": group}
            for text, label, group in zip(
                examples.texts, examples.labels_N, examples.groups, strict=True
            ) if text not in texts
        ]  # fmt: skip
        with (BUILD / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for row in [*own, *rows]:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{split}: {len(own) + len(rows):,} texts")


@app.command()
def train(minilm: str) -> None:
    """Train an mdlm as the bundled one is, from MINILM (see bundled_models), on every source."""
    shutil.rmtree(BUILD / "mdlm", ignore_errors=True)
    trained("mdlm", BUILD, minilm).replace(BUILD / "mdlm")


def detectors(injection: Path) -> Mapping[str, Callable[[], Scorer]]:
    """Return what makes each detector."""

    def model(path: str, *, lines: bool = True) -> Callable[[], Scorer]:
        return lambda: of_model(path, lines=lines)

    def words(folder: Path) -> Callable[[], Scorer]:
        return lambda: of_words(load_examples(f"{folder}/train.jsonl")["train"])

    def together() -> Scorer:
        pair = (of_model("builtin:mdlm/injection"), words(PERMISSIVE_BUILD)())
        return mean_of(pair, benign_validation(injection))

    return {
        "mdlm, bundled": model("builtin:mdlm/injection"),
        "mdlm, bundled, no lines": model("builtin:mdlm/injection", lines=False),
        "gpt2, bundled": model("builtin:gpt2/injection"),
        "TF-IDF, the bundled ones' text": words(PERMISSIVE_BUILD),
        "mdlm, bundled, and this TF-IDF": together,
        "mdlm, every source": model(str(BUILD / "mdlm")),
        "TF-IDF, every source": words(BUILD),
        "hashed words and pairs, train.parquet": lambda: hashed(
            load_examples(f"{injection}?split=train")["train"]
        ),
    }


@app.command()
def measure(
    injection: Path,
    names: Annotated[list[str] | None, typer.Argument(metavar="DETECTOR")] = None,
    out: Path = RESULTS,
) -> None:
    """Measure DETECTORs, all unless named, and store the figures."""
    benign = benign_validation(injection)
    sets = {name: load_examples(f"{injection}?split={name}")[name] for name in SETS}
    record: Record = json.loads(out.read_text("utf-8")) if out.is_file() else {"detectors": {}}
    made = detectors(injection)
    if unknown := set(names or ()) - set(made):
        raise typer.BadParameter(f"no detector {sorted(unknown)}; there are {list(made)}")
    for name in names or made:
        score, begun = made[name](), time.perf_counter()
        threshold = threshold_of(score(benign))
        found = {each: judged(score(of.texts), threshold, of) for each, of in sets.items()}
        record["detectors"][name] = {
            "commit": commit(), "machine": machine(), "seconds": time.perf_counter() - begun,
            "threshold": threshold, "sets": found,
        }  # fmt: skip
        print(name, *(
            f"\n  {each}: " + ", ".join(
                f"{key} {value['value']:.3f}" for key, value in one.items()
                if value["value"] is not None
            ) for each, one in found.items()
        ), flush=True)  # fmt: skip
    order = [name for name in made if name in record["detectors"]]
    record = {
        "script": "benchmarks/injection/generalisation.py measure",
        "conditions": f"thresholds at {FPR:.0%} of {len(benign):,} benign validation texts; "
        f"bootstrap of {RESAMPLES} over groups of near-duplicates, seed {SEED}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "sets": {
            name: {"injection": int(attacks(of).sum()), "benign": int((~attacks(of)).sum())}
            for name, of in sets.items()
        },
        "detectors": {name: record["detectors"][name] for name in order},
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def judged(score_N: FloatArray, threshold: float, examples: Examples) -> Record:
    """Return recall and false positives above ``threshold``, and AUROC, each with its interval."""
    positive_N = attacks(examples)
    groups = examples.groups or [str(i) for i in range(len(examples))]
    how = {"resamples": RESAMPLES, "seed": SEED}
    flags = bootstrap(BinaryRates(positive_N, score_N > threshold), groups, **how)
    found = {name: flags[name] for name in ("recall", "fpr")}
    if len(set(positive_N.tolist())) == 2:
        found["auroc"] = bootstrap(Ranking(positive_N, score_N), groups, **how)["roc_auc"]
    return found


def of_model(path: str, *, lines: bool = True) -> Scorer:
    loaded = guardkit.load_model(path, device="cpu")
    loaded = loaded if lines else without_lines(loaded)
    return lambda texts: log_odds(loaded, texts)


def mean_of(scorers: Sequence[Scorer], benign: Sequence[str]) -> Scorer:
    """Return the mean of scores, each in standard deviations of its own on benign text."""
    spread = [(float(own.mean()), float(own.std())) for own in (score(benign) for score in scorers)]

    def score(texts: Sequence[str]) -> FloatArray:
        parts = zip(scorers, spread, strict=True)
        return np.mean([(own(texts) - mean) / sd for own, (mean, sd) in parts], axis=0)

    return score


def of_words(train: Examples) -> Scorer:
    return fit_tfidf(train.texts, train.labels_N, solver="liblinear").decision_function


def hashed(train: Examples) -> Scorer:
    """Fit the baseline that the data came with: a floor, not a peer."""
    vectorizer = HashingVectorizer(ngram_range=(1, 2), alternate_sign=False)
    label_N = attacks(train)
    model = LogisticRegression(C=10.0, max_iter=1000).fit(
        vectorizer.transform(train.texts), label_N
    )
    return lambda texts: model.decision_function(vectorizer.transform(texts))


if __name__ == "__main__":
    app()
