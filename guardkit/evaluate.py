"""How good a model or a policy is on labelled examples, each number with its 95% interval.

Intervals resample whole groups (one movie's reviews, near-duplicates), so that they are no
narrower than the data is varied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from guardkit.data import group_names
from guardkit.errors import DataError
from guardkit.metrics import Flags, Ranking, Smooth, bootstrap, mean_of
from guardkit.models import Model
from guardkit.router import PolicyRouter
from guardkit.types import UNLABELLED, Decision, Examples, IntArray, Progress

RESAMPLES = 1000
#: Texts x labels x resamples that may be ranked (100 resamples in any case): about two seconds.
RANKING_BUDGET = 50_000_000
#: Lower ends of the length table's bins, in characters.
LENGTHS = (0, 100, 300, 1_000, 3_000, 10_000)
CHUNK_TEXTS = 256

Report = dict[str, Any]
_Bool = npt.NDArray[np.bool_]


def evaluate_model(
    model: Model,
    examples: Examples,
    *,
    positive: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Return ``metrics`` {name: {value, low, high}} and tables by source and length, for JSON.

    AUC, AUPRC and recall at a false-positive rate are about ``positive``: by default the one
    of two labels that is not neutral (else the last); with more labels they are averaged, each
    against the rest. Unlabelled examples are left out; a text that cannot be scored counts in
    ``errors`` and in no metric. Raises DataError where labels do not fit.
    """
    if model.config.task != "multiclass":
        raise DataError(f"{model.path}: only a multiclass model can be held against one label each")
    examples, unlabelled = _labelled(examples)
    if unknown := [x for x in examples.label_names if x not in model.labels]:
        raise DataError(
            f"the examples have label {unknown[0]!r}, the model {', '.join(model.labels)}; keep "
            "some rows with ?where=label:A|B, or name another column with ?label="
        )
    column = _positive_column(model, positive)
    calibration = model.calibrated()
    scored = (model.score(texts) for texts in _chunks(examples.texts, progress))
    p_NC = np.concatenate([calibration.probabilities_NC(s.logits_NC, s.tokens_N) for s in scored])

    judged = np.flatnonzero(~np.isnan(p_NC).any(axis=1))
    if not len(judged):
        raise DataError(f"{model.path}: not one of {len(examples):,} texts could be scored")
    errors, p_NC, examples = len(examples) - len(judged), p_NC[judged], examples.select(judged)
    column_of = np.array([model.labels.index(x) for x in examples.label_names])
    y_N = column_of[examples.labels_N]
    ranked = range(len(model.labels)) if column is None else [column]
    ranking = mean_of([Ranking(y_N == c, p_NC[:, c]) for c in ranked])
    affordable = max(RANKING_BUDGET // (len(examples) * len(ranked)), 100)
    groups = group_names(examples)
    metrics = bootstrap(Smooth(y_N, p_NC), groups, resamples=RESAMPLES, seed=seed)
    metrics |= bootstrap(ranking, groups, resamples=min(RESAMPLES, affordable), seed=seed)

    def part(index: IntArray) -> dict[str, float | None]:
        y_n, p_nC = y_N[index], p_NC[index]
        if column is None:
            return {"accuracy": float((p_nC.argmax(axis=1) == y_n).mean())}
        positive_n, p_n = y_n == column, p_nC[:, column]
        auc = Ranking(positive_n, p_n)(np.ones(len(index)))["roc_auc"]
        return _counts(positive_n, p_n > 0.5) | _defined({"roc_auc": auc})

    return {
        "labels": list(model.labels),
        "positive": None if column is None else model.labels[column],
        "n": len(examples),
        "unlabelled": unlabelled,
        "errors": errors,
        "metrics": metrics,
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
    """Return, for each category, how its actions compare with the labels, for JSON.

    A text is positive where its label is one of the category's ``positive`` labels, or is
    ``positive``; flagged where the category does not allow it, errors included. Categories that
    no label is about are left out, unless that is all of them (benign texts alone). ``members``
    {name: share of the texts it was asked about}. Raises DataError where labels do not fit.
    """
    examples, unlabelled = _labelled(examples)
    labels = examples.label_names
    categories = router.policy.categories
    wanted = {c: {positive} if positive else set(categories[c].positive) for c in categories}
    known = {x for member in router.policy.members for x in router.model(member).labels}
    known = known.union(*wanted.values())
    if positive is not None and positive not in labels:
        raise DataError(f"no example is labelled {positive!r}; the labels are {', '.join(labels)}")
    if positive is None and (unknown := [x for x in labels if x not in known]):
        raise DataError(
            f"the examples have label {unknown[0]!r}, unknown to the policy and its members "
            f"({', '.join(sorted(known)) or 'none'}); say which label is to be found: --positive"
        )
    decisions = [d for texts in _chunks(examples.texts, progress) for d in router.decide(texts)]
    return {
        "n": len(examples),
        "unlabelled": unlabelled,
        "errors": sum(d.error is not None for d in decisions),
        "categories": {
            name: _category(name, wanted[name], decisions, examples, seed)
            for name in [c for c in categories if wanted[c] & set(labels)] or categories
        },
    }


def _category(
    name: str, wanted: set[str], decisions: Sequence[Decision], examples: Examples, seed: int
) -> Report:
    is_wanted_C = np.array([label in wanted for label in examples.label_names])
    positive_N = is_wanted_C[examples.labels_N]
    flagged_N = np.array([d.categories[name].action != "allow" for d in decisions])
    asked: dict[str, int] = {}
    for decision in decisions:
        for member in {step.member for step in decision.route if step.category == name}:
            asked[member] = asked.get(member, 0) + 1

    def part(index: IntArray) -> dict[str, float | None]:
        return _counts(positive_N[index], flagged_N[index])

    flags = Flags(positive_N, flagged_N)
    return {
        "positive": sorted(wanted),
        "positives": int(positive_N.sum()),
        "metrics": bootstrap(flags, group_names(examples), resamples=RESAMPLES, seed=seed),
        "members": {member: count / len(decisions) for member, count in asked.items()},
        "sources": _by_source(examples, part),
        "lengths": _by_length(examples, part),
    }


def _labelled(examples: Examples) -> tuple[Examples, int]:
    """Return the labelled examples, only their labels named, and how many had none."""
    index = np.flatnonzero(examples.labels_N != UNLABELLED)
    if not len(index):
        raise DataError("not one example is labelled; name the label column with ?label=")
    kept = examples.select(index)
    used, labels_N = np.unique(kept.labels_N, return_inverse=True)
    names = tuple(examples.label_names[i] for i in used)
    return (
        Examples(kept.texts, labels_N.astype(np.int64), names, kept.groups, kept.sources),
        len(examples) - len(index),
    )


def _positive_column(model: Model, positive: str | None) -> int | None:
    labels = model.labels
    if positive is not None:
        if positive not in labels:
            raise DataError(f"--positive {positive!r}: the model's labels: {', '.join(labels)}")
        return labels.index(positive)
    if len(labels) > 2:
        return None
    return 0 if model.config.neutral == labels[1] else 1


def _chunks(texts: Sequence[str], progress: Progress | None) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), CHUNK_TEXTS):
        yield texts[start : start + CHUNK_TEXTS]
        if progress:
            progress("evaluate", min(start + CHUNK_TEXTS, len(texts)), len(texts))


