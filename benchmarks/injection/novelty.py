"""Does novelty tell text of sources never trained on from text like the training text?

    python -m benchmarks.injection.novelty PATH/TO/data [mdlm|gpt2]  # -> results/novelty.json

PATH/TO/data holds ``injection`` (see bundled_models.py) and ``sets`` (medical-abstracts,
sqli-payloads). The networks are the bundled injection detectors, which have seen permissive
sources alone: in distribution is the test split of those sources. Every score is of the same
network and the same pass where it can be, larger is stranger:

    msp          1 - the largest calibrated probability          (Hendrycks & Gimpel 2017)
    energy       -logsumexp of the one-pass logits                             (Liu 2020)
    mahalanobis  of the network's state to the nearest label's mean, over training text (Lee 2018)
    likelihood   -log p(x) / tokens; of mdlm an estimate by two masks
    unigram      the same by the training text's token frequencies: no network at all
    density      likelihood less unigram                                        (Ren 2019)

Over the windows of a text the strangest counts, as the models pool (gpt2's likelihood is that of
the whole text). Within like lengths each score is replaced by its p-value among the texts of like
length that the model was calibrated on. What a cascade's `escalate_if` can add is seen among the
texts that the model is sure of alone: the others are passed on without it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from guardkit_gpt2.scoring import Gpt2Classifier, cut_windows, score_windows, window_states
from guardkit_gpt2.tokenizer import encode as gpt2_encode
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.estimators import density_ratio
from guardkit_mdlm.inference import batched
from guardkit_mdlm.scoring import MdlmClassifier
from guardkit_mdlm.tokenizer import encode as mdlm_encode
from guardkit_mdlm.unigram import unigram, unigram_log_probs

import guardkit
from benchmarks.injection.bundled_models import BUILD, MODELS, PERMISSIVE
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit, machine
from guardkit.data.examples import load_examples
from guardkit.data.splits import group_names
from guardkit.metrics import Ranking, bootstrap
from guardkit.model.loaded import Model
from guardkit.model.novelty import fit_novelty
from guardkit.types import Examples

RESULTS = ROOT / "benchmarks" / "results" / "novelty.json"
#: Texts a source at most, the first by hash of the seed and the text; training texts likewise.
CAP, TRAINING_CAP = 250, 1500
#: The model is sure of a text where its largest calibrated probability is at least this.
SURE = 0.9
RESAMPLES, SEED = 500, 0
BOUNDS = (0.05, 0.01)
SOURCES = {
    "bipia": "injection?split=ood_bipia",
    "safeguard": "injection?split=ood_safeguard",
    "medical": "sets/medical-abstracts?split=test",
    "sql": "sets/sqli-payloads?where=label:sqli",
}
#: Of the permissive sources, those that a model knows nothing of: gpt2 was trained before them.
NOT_LEARNT = {"mdlm": (), "gpt2": ("deepset-prompt-injections",)}
Float64 = npt.NDArray[np.float64]
#: f(texts) -> name of the score -> score_N
Scorer = Callable[[Sequence[str]], Mapping[str, Float64]]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(data: Path, families: list[str] = typer.Argument(None)) -> None:  # noqa: B008
    """Score every source with every score of the networks; store AUROCs with intervals."""
    unseen = {
        name: _capped(next(iter(load_examples(f"{data}/{spec}", need_labels=False).values())))
        for name, spec in SOURCES.items()
    }
    training = _capped(load_examples(f"{BUILD}/train.jsonl")["train"], TRAINING_CAP)
    calibration = load_examples(f"{BUILD}/calibration.jsonl")["train"]
    record: dict[str, Any] = {
        "script": "benchmarks/injection/novelty.py",
        "conditions": f"bootstrap of {RESAMPLES} over groups of near-duplicates, seed {SEED}",
        "cap": CAP,
        "sure": SURE,
        "texts": {name: len(part) for name, part in unseen.items()},
        "models": json.loads(RESULTS.read_text("utf-8"))["models"] if RESULTS.is_file() else {},
    }
    for family in families or MODELS:
        model = guardkit.load_model(MODELS[family])
        learnt = [source for source in PERMISSIVE if source not in NOT_LEARNT[family]]
        where = f"where=source:{'|'.join(learnt)}"
        known = load_examples(f"{data}/injection?split=test&{where}")["test"]
        scorer = _mdlm(model, training) if family == "mdlm" else _gpt2(model, training)
        record["models"][family] = {
            "hash": model.hash,
            "commit": commit(),
            "machine": machine(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "known": len(known),
            "calibration": len(calibration),
            "scores": _compared(model, scorer, known, unseen, calibration),
        }
        _show(family, record["models"][family]["scores"])
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"written: {RESULTS.relative_to(ROOT)}")


def _compared(
    model: Model,
    scorer: Scorer,
    known: Examples,
    unseen: Mapping[str, Examples],
    calibration: Examples,
) -> dict[str, Any]:
    """Return {score: {source: {auroc, within_length, sure, found_at}, "false_alarms": ...}}."""
    parts = {"calibration": calibration, "known": known, **unseen}
    tokens = {name: model.score(part.texts).tokens_N for name, part in parts.items()}
    scores = {name: scorer(part.texts) for name, part in parts.items()}
    p: dict[str, dict[str, Float64]] = {}
    for score in scores["known"]:
        x = {name: own[score].astype(np.float32) for name, own in scores.items()}
        fitted = fit_novelty(calibration, x["calibration"], tokens["calibration"], data="")
        p[score] = {name: fitted.p_values(x[name], tokens[name]) for name in parts}
    result: dict[str, Any] = {
        score: {"false_alarms": {a: float(np.mean(own["known"] <= a)) for a in BOUNDS}}
        for score, own in p.items()
    }
    for row in [*unseen, "pooled"]:
        chosen = ["known", *(unseen if row == "pooled" else [row])]
        groups = [f"{n} {group}" for n in chosen for group in group_names(parts[n])]
        is_new_N = np.repeat([n != "known" for n in chosen], [len(parts[n]) for n in chosen])
        msp_N, msp_p_N = (
            np.concatenate([of[n] for n in chosen])
            for of in ({n: scores[n]["msp"] for n in chosen}, p["msp"])
        )
        sure = np.flatnonzero(msp_N <= 1 - SURE)
        sure_groups = [groups[i] for i in sure]
        for score, rows in result.items():
            x_N = np.concatenate([scores[n][score] for n in chosen])
            p_N = np.concatenate([p[score][n] for n in chosen])
            rows[row] = {
                "auroc": _auroc(is_new_N, groups, x_N),
                "within_length": _auroc(is_new_N, groups, -p_N),
                "sure": _auroc(is_new_N[sure], sure_groups, -p_N[sure]),
                "sure_texts": int(is_new_N[sure].sum()),
                "found_at": {a: float(np.mean(p_N[is_new_N] <= a)) for a in BOUNDS},
            }
            if row == "pooled":  # paired: of the same texts
                rows[row]["over_msp"] = {
                    "within_length": _auroc(is_new_N, groups, -p_N, -msp_p_N),
                    "sure": _auroc(is_new_N[sure], sure_groups, -p_N[sure], -msp_p_N[sure]),
                }
    return result


def _auroc(
    is_new_N: npt.NDArray[np.bool_],
    groups: Sequence[str],
    strange_N: npt.NDArray[np.floating],
    less_N: npt.NDArray[np.floating] | None = None,
) -> dict[str, float | None]:
    """Return the AUROC of ``strange_N``, less that of ``less_N`` if given."""
    ours = Ranking(is_new_N, strange_N)
    others = [] if less_N is None else [Ranking(is_new_N, less_N)]

    def auroc(weight_N: Float64) -> dict[str, float]:
        less = sum(other(weight_N)["roc_auc"] for other in others)
        return {"auroc": ours(weight_N)["roc_auc"] - less}

    return bootstrap(auroc, groups, resamples=RESAMPLES, seed=SEED)["auroc"]


def _plain(model: Model, texts: Sequence[str]) -> dict[str, Float64]:
    """Return what the logits alone say."""
    p_NC = model.probabilities(texts).astype(np.float64)
    return {"msp": 1 - p_NC.max(axis=1)}


def _mdlm(model: Model, training: Examples) -> Scorer:
    classifier = model.classifier
    assert isinstance(classifier, MdlmClassifier)
    net, device = classifier._joint, classifier._device

    def slots(pieces: Sequence[Any]) -> np.ndarray:
        ids_BL, real_BL, _ = pad_batch(pieces, np.zeros(len(pieces))).inputs(device)
        with torch.inference_mode():
            slot_BD, _ = net(ids_BL, torch.zeros_like(ids_BL[:, 0]), real_BL)
        return slot_BD.float().cpu().numpy()

    def states(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        pieces, text_W = classifier.cut(mdlm_encode(classifier._tokenizer, texts))
        return batched(pieces, slots, (net.shape.hidden_dim,), device), text_W, pieces

    state_WD, text_W, _ = states(training.texts)
    distance = _mahalanobis(state_WD, training.labels_N[text_W])
    background_V = classifier._background_V  # of all training text, for the model's own score
    assert background_V is not None

    def density(chosen: Sequence[Any]) -> np.ndarray:
        background_B = unigram_log_probs(background_V, chosen)
        return density_ratio(net, chosen, background_B, key=classifier._mask_key)

    def score(texts: Sequence[str]) -> Mapping[str, Float64]:
        state_WD, text_W, pieces = states(texts)
        density_W, unigram_W = batched(pieces, density, (), device), _unigram(background_V, pieces)
        by_window = {
            "energy": -np.logaddexp.reduce(classifier.window_logits(pieces), axis=1),
            "mahalanobis": distance(state_WD),
            "likelihood": density_W + unigram_W,
            "unigram": unigram_W,
            "density": density_W,
        }
        strangest = {name: _strangest(x_W, text_W) for name, x_W in by_window.items()}
        return {**_plain(model, texts), **strangest}

    return score


def _gpt2(model: Model, training: Examples) -> Scorer:
    classifier = model.classifier
    assert isinstance(classifier, Gpt2Classifier)
    spec, network = classifier._spec, classifier._network

    def cut(texts: Sequence[str]) -> Any:
        ids_N = [np.array(e.ids, np.int32) for e in gpt2_encode(classifier._tokenizer, texts)]
        return cut_windows(ids_N, spec)

    cut_W = cut(training.texts)
    state_WF = window_states(network, cut_W, spec.start_token)
    distance = _mahalanobis(state_WF, training.labels_N[cut_W.text_W])
    background_V = unigram(cut_W.tokens_W, spec.gpt2["vocab_size"])

    def score(texts: Sequence[str]) -> Mapping[str, Float64]:
        cut_W = cut(texts)
        logits_WC, nll_W = score_windows(network, cut_W, spec.start_token, language=True)
        lengths_W = np.array([max(1, len(tokens)) for tokens in cut_W.tokens_W])
        unigram_W = _unigram(background_V, cut_W.tokens_W)
        novelty_N = classifier.score(texts, novelty=True).novelty_N
        assert novelty_N is not None
        by_window = {
            "energy": -np.logaddexp.reduce(logits_WC, axis=1),
            "mahalanobis": distance(window_states(network, cut_W, spec.start_token)),
            "unigram": unigram_W,
            "density": nll_W / lengths_W - unigram_W,
        }
        strangest = {name: _strangest(x_W, cut_W.text_W) for name, x_W in by_window.items()}
        return {**_plain(model, texts), "likelihood": novelty_N.astype(np.float64), **strangest}

    return score


def _mahalanobis(
    state_XD: np.ndarray, label_X: npt.NDArray[np.integer]
) -> Callable[[np.ndarray], Float64]:
    """Return the distance to the nearest label's mean, one covariance for all (Lee 2018)."""
    from sklearn.covariance import LedoitWolf

    means_CD = np.stack([state_XD[label_X == c].mean(axis=0) for c in np.unique(label_X)])
    fitted = LedoitWolf().fit(state_XD - means_CD[label_X])

    def distance(x_WD: np.ndarray) -> Float64:
        d_CW = np.stack([fitted.mahalanobis(x_WD - mean_D) for mean_D in means_CD])
        nearest_W: Float64 = d_CW.min(axis=0)
        return nearest_W

    return distance


