"""What a model or a policy predicts for labelled texts: run once here, measured elsewhere.

Shape letters: N texts, C labels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from guardkit.data.labels import refuse_other_labels, refuse_unknown_labels
from guardkit.errors import DataError
from guardkit.model.chunks import CHUNK_TEXTS, chunks
from guardkit.model.loaded import Model, Work
from guardkit.policy.router import PolicyRouter
from guardkit.types import UNLABELLED, BoolArray, Decision, Examples, FloatArray, IntArray, Progress


@dataclass(frozen=True)
class BinaryPredictions:
    """Positive or not, for every text: the true class, the predicted one (``flagged_N``), and the
    calibrated probability behind it, NaN where there is none."""

    positive_N: BoolArray
    flagged_N: BoolArray
    score_N: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelPredictions:
    """What a model predicts for labelled texts.

    ``examples`` are those it could score, ``row_N`` their rows in the data, from 0; ``y_N``
    are the true labels, as indices of the model's; ``p_NC`` the calibrated probabilities.
    ``column`` is the positive label's, None where each label is measured against the rest.
    ``failures`` says by row why a text could not be scored.
    """

    model: Model
    examples: Examples
    row_N: IntArray
    y_N: IntArray
    p_NC: FloatArray
    column: int | None
    unlabelled: int
    failures: Mapping[int, str]
    work: Work

    @property
    def binary(self) -> BinaryPredictions | None:
        """Return the predictions of the positive label, flagged above one half; None where no
        label is the positive one."""
        if self.column is None:
            return None
        p_N = self.p_NC[:, self.column].astype(np.float64)
        return BinaryPredictions(self.y_N == self.column, p_N > 0.5, p_N)

    @property
    def cost(self) -> dict[str, Any]:
        return _cost(self.work)

    @property
    def about(self) -> dict[str, Any]:
        """Return what was measured: its ``kind``, ``name``, path and hash."""
        path, family = self.model.path, self.model.config.family
        scorer = self.model.scorer
        how = family if scorer is None else f"{family}, {scorer}"
        about = {"kind": "model", "name": f"{path.name} ({how})", "model": str(path)}
        return about | {"model_hash": self.model.hash} | ({"scorer": scorer} if scorer else {})


@dataclass(frozen=True)
class PolicyPredictions:
    """What a policy decides about labelled texts, whose rows in the data are ``row_N``, from 0.

    ``positive_labels`` {category: its positive labels} names the categories that are measured;
    ``work`` is what each member did, ``seconds`` the time that everything took.
    """

    router: PolicyRouter
    examples: Examples
    row_N: IntArray
    decisions: Sequence[Decision]
    positive_labels: Mapping[str, set[str]]
    unlabelled: int
    work: Mapping[str, Work]
    seconds: float

    @property
    def failures(self) -> Mapping[int, str]:
        rows = zip(self.row_N.tolist(), self.decisions, strict=True)
        return {row: d.error for row, d in rows if d.error is not None}

    @property
    def cost(self) -> dict[str, Any]:
        """Return the cost of everything, and of each member with the share of the texts it was
        ``asked`` about; members that share a model share its cost."""
        n = len(self.decisions)
        members = {m: {"asked": w.texts / n, **_cost(w)} for m, w in self.work.items()}
        truncated = sum(decision.truncated for decision in self.decisions)
        return {**_speed(n, self.seconds), "truncated": truncated, "members": members}

    @property
    def about(self) -> dict[str, Any]:
        """Return what was measured: its ``kind``, ``name``, path and hash, and its models'."""
        policy = self.router.policy
        return {
            "kind": "policy",
            "name": policy.name,
            "policy": str(policy.path),
            "policy_hash": self.router.hash,
            "models": self.router.model_hashes(),
        }

    def binary(self, category: str) -> BinaryPredictions:
        """Return the predictions of one category, flagged where it does not allow the text."""
        positive = self.positive_labels[category]
        is_positive_C = np.array([label in positive for label in self.examples.label_names])
        own = [d.categories[category] for d in self.decisions]
        return BinaryPredictions(
            is_positive_C[self.examples.labels_N],
            np.array([decision.action != "allow" for decision in own]),
            np.array([np.nan if d.score is None else d.score for d in own]),
        )


def predict(
    predictor: Model | PolicyRouter,
    examples: Examples,
    *,
    positive: str | None = None,
    progress: Progress | None = None,
) -> ModelPredictions | PolicyPredictions:
    """Return what ``predict_with_model`` or ``predict_with_policy`` does."""
    if isinstance(predictor, Model):
        return predict_with_model(predictor, examples, positive=positive, progress=progress)
    return predict_with_policy(predictor, examples, positive=positive, progress=progress)


