"""What the rows of benchmarks/imdb/measure.py are made of: scorers, their calibration, stacking.

Shape letters: N texts, C labels (two), W windows, V vocabulary, M stacked members.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.lib.baselines import fit_nbsvm, words_and_pairs
from guardkit import pool_windows
from guardkit.calibration.fit import fit_calibration
from guardkit.calibration.maps import Calibration
from guardkit.data.splits import DataSplits
from guardkit.model.chunks import CHUNK_TEXTS
from guardkit.model.loaded import Model
from guardkit.types import Examples, FloatArray, IntArray

#: Sets every row scores; the test reviews last, once everything is fixed.
SETS = ("calibration", "validation", "test")
#: What ``linear`` scores by.
LINEAR = ("naive_bayes", "wide", "ngrams")
#: Inverse regularisation strengths tried on the validation reviews.
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
SAVE_S = 30.0


class Missing(Exception):
    """A row cannot be made from what is there."""


#: Uncalibrated logits_NC and how many tokens each text has, 0 where a scorer knows of none.
Scores = tuple[FloatArray, IntArray]


@dataclass(frozen=True)
class Scorer:
    """Texts to scores. ``key`` names it: scores kept under another are not its own.
    ``calibration`` is one it came with; without, one is fitted, which asks for no tokens."""

    key: str
    score: Callable[[Sequence[str]], Scores]
    calibration: Calibration | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opinion:
    """Calibrated log_odds_NC of every review of each set; ``seconds`` to score the test set."""

    log_odds: Mapping[str, FloatArray]
    seconds: float | None = None


def calibrated(scorer: Scorer, parts: DataSplits, path: Path) -> Opinion:
    """Score every set and calibrate on the calibration reviews.

    Raw scores go to ``path`` as they come, so that an interrupted call goes on from there.
    """
    scores, seconds = _scored(scorer, parts, path.with_suffix(".part.npz"))
    calibration = scorer.calibration or fit_calibration(
        scores["calibration"][0], parts.calibration.labels_N, parts.train.label_names, data=""
    )
    return Opinion({k: calibration.log_odds_NC(*x) for k, x in scores.items()}, seconds)


def stacked(members: Mapping[str, Opinion], parts: DataSplits) -> tuple[Opinion, dict[str, Any]]:
    """Join members as a policy's ``stacked`` node does, its weights fitted on the calibration
    reviews, which no training and no early stopping has seen."""
    from guardkit.tuning.stacking import fit_weights

    positive_N = parts.calibration.labels_N == 1
    prior = float(np.log(positive_N.sum()) - np.log((~positive_N).sum()))
    ratios = {s: np.stack([_odds(o, s) for o in members.values()], axis=1) - prior for s in SETS}
    weight_M, bias = fit_weights(ratios["calibration"], positive_N)
    joined = {s: prior + bias + x_NM @ weight_M for s, x_NM in ratios.items()}
    times = [opinion.seconds for opinion in members.values()]
    opinion = Opinion(
        {s: np.stack([-z_N, z_N], axis=1).astype(np.float32) for s, z_N in joined.items()},
        None if None in times else float(sum(t for t in times if t)),
    )
    weights = dict(zip(members, weight_M.tolist(), strict=True))
    return opinion, {"stack": {"weights": weights, "bias": bias}}


def coin(parts: DataSplits, seed: int) -> Opinion:
    """Toss a coin for each review."""
    rng = np.random.default_rng(seed)
    sides = {s: rng.choice([-1e-3, 1e-3], len(e)) for s, e in _sets(parts).items()}
    return Opinion({s: np.stack([-z, z], axis=1).astype(np.float32) for s, z in sides.items()})


def of_model(model: Model, scorer: str | None, evaluations: int | None) -> Scorer:
    """Run a trained model under ``scorer``, its own where that is None. Its calibration belongs
    to its own scorer; under it the figures are those of ``guardkit evaluate``."""
    if scorer is None:
        return Scorer(model.hash, _checked(model), model.calibrated())
    classifier: Any = model.classifier
    own = (classifier.scorer, classifier.scheme)
    classifier.scorer = scorer
    if evaluations is not None:
        classifier.scheme = replace(classifier.scheme, evaluations=evaluations)
    options = {"scorer": scorer}
    if scorer == "generative":
        options |= asdict(classifier.scheme)
    same = own == (classifier.scorer, classifier.scheme) or own[0] == scorer == "one_pass"
    calibration = model.calibrated() if same else None
    return Scorer(f"{model.hash} {options}", _checked(model), calibration, options)


def linear(folder: Path, part: str) -> Scorer:
    """Score by what is linear in an MDLM's tokens alone, its one pass without the network.

    ``naive_bayes``: what the generative score is before any training, by the class bias (windows
    and length exponent as there). ``wide``: that bias as the one-pass logit has it. ``ngrams``:
    the linear model of n-grams.
    """
    from guardkit_mdlm.loading import load_network
    from guardkit_mdlm.runs import window_hashes
    from guardkit_mdlm.token_ids import cut_windows
    from guardkit_mdlm.tokenizer import encode, read_tokenizer
    from guardkit_mdlm.training.ngram_fit import term_matrix

    from guardkit import read_config

    config, net, tokenizer = read_config(folder), load_network(folder), read_tokenizer(folder)
    options = config.network
    if part == "ngrams":
        if net.ngrams is None:
            raise Missing(f"{folder}: has no linear model of n-grams")
        ngrams = net.ngrams
    elif not net.shape.class_bias:
        raise Missing(f"{folder}: its network has no class bias")
    exponent = 0.5 if part == "wide" else float(options["length_exponent"])

    def score(texts: Sequence[str]) -> Scores:
        ids = encode(tokenizer, texts)
        pieces, text_W = cut_windows(
            ids, int(options["window_tokens"]), int(options["overlap_tokens"])
        )
        if part == "ngrams":
            weight_TC, bias_C = ngrams.weight_TC.float().numpy(), ngrams.bias_C.float().numpy()
            hashes = list(window_hashes(pieces, ngrams.longest))
            x_WT = term_matrix(hashes, ngrams.hash_T.numpy())
            logits_WC = x_WT @ weight_TC[:-1] + bias_C
        else:
            bias_CV = net.class_bias.float().numpy()
            logits_WC = np.stack(
                [bias_CV[:, p].sum(1) / max(1, len(p)) ** exponent for p in pieces]
            )
        how, neutral = config.window_pooling, config.neutral_index
        pooled = pool_windows(logits_WC.astype(np.float32), text_W, len(texts), how, neutral)
        return pooled, np.array([len(i) for i in ids])

    sums = (folder / "SHA256SUMS").read_text("utf-8")
    return Scorer(f"{part} {sums}", score)


def without(whole: Path, part: Path, parts: DataSplits) -> Opinion:
    """Return what ``whole`` says less ``part``, one of its summands: what it would say without.

    Both name rows, and raw scores that ``calibrated`` kept; those of windows are averaged, so that
    the difference of texts is that of windows.
    """
    raw = []
    for path in (whole, part):
        kept_scores = path.with_suffix(".part.npz")
        if not kept_scores.is_file():
            raise Missing(f"needs {path.stem.rpartition('-')[0]} first")
        with np.load(kept_scores) as stored:
            raw.append({name: stored[name] for name in (*SETS, *(f"{s}_tokens" for s in SETS))})
    logits = {name: raw[0][name] - raw[1][name] for name in SETS}
    calibration = fit_calibration(
        logits["calibration"], parts.calibration.labels_N, parts.train.label_names, data=""
    )
    tokens = {name: raw[0][f"{name}_tokens"] for name in SETS}
    return Opinion({s: calibration.log_odds_NC(logits[s], tokens[s]) for s in SETS})


def nbsvm(parts: DataSplits) -> Scorer:
    """Fit examples/guardkit-nbsvm, options at their defaults."""
    return _nbsvm(parts.train, None)


def nbsvm_of_all(parts: DataSplits) -> Scorer:
    """The same on the held-out reviews too, as published results have it. Nothing is then left
    to calibrate on: the margins stay as they are, and only decisions and order mean anything."""
    texts: list[str] = []
    for part in (parts.train, parts.validation, parts.calibration):
        texts += part.texts
    labels_N = np.concatenate(
        [p.labels_N for p in (parts.train, parts.validation, parts.calibration)]
    )
    labels = parts.train.label_names
    untouched = Calibration(
        task="multiclass", labels=list(labels), scale=[1.0, 1.0], bias=[0.0, 0.0],
        prior=[0.5, 0.5], n=0, data="", ece_before=0, ece_after=0,
        log_loss_before=0, log_loss_after=0,
    )  # fmt: skip
    return _nbsvm(Examples(texts, labels_N, labels), untouched)


def tfidf(parts: DataSplits) -> Scorer:
    """Fit a logistic regression on TF-IDF of words and word pairs; its strength is the one with
    the least log-loss on the validation reviews."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    vectorizer = words_and_pairs()
    x_NV = vectorizer.fit_transform(parts.train.texts)
    held_NV = vectorizer.transform(parts.validation.texts)
    fits = [
        LogisticRegression(C=C, max_iter=1000, solver="liblinear").fit(x_NV, parts.train.labels_N)
        for C in STRENGTHS
    ]
    losses = [log_loss(parts.validation.labels_N, f.predict_proba(held_NV)) for f in fits]
    best = int(np.argmin(losses))

    def score(texts: Sequence[str]) -> Scores:
        z_N = fits[best].decision_function(vectorizer.transform(texts))
        return np.stack([-z_N / 2, z_N / 2], axis=1).astype(np.float32), np.zeros(len(z_N), int)

    shown = {"C": STRENGTHS[best], "terms": len(vectorizer.vocabulary_)}
    return Scorer(f"tfidf {shown}", score, options=shown)


