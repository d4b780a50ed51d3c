"""Make the bundled specialists beside the injection detectors, and the one backup behind them.

    python -m benchmarks.injection.bundled_models prepare PATH/TO/injection  # the backup's too
    python -m benchmarks.domains.bundled_specialists prepare PATH/TO/sets    # -> build/specialists/
    python -m benchmarks.domains.bundled_specialists train                   # into their plugins
    python -m benchmarks.domains.bundled_specialists measure PATH/TO/sets    # -> results/

``spam`` and ``toxicity`` are of the mdlm plugin; ``safety``, of the gpt2 plugin, knows what each of
the three specialists looks for.

PATH/TO/sets holds sms-spam, davidson-hate-offensive, hatecheck and awesome-chatgpt-prompts, a
folder each, with parquet files of columns text and label. Trained on texts whose licence lets a
model ship, and on texts written for this project. The other specialists' harmless texts are
harmless to each as well: side by side in a policy, all of them read all traffic.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.lib.baselines import fit_tfidf
from benchmarks.lib.paths import ROOT, SAMPLE
from benchmarks.lib.provenance import commit, machine
from benchmarks.lib.train_command import guardkit_train
from guardkit.data.examples import load_examples
from guardkit.data.splits import normalised
from guardkit.evaluation.measure import evaluate_model
from guardkit.metrics import Ranking, bootstrap
from guardkit.model.loaded import load_model
from guardkit.types import BoolArray, Examples

BUILD = ROOT / "build" / "specialists"
INJECTION = ROOT / "build" / "bundled"
PLUGINS = ROOT / "plugins"
RESULTS = ROOT / "benchmarks" / "results" / "bundled_specialists.json"
#: Benign texts kept out of all training, for certificates (see policies: 299 is the least).
CERTIFICATE_TEXTS = 320
OPTIONS = {
    "mdlm": ("--preset", "demo", "--set", "epochs=4", "--set", "neutral=benign"),
    "gpt2": (
        "--preset", "tiny", "--set", "epochs=3", "--set", "neutral=benign",
        "--set", "width=128", "--set", "layers=2", "--set", "heads=2",
    ),
}  # fmt: skip
BACKUP = "safety"
#: Training texts of each specialist that the backup learns from, at most.
BACKUP_TEXTS = 6000
PARTS = ("train", "validation", "calibration", "certificate", "test")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Row = dict[str, str]


@dataclass(frozen=True)
class Specialist:
    """What one learns to find: labels of one set, and the sets whose texts are all benign."""

    found: str
    source: str
    positive: frozenset[str]
    benign: tuple[str, ...]
    tested: tuple[str, ...] = ()


SPECIALISTS = {
    "spam": Specialist(
        "spam", "sms-spam", frozenset({"spam"}), ("awesome-chatgpt-prompts", "sample")
    ),
    "toxicity": Specialist(
        "toxic",
        "davidson-hate-offensive",
        frozenset({"hate", "offensive"}),
        ("sms-spam?where=label:ham", "awesome-chatgpt-prompts", "sample"),
        tested=("hatecheck",),
    ),
}
HATECHECK_POSITIVE = "hateful"


@app.command()
def prepare(sets: Path) -> None:
    """Write train, validation, calibration, certificate and test texts of each specialist; where
    a text goes is decided by its hash, equal texts going one way."""
    for name, specialist in SPECIALISTS.items():
        own = [
            {**r, "label": specialist.found if r["label"] in specialist.positive else "benign"}
            for r in _rows(sets, specialist.source)
        ]
        other = [{**r, "label": "benign"} for s in specialist.benign for r in _rows(sets, s)]
        rows = sorted(_distinct([*own, *other]), key=_draw)  # a fixed shuffle
        aside = [row for row in rows if row["label"] == "benign"][:CERTIFICATE_TEXTS]
        reserved = {row["text"] for row in aside}
        parts: dict[str, list[Row]] = {"certificate": aside}
        for row in rows:
            if row["text"] not in reserved:
                parts.setdefault(_part(row), []).append(row)
        for part in PARTS:
            _write(name, part, parts[part])
    for part in PARTS:
        rows = _lines(INJECTION / f"{part}.jsonl")
        for name in SPECIALISTS:
            rows += _lines(BUILD / name / f"{part}.jsonl")[:BACKUP_TEXTS]
        _write(BACKUP, part, _distinct(rows))


@app.command()
def train(names: list[str] = typer.Argument(None)) -> None:  # noqa: B008 - typer's way
    """Train each with the project's own command and put it into its plugin."""
    for name in names or [*SPECIALISTS, BACKUP]:
        out, folder = BUILD / f"{name}-model", BUILD / name
        files = ",".join(str(folder / f"{part}.jsonl") for part in ("train", "validation", "test"))
        guardkit_train(_family(name), files, out, [
            "--calibration-data", str(folder / "calibration.jsonl"),
            "--card", str(ROOT / f"benchmarks/cards/{name}.md"), *OPTIONS[_family(name)],
        ])  # fmt: skip
        shutil.rmtree(_model(name), ignore_errors=True)
        shutil.copytree(out, _model(name))


