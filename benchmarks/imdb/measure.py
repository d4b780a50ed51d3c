"""IMDB sentiment, every way at hand, on the 25,000 official test reviews.

    python -m benchmarks.imdb.measure train PATH/TO/imdb gpt2-head  # -> build/imdb/models/
    python -m benchmarks.imdb.measure rows PATH/TO/imdb [ROW ...]   # -> results/imdb.json
    python -m benchmarks.tables.fill                                # -> docs/results/imdb.md

With --quick before the command: small networks, build/imdb-quick, results/imdb_quick.json.

PATH/TO/imdb holds train, test and unsup parquet files with columns text, label and movie; any
data spec of ``guardkit train`` does. Without ROW every row is made whose model is there. A row
keeps its log-odds of every held-out and test review in build/imdb/rows: an interrupted call
goes on where it was, and the rows that combine others read them there.

The splits are those of ``guardkit train``: about a tenth of the films is held out of training,
half of them to stop it (validation), half for probabilities and combinations (calibration).
Nothing is chosen on test reviews.
"""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
import torch
import typer

from benchmarks.imdb.scorers import (
    LINEAR,
    Missing,
    Opinion,
    Scorer,
    calibrated,
    coin,
    keep,
    kept,
    linear,
    nbsvm,
    nbsvm_of_all,
    of_model,
    stacked,
    tfidf,
    without,
)
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.examples import group_names
from guardkit.evaluation.measure import RESAMPLES
from guardkit.metrics import Measure, Ranking, Smooth, bootstrap
from guardkit.model.loaded import load_model, texts_hash
from guardkit.training.train import Parts, load_parts
from guardkit.types import BoolArray, Examples, FloatArray