def keep(path: Path, opinion: Opinion) -> None:
    """Store a row's log-odds for the rows that combine it."""
    _save(path, {**opinion.log_odds, "seconds": np.array(opinion.seconds or np.nan)})


def kept(path: Path) -> Opinion | None:
    """Return what ``keep`` stored, None where there is nothing."""
    if not path.is_file():
        return None
    with np.load(path) as stored:
        seconds = float(stored["seconds"])
        log_odds = {name: stored[name] for name in SETS}
    return Opinion(log_odds, None if np.isnan(seconds) else seconds)


def _odds(opinion: Opinion, name: str) -> npt.NDArray[np.float64]:
    return opinion.log_odds[name][:, 1].astype(np.float64)


def _nbsvm(train: Examples, calibration: Calibration | None) -> Scorer:
    classifier, options = fit_nbsvm(train)
    shown = {**options, "reviews": len(train)}

    def score(texts: Sequence[str]) -> Scores:
        scores = classifier.score(texts)
        return scores.logits_NC, scores.tokens_N

    return Scorer(f"nbsvm {shown}", score, calibration, shown)


def _scored(scorer: Scorer, parts: DataSplits, path: Path) -> tuple[dict[str, Scores], float]:
    """Return the scores of each set, and the seconds that the test set took."""
    sets = _sets(parts)
    logits = {s: np.full((len(e), 2), np.nan, np.float32) for s, e in sets.items()}
    tokens = {s: np.zeros(len(e), np.int64) for s, e in sets.items()}
    seconds = 0.0
    if path.is_file():
        with np.load(path) as stored:
            own = str(stored["key"]) == scorer.key and "test_tokens" in stored
            if own and len(stored["test"]) == len(logits["test"]):
                logits = {s: stored[s] for s in SETS}
                tokens = {s: stored[f"{s}_tokens"] for s in SETS}
                seconds = float(stored["seconds"])

    def save() -> None:
        counts = {f"{s}_tokens": tokens_N for s, tokens_N in tokens.items()}
        about = {"seconds": np.array(seconds), "key": np.array(scorer.key)}
        _save(path, {**logits, **counts, **about})

    saved = time.perf_counter()
    for name, examples in sets.items():
        # in the chunks of ``guardkit evaluate``: a score may move in its last bits with its batch
        for start in range(0, len(examples), CHUNK_TEXTS):
            rows = slice(start, start + CHUNK_TEXTS)
            if not np.isnan(logits[name][rows]).any():
                continue
            started = time.perf_counter()
            logits[name][rows], tokens[name][rows] = scorer.score(examples.texts[rows])
            done = time.perf_counter()
            seconds += done - started if name == "test" else 0.0
            if done - saved > SAVE_S:
                print(f"  {name} {min(rows.stop, len(examples)):,}/{len(examples):,}", flush=True)
                save()
                saved = done
    save()
    return {s: (logits[s], tokens[s]) for s in sets}, seconds


def _checked(model: Model) -> Callable[[Sequence[str]], Scores]:
    def score(texts: Sequence[str]) -> Scores:
        scored = model.score(texts)
        for index, why in scored.errors.items():
            raise RuntimeError(f"{model.path}: {texts[index][:60]!r}: {why}")
        return scored.logits_NC, scored.tokens_N

    return score


def _sets(parts: DataSplits) -> dict[str, Examples]:
    assert parts.test is not None
    return {"calibration": parts.calibration, "validation": parts.validation, "test": parts.test}


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)