def predict_with_model(
    model: Model,
    examples: Examples,
    *,
    positive: str | None = None,
    progress: Progress | None = None,
) -> ModelPredictions:
    """Return ``model``'s predictions; unlabelled examples are left out.

    Of two labels the positive one is by default the one that is not neutral (where none is: the
    last). Raises DataError where labels do not fit, or where not one text could be scored.
    """
    if model.config.task != "multiclass":
        raise DataError(f"{model.path}: only a multiclass model can be held against one label each")
    examples, row_N, unlabelled = _labelled(examples)
    refuse_other_labels(examples.label_names, model.labels)
    column = _positive_column(model, positive)
    before = replace(model.work)
    p_NC, errors = probabilities_of(model, examples.texts, progress)
    failures = {int(row_N[i]): why for i, why in errors.items()}
    scored_index = np.flatnonzero(~np.isnan(p_NC).any(axis=1))
    if not len(scored_index):
        raise DataError(f"{model.path}: not one of {len(examples):,} texts could be scored")
    column_of = np.array([model.labels.index(x) for x in examples.label_names])
    return ModelPredictions(
        model,
        examples.select(scored_index),
        row_N[scored_index],
        column_of[examples.labels_N[scored_index]],
        p_NC[scored_index],
        column,
        unlabelled,
        failures,
        model.work.since(before),
    )


def predict_with_policy(
    router: PolicyRouter,
    examples: Examples,
    *,
    positive: str | None = None,
    progress: Progress | None = None,
) -> PolicyPredictions:
    """Return the policy's decisions; unlabelled examples are left out.

    A text is positive where its label is one of the category's ``positive`` labels, or is
    ``positive``. A category is left out where no example's label is positive for it, unless that
    is so for all of them (benign texts alone). Raises DataError where labels do not fit.
    """
    examples, row_N, unlabelled = _labelled(examples)
    labels = examples.label_names
    categories = router.policy.categories
    positive_labels = {
        c: {positive} if positive else set(categories[c].positive) for c in categories
    }
    models = {member: router.model(member) for member in router.policy.members}
    known = {x for model in models.values() for x in model.labels}.union(*positive_labels.values())
    if positive is not None and positive not in labels:
        raise DataError(f"no example is labelled {positive!r}; the labels are {', '.join(labels)}")
    if positive is None:
        to_find = "say which label is to be found: --positive"
        refuse_unknown_labels(labels, known, to="the policy and its members", do=to_find)
    measured = [c for c in categories if positive_labels[c] & set(labels)] or list(categories)
    before = {member: replace(model.work) for member, model in models.items()}
    decisions, seconds = decisions_of(router, examples.texts, progress)
    return PolicyPredictions(
        router,
        examples,
        row_N,
        decisions,
        {name: positive_labels[name] for name in measured},
        unlabelled,
        {member: model.work.since(before[member]) for member, model in models.items()},
        seconds,
    )


def probabilities_of(
    model: Model, texts: Sequence[str], progress: Progress | None = None
) -> tuple[FloatArray, dict[int, str]]:
    """Return the calibrated probabilities of ``texts``, p_NC, NaN where one could not be scored,
    and why it could not by its index."""
    model.calibrated()
    found = [
        model.probabilities_of(model.score(chunk)) for chunk in chunks(texts, "evaluate", progress)
    ]
    return np.concatenate([p_NC for p_NC, _ in found]), {
        i * CHUNK_TEXTS + j: why for i, (_, errors) in enumerate(found) for j, why in errors.items()
    }


def decisions_of(
    router: PolicyRouter, texts: Sequence[str], progress: Progress | None = None
) -> tuple[list[Decision], float]:
    """Return the policy's decisions about ``texts``, and the seconds they took."""
    decisions: list[Decision] = []
    seconds = 0.0
    for chunk in chunks(texts, "evaluate", progress):
        begun = time.perf_counter()
        decisions += router.decide(chunk)
        seconds += time.perf_counter() - begun
    return decisions, seconds


def _labelled(examples: Examples) -> tuple[Examples, IntArray, int]:
    """Return the labelled examples with only their own labels as ``label_names``, their rows, and
    how many examples had no label."""
    index = np.flatnonzero(examples.labels_N != UNLABELLED)
    if not len(index):
        raise DataError("not one example is labelled; name the label column with ?label=")
    kept = examples.select(index)
    used, labels_N = np.unique(kept.labels_N, return_inverse=True)
    names = tuple(examples.label_names[i] for i in used)
    return (
        Examples(kept.texts, labels_N.astype(np.int64), names, kept.groups, kept.sources),
        index,
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


def _cost(work: Work) -> dict[str, Any]:
    tokens = work.tokens / work.texts if work.texts else None
    speed = _speed(work.texts, work.seconds)
    return {**speed, "tokens_per_text": tokens, "truncated": work.truncated}


def _speed(texts: int, seconds: float) -> dict[str, Any]:
    return {
        "texts": texts,
        "seconds": seconds,
        "texts_per_s": texts / seconds if seconds else None,
        "ms_per_text": 1000 * seconds / texts if texts else None,
    }
