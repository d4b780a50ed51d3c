"""How often a verdict flips when a text is changed in a way that must not change it.

The changes are those of ``invariances``. A verdict that flips hangs on the form of a text, not on
what it says.

Shape letters: N texts, C labels; n those of them that a change concerns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from guardkit.data.hashes import text_hash
from guardkit.data.splits import group_names
from guardkit.evaluation.invariances import TRANSFORMS
from guardkit.evaluation.measure import RESAMPLES, Metrics, Report
from guardkit.evaluation.predictions import (
    ModelPredictions,
    PolicyPredictions,
    decisions_of,
    probabilities_of,
)
from guardkit.log_odds import logit_N
from guardkit.metrics import bootstrap, rates
from guardkit.types import BoolArray, Examples, IntArray, Progress

#: Texts of each label that are changed, unless more are asked for.
PER_LABEL = 500
#: Probabilities nearer to 0 or 1 than this have log-odds that rounding decides.
NEAREST = 1e-6
UNDEFINED: dict[str, float | None] = {"value": None, "low": None, "high": None}


@dataclass(frozen=True)
class _Answers:
    """What was said of N texts: ``verdict_N`` is 1 where a text is flagged, else 0; of a model
    without a positive label it is the label's index. ``p_NC`` are the probabilities behind it,
    one column where there is one, NaN where there is none; ``failed_N`` marks what could not be
    judged."""

    verdict_N: IntArray
    p_NC: npt.NDArray[np.float64]
    failed_N: BoolArray

    def at(self, index: IntArray) -> _Answers:
        return _Answers(self.verdict_N[index], self.p_NC[index], self.failed_N[index])


def with_invariances(
    report: Report,
    predictions: ModelPredictions | PolicyPredictions,
    *,
    per_label: int = PER_LABEL,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Return ``report`` with ``invariances``, that of a policy in each category.

    They hold, for each transform, ``n``, the texts that it changes; ``flips``, the share of these
    whose verdict is another; ``to_passed``, the share of those flagged before that no longer are,
    and ``to_flagged``, the share of the others that now are (None where no label is the positive
    one); and ``log_odds_change``, its mean absolute size. ``any`` is about all transforms together:
    a text flips where one of them flips it. A model's texts that could not be scored when changed
    count in ``errors`` alone; a policy's have the verdict that ``on_error`` gives, too.
    """
    index = sample(predictions.examples, per_label)
    measured = _measure(predictions, index, seed, progress)
    about = {
        "per_label": per_label,
        "texts": len(index),
        "labels": _counts(predictions.examples, index),
    }
    if isinstance(predictions, ModelPredictions):
        return {**report, "invariances": {**about, **measured[""]}}
    categories = {
        name: {**category, "invariances": {**about, **measured[name]}}
        for name, category in report["categories"].items()
    }
    return {**report, "categories": categories}


def sample(examples: Examples, per_label: int) -> IntArray:
    """Return the rows of at most ``per_label`` texts of each label, the same ones in any order of
    the data: those whose hashes are lowest."""
    by_label: dict[int, list[tuple[bytes, int]]] = {}
    for i, (text, y) in enumerate(zip(examples.texts, examples.labels_N.tolist(), strict=True)):
        by_label.setdefault(y, []).append((text_hash(text), i))
    return np.array(sorted(i for of in by_label.values() for _, i in sorted(of)[:per_label]))


def _counts(examples: Examples, index: IntArray) -> dict[str, dict[str, int]]:
    sampled_N = examples.labels_N[index]
    return {
        name: {"texts": int((sampled_N == y).sum()), "of": int((examples.labels_N == y).sum())}
        for y, name in enumerate(examples.label_names)
        if (examples.labels_N == y).any()
    }


def _measure(
    predictions: ModelPredictions | PolicyPredictions,
    index: IntArray,
    seed: int,
    progress: Progress | None,
) -> dict[str, Report]:
    """Return the rows of each category, a model's under the name ''."""
    examples = predictions.examples
    groups = [group_names(examples)[i] for i in index.tolist()]
    texts = [examples.texts[i] for i in index.tolist()]
    before = {name: answers.at(index) for name, answers in _answers(predictions).items()}
    is_binary = isinstance(predictions, PolicyPredictions) or predictions.column is not None
    tables: dict[str, dict[str, Report]] = {name: {} for name in before}
    counted_N = {name: np.zeros(len(texts), bool) for name in before}
    flipped_N = {name: np.zeros(len(texts), bool) for name in before}
    for k, transform in enumerate(TRANSFORMS):
        variants = [transform(text) for text in texts]
        changed = np.flatnonzero([a != b for a, b in zip(variants, texts, strict=True)])
        shown = _within(progress, k * len(texts), len(TRANSFORMS) * len(texts), transform.name)
        for table in tables.values():
            none = _flips(np.empty(0, np.int64), np.empty(0, bool), [], is_binary, seed)
            row = {"sentence": transform.sentence, "n": 0, "errors": 0, **none}
            table[transform.name] = {**row, "log_odds_change": UNDEFINED}
        if not len(changed):
            continue
        new_texts = [variants[i] for i in changed.tolist()]
        after = _asked_again(predictions, index[changed], new_texts, shown)
        for name, new in _answers(after).items():
            # a policy decides in any case; a model that failed has said nothing
            decides = isinstance(predictions, PolicyPredictions)
            said = np.arange(len(changed)) if decides else np.flatnonzero(~new.failed_N)
            rows, new_n = changed[said], new.at(said)
            old_n = before[name].at(rows)
            flips_n = old_n.verdict_N != new_n.verdict_N
            counted_N[name][rows] = True
            flipped_N[name][rows] |= flips_n
            own = [groups[i] for i in rows.tolist()]
            tables[name][transform.name] |= {
                "n": len(rows),
                "errors": int(new.failed_N.sum()),
                **_flips(old_n.verdict_N, flips_n, own, is_binary, seed),
                "log_odds_change": _log_odds_change(old_n, new_n, own, seed),
            }
    if progress:
        progress("invariances", len(TRANSFORMS) * len(texts), len(TRANSFORMS) * len(texts))
    result = {}
    for name, table in tables.items():
        rows = np.flatnonzero(counted_N[name])
        own = [groups[i] for i in rows.tolist()]
        verdict_n, flips_n = before[name].verdict_N[rows], flipped_N[name][rows]
        any_of_them = {"n": len(rows), **_flips(verdict_n, flips_n, own, is_binary, seed)}
        result[name] = {"any": any_of_them, "transforms": table}
    return result