def _unigram(background_V: npt.NDArray[np.float32], pieces: Sequence[Any]) -> Float64:
    lengths_W = np.array([max(1, len(piece)) for piece in pieces])
    per_token_W: Float64 = -unigram_log_probs(background_V, pieces) / lengths_W
    return per_token_W


def _strangest(values_W: np.ndarray, text_W: npt.NDArray[np.integer]) -> Float64:
    strangest_N = np.full(text_W[-1] + 1, -np.inf)
    np.maximum.at(strangest_N, text_W, values_W)
    return strangest_N


def _capped(examples: Examples, cap: int = CAP) -> Examples:
    """Keep ``cap`` texts, chosen by a hash: the same whatever the order."""
    from guardkit.data.hashes import texts_hash

    order = sorted(range(len(examples)), key=lambda i: texts_hash([str(SEED), examples.texts[i]]))
    return examples.select(sorted(order[:cap]))


def _show(family: str, scores: Mapping[str, Any]) -> None:
    for score, rows in scores.items():
        cells = [
            f"{name} "
            + "/".join(f"{rows[name][x]['value']:.3f}" for x in ("auroc", "within_length", "sure"))
            for name in (*SOURCES, "pooled")
        ]
        print(f"{family} {score:12}", *cells, "false", rows["false_alarms"], flush=True)


if __name__ == "__main__":
    app()