_Part = Callable[[IntArray], Mapping[str, float | None]]


def _by_source(examples: Examples, part: _Part) -> dict[str, Report]:
    """Return {source: {n, ...}}, by name; empty where the data names no sources."""
    if not examples.sources:
        return {}
    names, of_N = np.unique(np.array(examples.sources, dtype=object), return_inverse=True)
    return _table([str(name) or "(none)" for name in names], of_N, part)


def _by_length(examples: Examples, part: _Part) -> dict[str, Report]:
    lengths_N = np.array([len(text) for text in examples.texts])
    bins = [f"{low:,}-{high - 1:,}" for low, high in pairwise(LENGTHS)]
    names = [*bins, f"{LENGTHS[-1]:,} or more"]
    return _table(names, np.searchsorted(LENGTHS, lengths_N, side="right") - 1, part)


def _table(names: Sequence[str], of_N: npt.NDArray[np.integer], part: _Part) -> dict[str, Report]:
    rows = {name: np.flatnonzero(of_N == i) for i, name in enumerate(names)}
    return {name: {"n": len(index), **part(index)} for name, index in rows.items() if len(index)}


def _counts(positive_N: _Bool, flagged_N: _Bool) -> dict[str, float | None]:
    ones = np.ones(len(positive_N))
    return {"positives": int(positive_N.sum()), **_defined(Flags(positive_N, flagged_N)(ones))}


def _defined(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}
