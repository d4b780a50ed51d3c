"""How good a model or a policy is on labelled examples, each number with its 95% interval.

Intervals resample whole groups (one movie's reviews, near-duplicates), so that they are no
narrower than the data is varied. ``predictions`` runs the texts; here the metrics are computed, and
in ``breakdown`` what a report shows beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from guardkit.data.splits import group_names
from guardkit.evaluation.predictions import (
    BinaryPredictions,
    ModelPredictions,
    PolicyPredictions,
    predict_with_model,
    predict_with_policy,
)
from guardkit.metrics import Measure, ProbabilityMetrics, Ranking, bootstrap, mean_of, rates
from guardkit.model.loaded import Model
from guardkit.policy.router import PolicyRouter
from guardkit.types import Examples, IntArray, Progress

RESAMPLES = 1000
#: Texts x labels x resamples that may be ranked, about two seconds; at least 100 resamples.
RANKING_BUDGET = 50_000_000
#: Lower ends of the length table's bins, in characters.
LENGTHS = (0, 100, 300, 1_000, 3_000, 10_000)
#: With fewer texts of a class a part of the data gets no AUC: its interval would be too narrow.
RANKED_OF_EACH = 10
#: Negatives that a recall at a false-positive rate needs: the rate must be at least one text.
NEEDED_NEGATIVES = {"recall_at_fpr_1%": 100, "recall_at_fpr_0.1%": 1000}

Report = dict[str, Any]
Metrics = dict[str, dict[str, float | None]]
_UNDEFINED: dict[str, float | None] = {"value": None, "low": None, "high": None}


def evaluate_model(
    model: Model,
    examples: Examples,
    *,
    positive: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Run ``model`` on ``examples`` and return ``measure_model``'s report."""
    predictions = predict_with_model(model, examples, positive=positive, progress=progress)
    return measure_model(predictions, seed=seed)


def measure(predictions: ModelPredictions | PolicyPredictions, *, seed: int = 0) -> Report:
    """Return ``measure_model``'s report or ``measure_policy``'s."""
    if isinstance(predictions, ModelPredictions):
        return measure_model(predictions, seed=seed)
    return measure_policy(predictions, seed=seed)


def measure_model(predictions: ModelPredictions, *, seed: int = 0) -> Report:
    """Return ``metrics`` {name: {value, low, high}} and tables by source and length, for JSON.

    AUC, AUPRC and recall at a false-positive rate are about the positive label; without one they
    are averaged over the labels, each against the rest. ``warnings`` {metric: why it means little
    here}. A text that could not be scored counts in ``errors`` and in no metric.
    """
    y_N, p_NC, examples = predictions.y_N, predictions.p_NC, predictions.examples
    labels, column, binary = predictions.model.labels, predictions.column, predictions.binary
    groups = group_names(examples)
    metrics = bootstrap(ProbabilityMetrics(y_N, p_NC), groups, resamples=RESAMPLES, seed=seed)
    ranking: Measure
    if binary is not None:
        ranking = Ranking(binary.positive_N, binary.score_N)
        flags = rates(binary.positive_N, binary.flagged_N, groups, resamples=RESAMPLES, seed=seed)
        metrics |= {name: flags[name] for name in ("recall", "fpr", "precision")}
    else:
        ranking = mean_of(rankings(predictions))
    resamples = affordable(len(y_N) * (len(labels) if column is None else 1))
    metrics |= bootstrap(ranking, groups, resamples=resamples, seed=seed)

    def part(index: IntArray) -> Report:
        if binary is not None:
            return _part(binary, index, groups, seed)
        right = bootstrap(
            ProbabilityMetrics(y_N[index], p_NC[index]),
            [groups[i] for i in index.tolist()],
            resamples=RESAMPLES,
            seed=seed,
        )
        return {"metrics": {"accuracy": right["accuracy"]}}

    of = range(len(labels)) if column is None else [column]
    return {
        "labels": list(labels),
        "positive": None if column is None else labels[column],
        "n": len(examples),
        "unlabelled": predictions.unlabelled,
        "errors": len(predictions.failures),
        "metrics": metrics,
        "warnings": _warnings(metrics, min(int((y_N != c).sum()) for c in of)),
        "sources": _by_source(examples, part),
        "lengths": _by_length(examples, part),
    }


