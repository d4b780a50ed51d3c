"""What a model or a policy said of labelled texts: run once, measured elsewhere.

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
class Question:
    """One yes-or-no question to every text: the true answer, the one given, and the calibrated
    probability behind it, NaN where there is none."""

    positive_N: BoolArray
    flagged_N: BoolArray
    score_N: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelAnswers:
    """What a model said of labelled texts. ``examples`` are those it could score, ``row_N``
    their places in the data, from 0; ``y_N`` indexes the model's labels; ``column`` is the
    positive label's, None where each is held against the rest; ``failures`` says by row why a
    text could not be scored."""

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
    def question(self) -> Question | None:
        """Return the positive label's, flagged above one half; None where there is none."""
        if self.column is None:
            return None
        p_N = self.p_NC[:, self.column].astype(np.float64)
        return Question(self.y_N == self.column, p_N > 0.5, p_N)

    @property
    def cost(self) -> dict[str, Any]:
        return _cost(self.work)

    @property
    def about(self) -> dict[str, Any]:
        """Return what was measured: its ``kind``, ``name``, path and hash."""
        path, family = self.model.path, self.model.config.family
        name = f"{path.name} ({family})"
        return {"kind": "model", "name": name, "model": str(path), "model_hash": self.model.hash}


@dataclass(frozen=True)
class PolicyAnswers:
    """What a policy decided about labelled texts, ``row_N`` their places in the data, from 0;
    ``wanted`` {category: labels that are positive}; ``work`` of its members; ``seconds`` in all."""

    router: PolicyRouter
    examples: Examples
    row_N: IntArray
    decisions: Sequence[Decision]
    wanted: Mapping[str, set[str]]
    unlabelled: int
    work: Mapping[str, Work]
    seconds: float

    @property
    def failures(self) -> Mapping[int, str]:
        rows = zip(self.row_N.tolist(), self.decisions, strict=True)
        return {row: d.error for row, d in rows if d.error is not None}

    @property
    def cost(self) -> dict[str, Any]:
        """Return that of the whole, and each member's with the share it was ``asked`` about;
        members of one model share the work."""
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

    def question(self, category: str) -> Question:
        is_wanted_C = np.array([x in self.wanted[category] for x in self.examples.label_names])
        own = [d.categories[category] for d in self.decisions]
        return Question(
            is_wanted_C[self.examples.labels_N],
            np.array([decision.action != "allow" for decision in own]),
            np.array([np.nan if d.score is None else d.score for d in own]),
        )


def judge(
    judging: Model | PolicyRouter,
    examples: Examples,
    *,
    positive: str | None = None,
    progress: Progress | None = None,
) -> ModelAnswers | PolicyAnswers:
    """Return ``judge_model``'s answers or ``judge_policy``'s."""
    if isinstance(judging, Model):
        return judge_model(judging, examples, positive=positive, progress=progress)
    return judge_policy(judging, examples, positive=positive, progress=progress)


def judge_model(
    model: Model,
    examples: Examples,
    *,
    positive: str | None = None,
    progress: Progress | None = None,
) -> ModelAnswers:
    """Return ``model``'s answers; unlabelled examples are left out.

    The positive label is by default the one of two that is not neutral (else the last). Raises
    DataError where labels do not fit, or not one text could be scored.
    """
    if model.config.task != "multiclass":
        raise DataError(f"{model.path}: only a multiclass model can be held against one label each")
    examples, row_N, unlabelled = _labelled(examples)
    refuse_other_labels(examples.label_names, model.labels)
    column = _positive_column(model, positive)
    calibration, before = model.calibrated(), replace(model.work)
    scored = [model.score(texts) for texts in chunks(examples.texts, "evaluate", progress)]
    p_NC = np.concatenate(
        [calibration.probabilities_NC(part.logits_NC, part.tokens_N) for part in scored]
    )
    failures = {
        int(row_N[i * CHUNK_TEXTS + j]): why
        for i, part in enumerate(scored)
        for j, why in part.errors.items()
    }
    judged = np.flatnonzero(~np.isnan(p_NC).any(axis=1))
    if not len(judged):
        raise DataError(f"{model.path}: not one of {len(examples):,} texts could be scored")
    for i in np.flatnonzero(np.isnan(p_NC).any(axis=1)).tolist():
        failures.setdefault(int(row_N[i]), "its calibrated probabilities are not finite")
    column_of = np.array([model.labels.index(x) for x in examples.label_names])
    return ModelAnswers(
        model,
        examples.select(judged),
        row_N[judged],
        column_of[examples.labels_N[judged]],
        p_NC[judged],
        column,
        unlabelled,
        failures,
        model.work.since(before),
    )


def judge_policy(
    router: PolicyRouter,
    examples: Examples,
    *,
    positive: str | None = None,
    progress: Progress | None = None,
) -> PolicyAnswers:
    """Return the policy's decisions; unlabelled examples are left out.

    A text is positive where its label is one of the category's ``positive`` labels, or is
    ``positive``. Categories that no label is about are left out, unless that is all of them
    (benign texts alone). Raises DataError where labels do not fit.
    """
    examples, row_N, unlabelled = _labelled(examples)
    labels = examples.label_names
    categories = router.policy.categories
    wanted = {c: {positive} if positive else set(categories[c].positive) for c in categories}
    models = {member: router.model(member) for member in router.policy.members}
    known = {x for model in models.values() for x in model.labels}.union(*wanted.values())
    if positive is not None and positive not in labels:
        raise DataError(f"no example is labelled {positive!r}; the labels are {', '.join(labels)}")
    if positive is None:
        to_find = "say which label is to be found: --positive"
        refuse_unknown_labels(labels, known, to="the policy and its members", do=to_find)
    asked = [c for c in categories if wanted[c] & set(labels)] or list(categories)
    before = {member: replace(model.work) for member, model in models.items()}
    decisions: list[Decision] = []
    seconds = 0.0
    for texts in chunks(examples.texts, "evaluate", progress):
        begun = time.perf_counter()
        decisions += router.decide(texts)
        seconds += time.perf_counter() - begun
    return PolicyAnswers(
        router,
        examples,
        row_N,
        decisions,
        {name: wanted[name] for name in asked},
        unlabelled,
        {member: model.work.since(before[member]) for member, model in models.items()},
        seconds,
    )


def _labelled(examples: Examples) -> tuple[Examples, IntArray, int]:
    """Return the labelled examples, only their labels named, which rows they are, and how many
    others there were."""
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
