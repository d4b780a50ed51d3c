"""Attacks of a family never seen: one family left out of training, then n examples of it shown.

    python -m benchmarks.families.novel_families run PATH/TO/injection [FAMILY ...]  # -> build/
    python -m benchmarks.families.novel_families summarise  # -> results/novel_families.json
    python -m benchmarks.tables.fill                        # -> docs/results/novel-families.md

The hypothesis and the rule that decides it stand in docs/results/novel-families.md, written before
the first run. A run keeps each family's networks and rows in build/novel_families and goes on
where it was. Families: rules.py; halves: left_out.py.

The arms, each shown n examples of the new family:

mdlm             MDLM trained jointly on text and labels, one pass, and a class row (``--init``)
label-only       the same network trained on labels alone, and a class row: the control
mdlm-generative  the joint network, log p(text | class) by mask pairs, and a new class's 64 numbers
                 of conditioning trained on the examples, nothing else
gpt2             GPT-2 of the same data and size, its head, and a class row
tfidf            logistic regression on TF-IDF of words and pairs, trained again with the examples
nbsvm            NB-SVM on words and pairs, trained again with the examples
sentences        logistic regression on the vectors of a pretrained sentence encoder, trained again
                 with the examples; only with --encoder

Each example counts ``REPEATED`` times where a model is trained again. An arm's threshold is the
least that at most 1% of the benign texts of the first half exceed, set anew for each n, as
``guardkit policy certify`` would; recall and false positives are those of the second half.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from sklearn.metrics import roc_auc_score

from benchmarks.families.arms import ARMS, Arm, arms_of
from benchmarks.families.left_out import Task, leave_out, read
from benchmarks.families.rules import RULES
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.types import FloatArray

BUILD = ROOT / "build" / "novel_families"
RESULTS = ROOT / "benchmarks" / "results" / "novel_families.json"
SHOTS = (0, 1, 2, 4, 8, 16, 32, 64)
#: For arms whose every point is a training of its own.
FEW_SHOTS = (0, 1, 4, 16, 64)
MOST_BENIGN, MOST_ATTACKS = 1600, 300
FPR = 0.01
MEASURES = ("recall", "auroc", "fpr")
CONTROL = "label-only"
Record = dict[str, Any]
Curve = dict[str, npt.NDArray[np.float64]]
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Scores:
    """An arm's scores of the task's texts; more is more like an attack."""

    attacks: FloatArray
    threshold: FloatArray
    benign: FloatArray


@app.command()
def run(
    data: Path,
    families: Annotated[list[str] | None, typer.Argument()] = None,
    arm: Annotated[list[str] | None, typer.Option(help="only these")] = None,
    seeds: int = 10,
    few_seeds: int = 3,
    encoder: Annotated[
        str | None, typer.Option(help="hub id or folder of all-MiniLM-L6-v2")
    ] = None,
) -> None:
    """Run FAMILIES, all unless named, on the injection set in DATA."""
    torch.set_num_threads(1)
    rows = read(data)
    for family in families or RULES:
        if family not in RULES:
            raise typer.BadParameter(f"{family!r}: not one of {', '.join(RULES)}")
        task = leave_out(rows, family, most_benign=MOST_BENIGN, most_attacks=MOST_ATTACKS, seed=0)
        folder = BUILD / family.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "about.json").write_text(json.dumps(about(task), indent=1), "utf-8")
        for name, make in arms_of(task, folder, encoder).items():
            path = folder / f"{name}.json"
            if path.exists() or (arm and name not in arm):
                continue
            print(f"{family}: {name}", flush=True)
            begun = time.perf_counter()
            made = make()
            found = measure(made, task, seeds if made.cheap else few_seeds)
            record = {"commit": commit(), "machine": machine(), "train_s": made.train_s,
                      "seconds": time.perf_counter() - begun, **found}  # fmt: skip
            path.write_text(json.dumps(record, indent=1), "utf-8")


def measure(arm: Arm, task: Task, seeds: int) -> Record:
    """Return a row for each number of examples and seed. No examples need no seed."""
    points = []
    for n in SHOTS if arm.cheap else FEW_SHOTS:
        if n > len(task.shots):
            continue
        for seed in range(seeds if n else 1):
            shots = np.random.default_rng(seed).permutation(len(task.shots))[:n].tolist()
            points.append({"n": n, "seed": seed, **judged(scored(arm, shots))})
    return {"points": points, "novelty": {
        name: auroc(scores.attacks, scores.benign) for name, scores in novelty(arm).items()
    }}  # fmt: skip


def scored(arm: Arm, shots: Sequence[int]) -> Scores:
    return Scores(*arm.score(shots))


def novelty(arm: Arm) -> dict[str, Scores]:
    return {name: Scores(*of_sets) for name, of_sets in arm.novelty().items()}


def judged(scores: Scores) -> Record:
    """Return AUROC, recall at ``FPR`` and the false-positive rate that the threshold gives."""
    t = threshold(scores.threshold)
    return {
        "auroc": auroc(scores.attacks, scores.benign),
        "recall": float((scores.attacks > t).mean()),
        "fpr": float((scores.benign > t).mean()),
    }


def threshold(benign_N: FloatArray) -> float:
    """Return the least score that at most ``FPR`` of the texts exceed."""
    return float(np.sort(benign_N)[::-1][int(FPR * len(benign_N))])


def auroc(attacks_N: FloatArray, benign_N: FloatArray) -> float:
    labels_N = np.repeat([1, 0], [len(attacks_N), len(benign_N)])
    return float(roc_auc_score(labels_N, np.concatenate([attacks_N, benign_N])))


def about(task: Task) -> Record:
    """Return how many texts a task has."""
    return {part.name: len(getattr(task, part.name)) for part in fields(task)}


@app.command()
def summarise(out: Path = RESULTS, resamples: int = 2000, seed: int = 0) -> None:
    """Put what the runs found together, with intervals over families and seeds."""
    runs: dict[str, dict[str, Record]] = {}
    tasks = {}
    for family in RULES:
        folder = BUILD / family.replace(" ", "-")
        if (folder / "about.json").is_file():
            tasks[family] = json.loads((folder / "about.json").read_text("utf-8"))
        for path in folder.glob("*.json"):
            if path.name != "about.json":
                runs.setdefault(path.stem, {})[family] = json.loads(path.read_text("utf-8"))
    curves = {arm: {f: curve(run["points"]) for f, run in own.items()} for arm, own in runs.items()}
    names = [name for name in ARMS if name in curves]
    record = {
        "script": "benchmarks/families/novel_families.py",
        "commits": sorted({run["commit"] for own in runs.values() for run in own.values()}),
        "machine": " and ".join(
            sorted({run["machine"] for own in runs.values() for run in own.values()})
        ),
        "conditions": f"bootstrap of {resamples} over families, then seeds; seed {seed}",
        "tasks": tasks,
        "arms": {
            name: {**averages(curves[name], resamples, seed),
                   "train_s": {f: run["train_s"] for f, run in runs[name].items()},
                   "novelty": {f: run["novelty"] for f, run in runs[name].items()}}
            for name in names
        },
        "less_control": {
            name: averages(less(curves[name], curves[CONTROL]), resamples, seed)
            for name in names if name != CONTROL and CONTROL in curves
        },
        "points": {name: {f: run["points"] for f, run in runs[name].items()} for name in names},
    }  # fmt: skip
    out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"written: {out}")


def curve(points: Sequence[Record]) -> Curve:
    """Return values_NS of each measure by number of examples and seed.

    Without examples every seed has the one value; past a family's last example it stays there.
    """
    seeds = sorted({p["seed"] for p in points if p["n"]})
    found = {(p["n"], p["seed"]): p for p in points}
    known = sorted({p["n"] for p in points})
    values = {}
    for measure in MEASURES:
        rows = []
        for n in FEW_SHOTS:
            at = max(k for k in known if k <= n)
            rows.append([found[at, seed if at else 0][measure] for seed in seeds])
        values[measure] = np.array(rows)
    # over log2(1 + n), the mean height
    x_N = np.log2(1 + np.array(FEW_SHOTS))
    values["area"] = np.trapezoid(values["recall"], x_N, axis=0)[None] / (x_N[-1] - x_N[0])
    return values


def less(one: Mapping[str, Curve], other: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return one arm's curves less another's, of the families and seeds that both have."""
    result = {}
    for family in one.keys() & other.keys():
        n = min(one[family]["area"].shape[1], other[family]["area"].shape[1])
        result[family] = {m: one[family][m][:, :n] - other[family][m][:, :n] for m in one[family]}
    return dict(sorted(result.items()))