@app.command()
def measure(sets: Path) -> None:
    """Measure each on its test texts and on sets it never saw, beside TF-IDF with a logistic
    regression that learnt from the same texts."""
    results: dict[str, Any] = {}
    for name, specialist in SPECIALISTS.items():
        model, backup = load_model(_model(name)), load_model(_model(BACKUP))
        parts = {
            part: load_examples(f"{BUILD / name / part}.jsonl")["train"]
            for part in ("train", "certificate", "test")
        }
        found_N = _is(specialist.found, parts["train"])
        baseline = fit_tfidf(parts["train"].texts, found_N, max_iter=1000, solver="liblinear")
        measured = {"test": parts["test"], "certificate": parts["certificate"]}
        for other in specialist.tested:
            rows = [
                {**r, "label": specialist.found if r["label"] == HATECHECK_POSITIVE else "benign"}
                for r in _rows(sets, other)
            ]
            measured[other] = _examples(rows)
        results[name] = {"model": model.hash}
        for part, examples in measured.items():
            report = evaluate_model(model, examples, positive=specialist.found)
            found_N = _is(specialist.found, examples)
            ranking = Ranking(found_N, baseline.decision_function(examples.texts))
            everyone = [str(i) for i in range(len(examples))]
            beside = {"tfidf": bootstrap(ranking, everyone, resamples=1000, seed=0)}
            p_N = backup.probabilities(examples.texts)[:, backup.labels.index(specialist.found)]
            ranking = Ranking(found_N, p_N)
            beside[BACKUP] = bootstrap(ranking, everyone, resamples=1000, seed=0)
            results[name][part] = {"n": report["n"], **report["metrics"], **beside}
            aucs = {k: m["roc_auc"]["value"] for k, m in beside.items()}
            print(name, part, report["n"], report["metrics"]["roc_auc"]["value"], aucs, flush=True)
    record = {
        "script": "benchmarks/domains/bundled_specialists.py measure", "commit": commit(),
        "machine": machine(), "conditions": "bootstrap of 1000 over texts, seed 0",
        "results": results,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _is(label: str, examples: Examples) -> BoolArray:
    return np.array([examples.label_names[y] == label for y in examples.labels_N])


def _family(name: str) -> str:
    return "gpt2" if name == BACKUP else "mdlm"


def _model(name: str) -> Path:
    family = _family(name)
    return PLUGINS / family / f"guardkit_{family}" / "models" / name


def _write(name: str, part: str, rows: Sequence[Row]) -> None:
    (BUILD / name).mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (BUILD / name / f"{part}.jsonl").write_text("".join(lines), "utf-8")
    labels = sorted({row["label"] for row in rows})
    counts = (f"{sum(row['label'] == x for row in rows)} {x}" for x in labels)
    print(f"{name}/{part}: {', '.join(counts)}")


def _lines(path: Path) -> list[Row]:
    keys = ("text", "label", "source")
    rows = map(json.loads, path.read_bytes().splitlines())
    return [{key: row[key] for key in keys} for row in rows]


def _draw(row: Mapping[str, str]) -> float:
    return int(hashlib.sha256(normalised(row["text"]).encode()).hexdigest()[:8], 16) / 2**32


def _part(row: Mapping[str, str]) -> str:
    bounds = {"test": 0.2, "validation": 0.25, "calibration": 0.3}
    return next((part for part, bound in bounds.items() if _draw(row) < bound), "train")


def _rows(sets: Path, spec: str) -> Iterable[Row]:
    if spec == "sample":
        for path in sorted(SAMPLE.glob("*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                row = json.loads(line)
                if row["label"] == "benign":
                    yield {"text": row["text"], "label": "benign", "source": "own"}
        return
    name, _, query = spec.partition("?")
    for file in sorted((sets / name).glob("*.parquet")):
        splits = load_examples(f"{file}{'?' if query else ''}{query}")
        for examples in splits.values():
            for text, y in zip(examples.texts, examples.labels_N, strict=True):
                yield {"text": text, "label": examples.label_names[y], "source": name}


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each text; one that is labelled both ways is left out."""
    labels: dict[str, set[str]] = {}
    first: dict[str, Row] = {}
    for row in rows:
        key = normalised(row["text"])
        labels.setdefault(key, set()).add(row["label"])
        first.setdefault(key, row)
    return [row for key, row in first.items() if len(labels[key]) == 1]


def _examples(rows: Sequence[Row]) -> Examples:
    names = tuple(sorted({row["label"] for row in rows}))
    labels_N = np.array([names.index(row["label"]) for row in rows], np.int64)
    return Examples([row["text"] for row in rows], labels_N, names)


if __name__ == "__main__":
    app()
