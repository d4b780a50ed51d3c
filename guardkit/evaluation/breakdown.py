"""What an evaluation report shows beside the metrics: curves, calibration, mistakes, routes.

Everything is plain JSON. A text in it is shortened, and what a reader cannot see in one is
spelt out, so that no text can rearrange the page that shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from guardkit.data.splits import group_names
from guardkit.evaluation.measure import (
    RESAMPLES,
    Report,
    affordable,
    rankings,
)
from guardkit.evaluation.predictions import BinaryPredictions, ModelPredictions, PolicyPredictions
from guardkit.metrics import (
    ECE_BINS,
    FPR_GRID_K,
    RECALL_GRID_K,
    PerLabel,
    Ranking,
    ReliabilityCurve,
    bands,
    mean_curves,
)
from guardkit.policy.category import ON_ERROR
from guardkit.text.visible import visible
from guardkit.types import SEVERITY, BoolArray, Decision, Examples, IntArray

SCORE_BINS = 20
#: Texts that a dot of the reliability diagram stands for, at least.
TEXTS_PER_BIN = 25
#: Mistakes of each kind, routes, and reasons for a failure that are listed.
LISTED = 10
#: Characters of a text that are shown: of its beginning, and of its end.
SHOWN_CHARACTERS = (300, 100)


def with_breakdown(
    report: Report,
    predictions: ModelPredictions | PolicyPredictions,
    *,
    texts: bool = True,
    seed: int = 0,
) -> Report:
    """Return ``report`` with what ``model_breakdown`` or ``policy_breakdown`` add to it."""
    if isinstance(predictions, ModelPredictions):
        return model_breakdown(report, predictions, texts=texts, seed=seed)
    return policy_breakdown(report, predictions, texts=texts, seed=seed)


def model_breakdown(
    report: Report, predictions: ModelPredictions, *, texts: bool = True, seed: int = 0
) -> Report:
    """Return ``measure_model``'s ``report`` with what a person wants to see beside the metrics:
    ``curves``, ``reliability``, ``histogram``, ``confusion``, ``per_label`` (where there are more
    than two), ``mistakes`` and ``failures``. Without ``texts``, no text is quoted.
    """
    binary, groups = predictions.binary, group_names(predictions.examples)
    labels, y_N, p_NC = predictions.model.labels, predictions.y_N, predictions.p_NC
    given_N = p_NC.argmax(axis=1)
    per_label = PerLabel(y_N, given_N, len(labels))
    report = dict(report)
    if binary is not None:
        report |= _score_figures(binary, groups, seed)
    else:
        right_N, confidence_N = given_N == y_N, p_NC.max(axis=1).astype(np.float64)
        report |= {
            "curves": _curves(rankings(predictions), groups, seed),
            "reliability": _reliability(right_N, confidence_N, groups, seed),
            "histogram": _histogram(right_N, confidence_N),
        }
    report["confusion"] = {
        "rows": list(labels),
        "columns": list(labels),
        "counts": per_label.confusion(np.ones(len(y_N))).astype(int).tolist(),
    }
    if len(labels) > 2:
        found = bands(per_label, groups, resamples=RESAMPLES, seed=seed)
        report["per_label"] = {
            label: {
                "n": int((y_N == c).sum()),
                "metrics": {
                    name: {end: values[c] for end, values in ends.items()}
                    for name, ends in found.items()
                },
            }
            for c, label in enumerate(labels)
        }

    def example(i: int) -> Report:
        column = int(given_N[i]) if predictions.column is None else predictions.column
        shown = _example(predictions.examples, predictions.row_N, i, texts)
        return {**shown, "score": float(p_NC[i, column]), "given": labels[given_N[i]]}

    if binary is not None:
        report["mistakes"] = _mistakes(binary, example)
    else:
        surest = _first(given_N != y_N, -p_NC.max(axis=1))
        report["mistakes"] = {"surest": [example(i) for i in surest]}
    report["failures"] = _failures(predictions.failures.values(), texts)
    return report


def policy_breakdown(
    report: Report, predictions: PolicyPredictions, *, texts: bool = True, seed: int = 0
) -> Report:
    """Return ``measure_policy``'s ``report`` with what a person wants to see beside the metrics.

    Each category gets ``curves``, ``reliability`` and ``histogram`` of its scores, if it has any,
    ``confusion`` (label by action), ``undecided``, ``routes`` and ``mistakes``; the whole report
    gets ``failures``. Without ``texts``, no text is quoted.
    """
    categories = {
        name: {**category, **_category(name, predictions, texts, seed)}
        for name, category in report["categories"].items()
    }
    failures = _failures(predictions.failures.values(), texts)
    return {**report, "categories": categories, "failures": failures}


def excerpt(text: str) -> str:
    """Return the beginning and the end of ``text``, unseen characters spelt out.

    >>> excerpt("a\\u202eb\\x1b")
    'a[U+202E]b[U+001B]'
    """
    first, last = SHOWN_CHARACTERS
    if (left_out := len(text) - first - last) > 0:
        parts = visible(text[:first]), visible(text[-last:])
        return f" … [{left_out:,} characters left out] … ".join(parts)
    return visible(text)


def _category(name: str, predictions: PolicyPredictions, texts: bool, seed: int) -> Report:
    binary = predictions.binary(name)
    decisions, examples = predictions.decisions, predictions.examples
    own = [decision.categories[name] for decision in decisions]
    actions = [a for a in SEVERITY if any(decision.action == a for decision in own)]
    count = Counter(
        (label, decision.action)
        for label, decision in zip(examples.labels_N.tolist(), own, strict=True)
    )
    routes = [_route(name, decision) for decision in decisions]

    def example(i: int) -> Report:
        shown = _example(examples, predictions.row_N, i, texts)
        route = _route(name, decisions[i])
        return {**shown, "score": own[i].score, "given": own[i].action, "route": route}

    return {
        "threshold": own[0].threshold,
        "prevalence": predictions.router.policy.categories[name].prevalence,
        "undecided": sum(d.decided_by == ON_ERROR for d in own),
        **_score_figures(binary, group_names(examples), seed),
        "confusion": {
            "rows": list(examples.label_names),
            "columns": actions,
            "counts": [
                [count[label, action] for action in actions]
                for label in range(len(examples.label_names))
            ],
        },
        "routes": _routes(routes, binary),
        "mistakes": _mistakes(binary, example),
    }


def _score_figures(binary: BinaryPredictions, groups: Sequence[str], seed: int) -> Report:
    """Return curves, reliability and histogram of the texts that have a score; None for each
    where no text has one."""
    scored = np.flatnonzero(~np.isnan(binary.score_N))
    if not len(scored):
        return {"curves": None, "reliability": None, "histogram": None}
    positive_n, score_n = binary.positive_N[scored], binary.score_N[scored]
    groups = [groups[i] for i in scored.tolist()]
    return {
        "curves": _curves([Ranking(positive_n, score_n)], groups, seed),
        "reliability": _reliability(positive_n, score_n, groups, seed),
        "histogram": _histogram(positive_n, score_n),
    }


def _curves(of: Sequence[Ranking], groups: Sequence[str], seed: int) -> Report | None:
    """Return recall by false-positive rate and precision by recall, with pointwise bands."""
    resamples = affordable(len(groups) * len(of))
    found = bands(mean_curves(of), groups, resamples=resamples, seed=seed)
    if found["roc"]["value"][0] is None:
        return None
    return {
        "roc": {"fpr": FPR_GRID_K.tolist(), "recall": found["roc"]},
        "pr": {"recall": RECALL_GRID_K.tolist(), "precision": found["pr"]},
    }


def _reliability(hit_N: BoolArray, p_N: Any, groups: Sequence[str], seed: int) -> Report:
    measure = ReliabilityCurve(hit_N, p_N, bins=min(ECE_BINS, max(len(p_N) // TEXTS_PER_BIN, 1)))
    return {
        "mean": measure.mean_K.tolist(),
        "count": measure.count_K.tolist(),
        **bands(measure, groups, resamples=RESAMPLES, seed=seed),
    }


def _histogram(hit_N: BoolArray, p_N: Any) -> Report:
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    return {
        "edges": edges.round(6).tolist(),
        "hits": np.histogram(p_N[hit_N], edges)[0].tolist(),
        "others": np.histogram(p_N[~hit_N], edges)[0].tolist(),
    }


def _mistakes(binary: BinaryPredictions, example: Callable[[int], Report]) -> Report:
    """Return the negatives that scored highest and the positives that scored lowest, of those
    that got the wrong answer."""
    positive_N, flagged_N = binary.positive_N, binary.flagged_N
    # what has no score was flagged, or let pass, without a judgement: the worst of its kind
    high_N, low_N = (np.nan_to_num(binary.score_N, nan=x) for x in (2.0, -1.0))
    return {
        "flagged_negatives": [example(i) for i in _first(flagged_N & ~positive_N, -high_N)],
        "missed_positives": [example(i) for i in _first(~flagged_N & positive_N, low_N)],
    }


def _first(among_N: BoolArray, order_N: Any) -> list[int]:
    index = np.flatnonzero(among_N)
    listed: list[int] = index[np.argsort(order_N[index], kind="stable")][:LISTED].tolist()
    return listed


def _example(examples: Examples, row_N: IntArray, i: int, texts: bool) -> Report:
    text = examples.texts[i]
    return {
        "row": int(row_N[i]) + 1,
        "label": examples.label_names[examples.labels_N[i]],
        "source": examples.sources[i] if examples.sources else None,
        "characters": len(text),
        "text": excerpt(text) if texts else None,
    }


def _routes(routes: Sequence[str], binary: BinaryPredictions) -> Report:
    """Return the commonest routes, the rest as one."""
    ranked = [route for route, _ in Counter(routes).most_common()]
    kept = ranked if len(ranked) <= LISTED else ranked[: LISTED - 1]
    names = np.array([r if r in kept else OTHER_ROUTES for r in routes], dtype=object)
    table = {}
    for route in [*kept, *([OTHER_ROUTES] if len(kept) < len(ranked) else [])]:
        on_N = names == route
        table[route] = {
            "texts": int(on_N.sum()),
            "positives": int((on_N & binary.positive_N).sum()),
            "flagged": int((on_N & binary.flagged_N).sum()),
            "wrong": int((on_N & (binary.flagged_N != binary.positive_N)).sum()),
        }
    return table


OTHER_ROUTES = "(other routes)"


def _route(category: str, decision: Decision) -> str:
    """Return who was asked, in order, and what followed; why one failed stands in the errors."""
    steps = [step for step in decision.route if step.category == category]
    whys = ["failed" if step.why.startswith("failed") else step.why for step in steps]
    named = [f"{step.member}: {why}" for step, why in zip(steps, whys, strict=True)]
    return " → ".join(named) or "(no opinion)"


def _failures(reasons: Iterable[str], texts: bool) -> list[Report]:
    """Return the commonest reasons; they may quote a text."""
    if not texts:
        return []
    return [
        {"reason": excerpt(reason), "texts": count}
        for reason, count in Counter(reasons).most_common(LISTED)
    ]