def averages(curves: Mapping[str, Curve], resamples: int, seed: int) -> Record:
    """Return {measure: [{value, low, high} for each n]}: the mean over families, and its 95%
    interval when families, and seeds within them, are drawn again."""
    rng = np.random.default_rng(seed)
    families = list(curves)
    picks = [
        [(families[i], rng.random(1000)) for i in rng.integers(len(families), size=len(families))]
        for _ in range(resamples)
    ]
    result: Record = {"families": families, "n": list(FEW_SHOTS)}
    for measure in (*MEASURES, "area"):
        value_N = np.mean([c[measure].mean(1) for c in curves.values()], axis=0)
        draws_RN = []
        for picked in picks:
            rows = []
            for family, uniform in picked:
                values_NS = curves[family][measure]
                seeds = (uniform[: values_NS.shape[1]] * values_NS.shape[1]).astype(int)
                rows.append(values_NS[:, seeds].mean(1))
            draws_RN.append(np.mean(rows, axis=0))
        low_N, high_N = np.quantile(draws_RN, [0.025, 0.975], axis=0)
        result[measure] = [
            {"value": float(v), "low": float(lo), "high": float(hi)}
            for v, lo, hi in zip(value_N, low_N, high_N, strict=True)
        ]
    return result


if __name__ == "__main__":
    app()
