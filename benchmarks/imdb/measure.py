"""IMDB sentiment, every way at hand, on the 25,000 official test reviews.

    python -m benchmarks.imdb.measure PATH/TO/imdb [ROW ...]  # -> benchmarks/results/imdb.json
    python -m benchmarks.tables.fill                          # -> docs/results/imdb.md

With --quick the smaller networks of build/imdb-quick, into results/imdb_quick.json.

PATH/TO/imdb holds train, test and unsup parquet files with columns text, label and movie; any
data spec of ``guardkit train`` does. Without ROW every row is made whose model is there
(``benchmarks.imdb.train``). A row keeps its log-odds of every held-out and test review in
build/imdb/rows: an interrupted call goes on where it was, and the rows that combine others read
them there.

The splits are those of ``guardkit train``: about a tenth of the films is held out of training,
half of them to stop it (validation), half for probabilities and combinations (calibration).
Nothing is chosen on test reviews.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
import torch
import typer

from benchmarks.imdb.experiment import FULL, QUICK, Experiment, training_record
from benchmarks.imdb.rows import GAINS, ROWS
from benchmarks.imdb.scorers import (
    LINEAR,
    Missing,
    Opinion,
    calibrated,
    coin,
    keep,
    kept,
    linear,
    of_model,
    stacked,
    without,
)
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.hashes import texts_hash
from guardkit.data.splits import DataSplits, group_names, load_data_splits
from guardkit.evaluation.measure import RESAMPLES
from guardkit.metrics import Measure, ProbabilityMetrics, Ranking, bootstrap
from guardkit.model.loaded import load_model
from guardkit.types import BoolArray, Examples, FloatArray

SHOWN = ("accuracy", "roc_auc", "log_loss", "ece")
Record = dict[str, Any]


def main(
    data: str,
    names: list[str] = typer.Argument(None, metavar="ROW..."),  # noqa: B008 - typer's way
    seed: int = 0,
    model: Path | None = None,
    evaluations: int | None = None,
    quick: bool = False,
) -> None:
    """Measure rows and the gains between them. MODEL is where the rows' trained model is, if not
    where ``train`` puts it; EVALUATIONS the network passes per class of the generative scorer, if
    not its own."""
    if unknown := [name for name in names or () if name not in ROWS]:
        raise typer.BadParameter(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    experiment = QUICK if quick else FULL
    measure(experiment, data, names or [*ROWS], seed=seed, model=model, evaluations=evaluations)


def measure(
    experiment: Experiment,
    data: str,
    names: Sequence[str],
    *,
    seed: int = 0,
    model: Path | None = None,
    evaluations: int | None = None,
) -> None:
    """Measure the rows ``names`` and the gains between rows, and store them in the results."""
    parts = load_data_splits(data, None, None)
    assert parts.test is not None, f"{data}: no test split"
    for name in names:
        try:
            opinion, about = _make(
                name, parts, experiment, seed=seed, model=model, evaluations=evaluations
            )
        except Missing as why:
            print(f"{name}: {why}")
            continue
        keep(experiment.row(name, seed), opinion)
        figures = measured(opinion.log_odds["test"], parts.test)
        n = len(parts.test)
        about |= {"texts_per_s": n / opinion.seconds if opinion.seconds else None}
        about |= {"machine": machine(), "commit": commit()}
        _store(name, seed, {**figures, **about}, parts, experiment)
        print(f"{name}: {_shown(figures['accuracy'])}", flush=True)
    record = json.loads(experiment.results.read_text("utf-8"))
    found = gains(parts, experiment)
    # rows measured elsewhere have left their figures and not their log-odds
    known = {(gain["first"], gain["second"]) for gain in found}
    anew = set(names)
    found += [
        gain
        for gain in record["gains"]
        if (pair := (gain["first"], gain["second"])) not in known and not anew & set(pair)
    ]
    _write(experiment.results, record | {"gains": found})


def measured(log_odds_NC: FloatArray, examples: Examples) -> Record:
    """Return the metrics of ``guardkit evaluate`` that the table shows, from the same numbers."""
    p_NC = _probabilities(log_odds_NC)
    groups = group_names(examples)
    metrics = bootstrap(
        ProbabilityMetrics(examples.labels_N, p_NC), groups, resamples=RESAMPLES, seed=0
    )
    ranking = Ranking(examples.labels_N == 1, p_NC[:, 1])
    metrics |= bootstrap(ranking, groups, resamples=RESAMPLES, seed=0)
    return {name: metrics[name] for name in SHOWN}


def gains(parts: DataSplits, experiment: Experiment) -> list[Record]:
    """Return the differences in accuracy on the test reviews, paired, over films.

    Of stacked rows, to the single row that was best on the held-out reviews.
    """
    assert parts.test is not None
    opinions = {name: kept(experiment.row(name, 0)) for name in ROWS}
    present = {name: opinion for name, opinion in opinions.items() if opinion}
    pairs = [*GAINS]
    for name in present:
        if single := [row for row in ROWS[name].of if row in present]:
            held = [_correct(present[row], parts, "validation", "calibration") for row in single]
            pairs.append((name, single[int(np.argmax([c.mean() for c in held]))]))
    found = []
    for first, second in pairs:
        if first in present and second in present:
            first_N, second_N = (_correct(present[row], parts, "test") for row in (first, second))
            gain = bootstrap(
                _mean(first_N.astype(np.float64) - second_N),
                group_names(parts.test), resamples=RESAMPLES, seed=0,
            )  # fmt: skip
            found.append({"first": first, "second": second, **gain})
    return found


def _make(
    name: str,
    parts: DataSplits,
    experiment: Experiment,
    *,
    seed: int,
    model: Path | None,
    evaluations: int | None,
) -> tuple[Opinion, Record]:
    """Return a row's log-odds and what to say of its making; raises Missing where it cannot be
    made from what is there."""
    row, path = ROWS[name], experiment.row(name, seed)
    if row.of:
        # of what is fitted without chance there is one run
        members = {p: kept(experiment.row(p, seed)) or kept(experiment.row(p, 0)) for p in row.of}
        if absent := [part for part, opinion in members.items() if opinion is None]:
            raise Missing(f"needs {', '.join(absent)} first")
        return stacked({p: o for p, o in members.items() if o}, parts)
    if row.less is not None:
        whole, part = (experiment.row(other, seed) for other in row.less)
        return without(whole, part, parts), {}
    if row.fit is not None:
        started = time.perf_counter()
        score = row.fit(parts)
        seconds = time.perf_counter() - started
        about: Record = {"training": {"seconds": seconds, "machine": machine()}}
        return calibrated(score, parts, path), about | {"options": score.options}
    if row.model is None:
        return coin(parts, seed), {}
    folder = model or experiment.model(row.model, seed)
    if not folder.is_dir():
        raise Missing(f"no model in {folder.relative_to(ROOT) if model is None else folder}")
    if row.scorer in LINEAR:
        return calibrated(linear(folder, row.scorer), parts, path), {}
    loaded = load_model(folder)
    score = of_model(loaded, row.scorer, evaluations)
    about = {"model": loaded.hash, "training": _training(loaded.config.training, folder)}
    return calibrated(score, parts, path), about | {"options": score.options}


def _training(stored: Record, folder: Path) -> Record:
    """Return what a training took: what the artefact says, and the record beside it."""
    beside = training_record(folder)
    record = json.loads(beside.read_text("utf-8")) if beside.is_file() else {}
    kept = ("parameters", "tokens", "dtype", "machine")
    about: Record = {name: stored[name] for name in kept if name in stored}
    about["seed"] = stored.get("options", {}).get("seed")
    stages = stored.get("stages", {}).values()
    about["seconds"] = sum(stage.get("seconds", 0.0) for stage in stages) or None
    if runs := record.get("runs"):  # all of its calls, where the artefact knows the last
        about["seconds"] = sum(run["seconds"] for run in runs)
        about["machine"] = " and ".join(dict.fromkeys(run["machine"] for run in runs))
        about |= {"command": record["command"], "commit": runs[-1]["commit"]}
    return about


def _store(
    name: str, seed: int, figures: Record, parts: DataSplits, experiment: Experiment
) -> None:
    """Put one run of a row into the results; all rows stand there, run or not."""
    results = experiment.results
    stored = json.loads(results.read_text("utf-8")) if results.exists() else {"rows": []}
    runs = {row["name"]: row["runs"] for row in stored["rows"]}
    before = runs.setdefault(name, {}).get(str(seed), {})
    if before.get("model") == figures.get("model") is not None:
        # measured elsewhere than where the model was trained: its record is not here
        figures["training"] = before.get("training", {}) | figures["training"]
    runs[name][str(seed)] = figures
    used = {"train": parts.train, "validation": parts.validation,
            "calibration": parts.calibration, "test": parts.test}  # fmt: skip
    _write(results, {
        "script": "benchmarks/imdb/measure.py",
        "conditions": f"bootstrap of {RESAMPLES} over films, seed 0",
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "scikit-learn": sklearn.__version__},
        "data": {k: {"texts": len(e), "hash": texts_hash(e.texts, [str(y) for y in e.labels_N])}
                 for k, e in used.items() if e is not None},
        "rows": [{"name": key, "title": row.title, "without": row.without,
                  "runs": runs.get(key, {})} for key, row in ROWS.items()],
        "gains": stored.get("gains", []),
    })  # fmt: skip


def _write(results: Path, record: Record) -> None:
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _mean(x_N: npt.NDArray[np.float64]) -> Measure:
    return lambda weight_N: {"accuracy": float(weight_N @ x_N / weight_N.sum())}


def _correct(opinion: Opinion, parts: DataSplits, *sets: str) -> BoolArray:
    return np.concatenate(
        [
            _probabilities(opinion.log_odds[name]).argmax(1) == getattr(parts, name).labels_N
            for name in sets
        ]
    )


def _probabilities(log_odds_NC: FloatArray) -> FloatArray:
    """As ``Calibration.probabilities_NC`` makes them of its log-odds, to the last bit."""
    return np.exp(-np.logaddexp(0.0, -log_odds_NC.astype(np.float64))).astype(np.float32)


def _shown(value: Record) -> str:
    return f"accuracy {value['value']:.2%} ({value['low']:.2%} to {value['high']:.2%})"


if __name__ == "__main__":
    typer.run(main)