def evaluate_policy(
    router: PolicyRouter,
    examples: Examples,
    *,
    positive: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Run the policy on ``examples`` and return ``measure_policy``'s report."""
    predictions = predict_with_policy(router, examples, positive=positive, progress=progress)
    return measure_policy(predictions, seed=seed)


def measure_policy(predictions: PolicyPredictions, *, seed: int = 0) -> Report:
    """Return, for each category, how its actions compare with the labels, for JSON.

    A text is flagged where the category does not allow it, errors included. The metrics are those
    of the actions and, for texts that have a score, those of ``measure_model``. ``members``
    {name: share of the texts it was asked about}.
    """
    return {
        "n": len(predictions.examples),
        "unlabelled": predictions.unlabelled,
        "errors": len(predictions.failures),
        "categories": {
            name: _category(name, predictions, seed) for name in predictions.positive_labels
        },
    }


def _category(name: str, predictions: PolicyPredictions, seed: int) -> Report:
    binary, decisions, examples = (
        predictions.binary(name),
        predictions.decisions,
        predictions.examples,
    )
    groups = group_names(examples)
    asked: dict[str, int] = {}
    for decision in decisions:
        for member in {step.member for step in decision.route if step.category == name}:
            asked[member] = asked.get(member, 0) + 1
    metrics = rates(binary.positive_N, binary.flagged_N, groups, resamples=RESAMPLES, seed=seed)
    scored = np.flatnonzero(~np.isnan(binary.score_N))
    positive_n, score_n = binary.positive_N[scored], binary.score_N[scored]
    if len(scored):
        groups_n = [groups[i] for i in scored.tolist()]
        p_n2 = np.stack([1 - score_n, score_n], axis=1)
        smooth = bootstrap(
            ProbabilityMetrics(positive_n.astype(np.int64), p_n2),
            groups_n,
            resamples=RESAMPLES,
            seed=seed,
        )
        metrics |= {metric: smooth[metric] for metric in ("log_loss", "brier", "ece")}
        metrics |= bootstrap(
            Ranking(positive_n, score_n), groups_n, resamples=affordable(len(scored)), seed=seed
        )
    return {
        "positive": sorted(predictions.positive_labels[name]),
        "positives": int(binary.positive_N.sum()),
        "without_score": len(decisions) - len(scored),
        "metrics": metrics,
        "warnings": _warnings(metrics, int((~positive_n).sum())),
        "members": {member: count / len(decisions) for member, count in asked.items()},
        "sources": _by_source(examples, lambda index: _part(binary, index, groups, seed)),
        "lengths": _by_length(examples, lambda index: _part(binary, index, groups, seed)),
    }


def rankings(predictions: ModelPredictions) -> list[Ranking]:
    """Return each label's ranking against the rest."""
    columns = range(predictions.p_NC.shape[1])
    return [Ranking(predictions.y_N == c, predictions.p_NC[:, c]) for c in columns]


def affordable(n: int) -> int:
    """Return how many resamples of ``n`` scores may be ranked within RANKING_BUDGET."""
    return min(RESAMPLES, max(RANKING_BUDGET // n, 100))


def _warnings(metrics: Metrics, negatives: int) -> dict[str, str]:
    return {
        name: f"only {negatives:,} negative texts: the rate is less than one of them, so this is "
        "the recall without any false positive, and one text can change it much"
        for name, needed in NEEDED_NEGATIVES.items()
        if name in metrics and metrics[name]["value"] is not None and negatives < needed
    }


def _by_source(examples: Examples, part: Callable[[IntArray], Report]) -> dict[str, Report]:
    """Return {source: {n, ...}}, by name; empty where the data names no sources."""
    if not examples.sources:
        return {}
    names, of_N = np.unique(np.array(examples.sources, dtype=object), return_inverse=True)
    return _table([str(name) or "(none)" for name in names], of_N, part)


def _by_length(examples: Examples, part: Callable[[IntArray], Report]) -> dict[str, Report]:
    lengths_N = np.array([len(text) for text in examples.texts])
    bins = [f"{low:,}-{high - 1:,}" for low, high in pairwise(LENGTHS)]
    names = [*bins, f"{LENGTHS[-1]:,} or more"]
    return _table(names, np.searchsorted(LENGTHS, lengths_N, side="right") - 1, part)


def _table(
    names: Sequence[str], of_N: npt.NDArray[np.integer], part: Callable[[IntArray], Report]
) -> dict[str, Report]:
    rows = {name: np.flatnonzero(of_N == i) for i, name in enumerate(names)}
    return {name: {"n": len(index), **part(index)} for name, index in rows.items() if len(index)}


def _part(binary: BinaryPredictions, index: IntArray, groups: Sequence[str], seed: int) -> Report:
    """Return the counts and metrics of the texts at ``index``."""
    positive_n, flagged_n = binary.positive_N[index], binary.flagged_N[index]
    own = [groups[i] for i in index.tolist()]
    metrics = rates(positive_n, flagged_n, own, resamples=RESAMPLES, seed=seed)
    del metrics["precision"]  # in a part it depends on the part's share of positives above all
    score_n, metrics["roc_auc"] = binary.score_N[index], _UNDEFINED
    fewest = min(positive_n.sum(), (~positive_n).sum())
    if fewest >= RANKED_OF_EACH and not np.isnan(score_n).any():
        ranking = Ranking(positive_n, score_n)
        ranked = bootstrap(ranking, own, resamples=affordable(len(groups)), seed=seed)
        metrics["roc_auc"] = ranked["roc_auc"]
    return {
        "positives": int(positive_n.sum()),
        "false_positives": int((flagged_n & ~positive_n).sum()),
        "metrics": metrics,
    }