SHOWN = ("accuracy", "roc_auc", "log_loss", "ece")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Record = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large networks are, where their models and rows are kept, and ``results``.
    ``committed`` is the trained network that the repository holds, seed 0; ``options`` for a
    plugin or a model prevail over the model's own."""

    build: Path
    results: Path
    committed: Path | None = None
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A model that takes long: ``train`` makes it, its rows read it."""

    plugin: str
    options: tuple[str, ...]
    data: str | None = None  # what another script made of the reviews, in their place


#: The network of mdlm's preset small, as a GPT-2: as wide and deep, the same text, and as many
#: epochs as take two cores about as long as MDLM's.
GPT2 = (
    "init=scratch", "width=256", "layers=4", "heads=4", "vocab_size=8192", "window_tokens=256",
    "overlap_tokens=32", "batch_tokens=4096", "pretrain_epochs=0", "epochs=2",
)  # fmt: skip
#: What two cores do in an hour. On a GPU: benchmarks/gpu, preset base.
MDLM = ("pretrain_epochs=0", "epochs=1.2", "validations=4")
#: What else is tried is compared with the network alone.
ALONE = ("ngrams=0",)
#: On from the committed network for about as long again, on labels another model gave.
FROM_COMMITTED = ("--preset", "small", "--init", "benchmarks/artefacts/imdb-mdlm")
TAUGHT = (
    "optimizer=muon", "lr_body=0.0006", "lr=0.0006", "lr_muon=0.005", "pretrain_epochs=0",
    "epochs=0.45", "validations=4", *ALONE,
)  # fmt: skip


def _set(*pairs: str) -> tuple[str, ...]:
    return tuple(word for pair in pairs for word in ("--set", pair))


FULL = Scale(
    ROOT / "build" / "imdb",
    ROOT / "benchmarks" / "results" / "imdb.json",
    ROOT / "benchmarks" / "artefacts" / "imdb-mdlm",
)
#: The same comparisons for who has one core: a network in a quarter of an hour or two.
QUICK = Scale(
    ROOT / "build" / "imdb-quick",
    ROOT / "benchmarks" / "results" / "imdb_quick.json",
    options={
        "mdlm": _set(
            "vocab_size=4096", "hidden_dim=128", "n_blocks=2", "n_heads=2", "cond_dim=64",
            "lr_muon=0.02", "lr=0.002", "epochs=0.4",
        ),
        "mdlm-pretrained": _set("pretrain_epochs=0.08"),
        "gpt2": _set("vocab_size=4096", "width=128", "layers=2", "heads=2", "epochs=1"),
    },
)  # fmt: skip
_scale = FULL


TRAINED = {
    "mdlm": Trained("mdlm", ("--preset", "small", *_set(*MDLM))),
    "mdlm-pretrained": Trained(
        "mdlm", ("--preset", "small", *_set(*MDLM, *ALONE, "pretrain_epochs=1"))
    ),
    "mdlm-gpt2-features": Trained(
        "mdlm", ("--preset", "small", *_set(*MDLM, *ALONE, "features={models}/gpt2-head-0"))
    ),
    "mdlm-taught": Trained("mdlm", (*FROM_COMMITTED, *_set(*TAUGHT)), "build/imdb/taught"),
    "gpt2-head": Trained("gpt2", _set("rule=head", *GPT2)),
    "gpt2-likelihood": Trained("gpt2", _set("rule=likelihood", *GPT2)),
    "gpt2-hub": Trained("gpt2", ("--preset", "finetune")),
}


@dataclass(frozen=True)
class Row:
    """One way to classify: fitted here in a minute (``fit``), a trained model under one of its
    scorers (``model``), other rows' log-odds joined (``of``), or one row's scores less those of
    another, which is a summand of it (``less``)."""

    title: str
    fit: Callable[[Parts], Scorer] | None = None
    model: str | None = None
    scorer: str | None = None
    of: tuple[str, ...] = ()
    less: tuple[str, str] | None = None
    without: str = "not run"


#: The network in both of its readings, without n-grams.
BOTH = ("mdlm-network", "mdlm-generative")
ROWS = {
    "random": Row("random"),
    "nbsvm-all": Row("NB-SVM bigrams, held-out reviews learnt too", nbsvm_of_all),
    "nbsvm": Row("NB-SVM bigrams", nbsvm),
    "tfidf": Row("TF-IDF logistic regression, words and pairs", tfidf),
    "gpt2-head": Row("GPT-2 from scratch, head", model="gpt2-head"),
    "gpt2-likelihood": Row("GPT-2 from scratch, one per class", model="gpt2-likelihood"),
    "gpt2-hub": Row("GPT-2 from the hub, head", model="gpt2-hub", without="not run: no hub"),
    "mdlm-naive-bayes": Row(
        "MDLM before training: naive Bayes", model="mdlm", scorer="naive_bayes"
    ),
    "mdlm-wide": Row("MDLM's wide term alone", model="mdlm", scorer="wide"),
    "mdlm-ngrams": Row("MDLM's n-grams alone", model="mdlm", scorer="ngrams"),
    "mdlm-network": Row("MDLM's network alone, one pass", less=("mdlm-one-pass", "mdlm-ngrams")),
    "mdlm-one-pass": Row("MDLM, one pass", model="mdlm", scorer="one_pass"),
    "mdlm-generative": Row("MDLM, generative", model="mdlm", scorer="generative"),
    "mdlm-both": Row("MDLM's network, both combined", of=BOTH),
    "mdlm-all": Row("MDLM, both combined", of=("mdlm-one-pass", "mdlm-generative")),
    "mdlm-pretrained": Row(
        "MDLM's network pretrained on all reviews' text, one pass",
        model="mdlm-pretrained",
        scorer="one_pass",
    ),
    "mdlm-pretrained-generative": Row(
        "MDLM's network pretrained, generative", model="mdlm-pretrained", scorer="generative"
    ),
    "mdlm-taught": Row(
        "MDLM's network taught by NB-SVM on unlabelled reviews, one pass",
        model="mdlm-taught",
        scorer="one_pass",
    ),
    "mdlm-taught-generative": Row(
        "MDLM's network taught by NB-SVM, generative", model="mdlm-taught", scorer="generative"
    ),
    "mdlm-gpt2-features": Row(
        "MDLM's network with GPT-2's features, one pass",
        model="mdlm-gpt2-features",
        scorer="one_pass",
    ),
    "stacked-gpt2": Row("stacked: MDLM's network and GPT-2", of=(*BOTH, "gpt2-head")),
    "stacked-nbsvm": Row("stacked: MDLM's network and NB-SVM", of=(*BOTH, "nbsvm")),
    "stacked-one-pass": Row("stacked: MDLM, one pass, and NB-SVM", of=("mdlm-one-pass", "nbsvm")),
    "stacked-all": Row(
        "stacked: all of them",
        of=(*BOTH, "mdlm-ngrams", "gpt2-head", "gpt2-likelihood", "nbsvm", "tfidf"),
    ),
}
#: Pairs of rows whose difference is reported, the first minus the second.
GAINS = (
    ("mdlm-network", "mdlm-wide"),
    ("mdlm-one-pass", "mdlm-network"),
    ("mdlm-one-pass", "mdlm-ngrams"),
    ("mdlm-generative", "mdlm-naive-bayes"),
    ("mdlm-network", "mdlm-generative"),
    ("mdlm-network", "gpt2-head"),
    ("mdlm-one-pass", "gpt2-head"),
    ("mdlm-generative", "gpt2-likelihood"),
    ("mdlm-one-pass", "nbsvm-all"),
    ("mdlm-one-pass", "nbsvm"),
    ("mdlm-pretrained", "mdlm-network"),
    ("mdlm-pretrained-generative", "mdlm-generative"),
    ("mdlm-taught", "mdlm-network"),
    ("mdlm-taught-generative", "mdlm-generative"),
    ("mdlm-taught", "nbsvm"),
    ("mdlm-gpt2-features", "mdlm-network"),
    ("mdlm-gpt2-features", "gpt2-head"),
)


@app.callback()
def choose(quick: bool = typer.Option(False, help="smaller networks, fewer passes")) -> None:
    global _scale
    _scale = QUICK if quick else FULL


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context, data: str, model: str, seed: int = 0) -> None:
    """Train MODEL with the project's own command, from the repository's root; further options
    are handed to it, and prevail. What an interrupted call left is resumed. Writes how long it
    took, and on what, beside the model.
    """
    if model not in TRAINED:
        raise typer.BadParameter(f"no model {model!r}; there are {', '.join(TRAINED)}")
    if _scale is QUICK and model == "mdlm-taught":
        raise typer.BadParameter("mdlm-taught goes on from the committed network: not --quick")
    trained, out = TRAINED[model], _scale.build / "models" / f"{model}-{seed}"
    partial = out.with_name(f"{out.name}.partial")
    options = [*trained.options, *_set(f"seed={seed}")]
    for name in dict.fromkeys((trained.plugin, model)):
        options += _scale.options.get(name, ())
    models = str(out.parent.relative_to(ROOT)) if out.is_relative_to(ROOT) else str(out.parent)
    options = [word.replace("{models}", models) for word in [*options, *context.args]]

    def command(data: str, out: str) -> list[str]:
        data = trained.data or data
        return ["guardkit", "train", "--plugin", trained.plugin, "--data", data,
                "--pretrain-data", data, *options, "--out", out]  # fmt: skip

    resume = ["--resume"] if partial.exists() else []
    out.parent.mkdir(parents=True, exist_ok=True)
    # Ctrl-C is for the child, which saves its state; the time it took counts all the same
    signal.signal(signal.SIGINT, lambda *_: None)
    started = time.perf_counter()
    status = subprocess.Popen([sys.executable, "-m", *command(data, str(out)), *resume]).wait()
    seconds = time.perf_counter() - started
    if status == 0 or partial.exists():
        shown = " ".join(command("PATH/TO/imdb", str(out.relative_to(ROOT))))
        record = (_record(out) if resume else None) or {"command": shown, "runs": []}
        record["runs"].append({"seconds": seconds, "machine": machine(), "commit": commit()})
        _record_path(out).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    raise typer.Exit(status)


@app.command()
def rows(
    data: str,
    names: list[str] = typer.Argument(None, metavar="ROW..."),  # noqa: B008 - typer's way
    seed: int = 0,
    model: Path | None = None,
    evaluations: int | None = None,
) -> None:
    """Measure rows and the gains between them. MODEL is where the rows' trained model is, if not
    where ``train`` puts it; EVALUATIONS the network passes per class of the generative scorer, if
    not its own."""
    if unknown := [name for name in names or () if name not in ROWS]:
        raise typer.BadParameter(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    parts = load_parts(data, None, None)
    assert parts.test is not None, f"{data}: no test split"
    for name in names or ROWS:
        try:
            opinion, about = _make(name, parts, seed=seed, model=model, evaluations=evaluations)
        except Missing as why:
            print(f"{name}: {why}")
            continue
        keep(_rows_path(name, seed), opinion)
        figures = measured(opinion.log_odds["test"], parts.test)
        n = len(parts.test)
        about |= {"texts_per_s": n / opinion.seconds if opinion.seconds else None}
        _store(name, seed, {**figures, **about, "machine": machine(), "commit": commit()}, parts)
        print(f"{name}: {_shown(figures['accuracy'])}", flush=True)
    record = json.loads(_scale.results.read_text("utf-8"))
    found = gains(parts)
    # rows measured elsewhere have left their figures and not their log-odds
    known = {(gain["first"], gain["second"]) for gain in found}
    anew = set(names or ROWS)
    found += [
        gain
        for gain in record["gains"]
        if (pair := (gain["first"], gain["second"])) not in known and not anew & set(pair)
    ]
    _write(record | {"gains": found})


def measured(log_odds_NC: FloatArray, examples: Examples) -> Record:
    """Return the metrics of ``guardkit evaluate`` that the table shows, from the same numbers."""
    p_NC = _probabilities(log_odds_NC)
    groups = group_names(examples)
    metrics = bootstrap(Smooth(examples.labels_N, p_NC), groups, resamples=RESAMPLES, seed=0)
    ranking = Ranking(examples.labels_N == 1, p_NC[:, 1])
    metrics |= bootstrap(ranking, groups, resamples=RESAMPLES, seed=0)
    return {name: metrics[name] for name in SHOWN}


def gains(parts: Parts) -> list[Record]:
    """Return the differences in accuracy on the test reviews, paired, over films.

    Of stacked rows, to the single row that was best on the held-out reviews.
    """
    assert parts.test is not None
    opinions = {name: kept(_rows_path(name, 0)) for name in ROWS}
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
    name: str, parts: Parts, *, seed: int, model: Path | None, evaluations: int | None
) -> tuple[Opinion, Record]:
    """Return a row's log-odds and what to say of its making; raises Missing where it cannot be
    made from what is there."""
    row, path = ROWS[name], _rows_path(name, seed)
    if row.of:
        # of what is fitted without chance there is one run
        members = {p: kept(_rows_path(p, seed)) or kept(_rows_path(p, 0)) for p in row.of}
        if absent := [part for part, opinion in members.items() if opinion is None]:
            raise Missing(f"needs {', '.join(absent)} first")
        return stacked({p: o for p, o in members.items() if o}, parts)
    if row.less is not None:
        whole, part = (_rows_path(other, seed) for other in row.less)
        return without(whole, part, parts), {}
    if row.fit is not None:
        started = time.perf_counter()
        score = row.fit(parts)
        seconds = time.perf_counter() - started
        about: Record = {"training": {"seconds": seconds, "machine": machine()}}
        return calibrated(score, parts, path), about | {"options": score.options}
    if row.model is None:
        return coin(parts, seed), {}
    folder = model or _folder(row.model, seed)
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
    record = _record(folder) or {}
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


def _store(name: str, seed: int, figures: Record, parts: Parts) -> None:
    """Put one run of a row into the results; all rows stand there, run or not."""
    stored = (
        json.loads(_scale.results.read_text("utf-8")) if _scale.results.exists() else {"rows": []}
    )
    runs = {row["name"]: row["runs"] for row in stored["rows"]}
    before = runs.setdefault(name, {}).get(str(seed), {})
    if before.get("model") == figures.get("model") is not None:
        # measured elsewhere than where the model was trained: its record is not here
        figures["training"] = before.get("training", {}) | figures["training"]
    runs[name][str(seed)] = figures
    used = {"train": parts.train, "validation": parts.validation,
            "calibration": parts.calibration, "test": parts.test}  # fmt: skip
    _write({
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


def _write(record: Record) -> None:
    _scale.results.parent.mkdir(exist_ok=True)
    _scale.results.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _mean(x_N: npt.NDArray[np.float64]) -> Measure:
    return lambda weight_N: {"accuracy": float(weight_N @ x_N / weight_N.sum())}


def _correct(opinion: Opinion, parts: Parts, *sets: str) -> BoolArray:
    return np.concatenate(
        [
            _probabilities(opinion.log_odds[name]).argmax(1) == getattr(parts, name).labels_N
            for name in sets
        ]
    )


def _probabilities(log_odds_NC: FloatArray) -> FloatArray:
    """As ``Calibration.probabilities_NC`` makes them of its log-odds, to the last bit."""
    return np.exp(-np.logaddexp(0.0, -log_odds_NC.astype(np.float64))).astype(np.float32)


def _folder(model: str, seed: int) -> Path:
    committed = _scale.committed
    if model == "mdlm" and seed == 0 and committed is not None and committed.is_dir():
        return committed
    return _scale.build / "models" / f"{model}-{seed}"


def _rows_path(name: str, seed: int) -> Path:
    return _scale.build / "rows" / f"{name}-{seed}.npz"


def _record_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.training.json")


def _record(folder: Path) -> Record | None:
    path = _record_path(folder)
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def _shown(value: Record) -> str:
    return f"accuracy {value['value']:.2%} ({value['low']:.2%} to {value['high']:.2%})"


if __name__ == "__main__":
    app()