def _flips(
    verdict_N: IntArray, flips_N: BoolArray, groups: Sequence[str], is_binary: bool, seed: int
) -> Mapping[str, Any]:
    """Return the shares of texts that flip: of all, of those flagged before, and of the others."""
    result: Metrics = dict.fromkeys(("flips", "to_passed", "to_flagged"), UNDEFINED)
    if not len(groups):
        return result
    everything_N = np.ones(len(groups), bool)
    of_all = rates(everything_N, flips_N, groups, resamples=RESAMPLES, seed=seed)
    result["flips"] = of_all["recall"]
    if is_binary:
        by = rates(verdict_N == 1, flips_N, groups, resamples=RESAMPLES, seed=seed)
        result |= {"to_passed": by["recall"], "to_flagged": by["fpr"]}
    return result


def _log_odds_change(
    old: _Answers, new: _Answers, groups: Sequence[str], seed: int
) -> dict[str, float | None]:
    """Return the mean absolute change of the log-odds: of the positive label, or of the label that
    the text had before."""
    column_N = old.verdict_N if old.p_NC.shape[1] > 1 else np.zeros(len(groups), np.int64)
    row_N = np.arange(len(groups))
    ends = [np.clip(x.p_NC[row_N, column_N], NEAREST, 1 - NEAREST) for x in (old, new)]
    change_N = np.abs(logit_N(ends[1]) - logit_N(ends[0]))
    scored = np.flatnonzero(~np.isnan(change_N))
    if not len(scored):
        return UNDEFINED
    change_n = change_N[scored]

    def mean(weight_n: npt.NDArray[np.float64]) -> Mapping[str, float]:
        total = weight_n.sum()
        return {"mean": float(weight_n @ change_n / total) if total else np.nan}

    own = [groups[i] for i in scored.tolist()]
    return bootstrap(mean, own, resamples=RESAMPLES, seed=seed)["mean"]


def _answers(predictions: ModelPredictions | PolicyPredictions) -> dict[str, _Answers]:
    """Return what was said of each text, by category; a model's under the name ''."""
    if isinstance(predictions, PolicyPredictions):
        failed_N = np.array([d.error is not None for d in predictions.decisions], bool)
        own = {name: predictions.binary(name) for name in predictions.positive_labels}
        return {
            name: _Answers(x.flagged_N.astype(np.int64), x.score_N[:, None], failed_N)
            for name, x in own.items()
        }
    p_NC = predictions.p_NC.astype(np.float64)
    failed_N = np.array(np.isnan(p_NC).any(axis=1))
    if (binary := predictions.binary) is None:
        return {"": _Answers(np.nan_to_num(p_NC).argmax(axis=1), p_NC, failed_N)}
    return {"": _Answers(binary.flagged_N.astype(np.int64), binary.score_N[:, None], failed_N)}


def _asked_again(
    predictions: ModelPredictions | PolicyPredictions,
    index: IntArray,
    texts: Sequence[str],
    progress: Progress | None,
) -> ModelPredictions | PolicyPredictions:
    """Return what is predicted for ``texts``, changed ones of the texts at ``index``."""
    examples = replace(predictions.examples.select(index), texts=texts)
    if isinstance(predictions, PolicyPredictions):
        decisions, _ = decisions_of(predictions.router, texts, progress)
        return replace(predictions, examples=examples, decisions=decisions)
    p_NC, _ = probabilities_of(predictions.model, texts, progress)
    return replace(predictions, examples=examples, y_N=predictions.y_N[index], p_NC=p_NC)


def _within(progress: Progress | None, before: int, of: int, name: str) -> Progress | None:
    """Return the progress of one transform as a part of that of all of them."""
    if progress is None:
        return None

    def shown(stage: str, done: int, total: int, note: str = "") -> None:
        progress("invariances", before + done, of, name)

    return shown
