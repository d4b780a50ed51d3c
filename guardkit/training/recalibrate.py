"""The calibrate flow: a model's probabilities fitted anew to text of the user's own.

load -> refuse what it was trained on -> score -> choose a map -> copy, card -> publish
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from guardkit.calibration.fit import calibration_metrics, choose_calibration, log_losses
from guardkit.calibration.maps import Calibration, Method
from guardkit.data.hashes import examples_hash
from guardkit.data.labels import labelled, refuse_other_labels
from guardkit.data.splits import group_names
from guardkit.errors import DataError
from guardkit.metrics import Interval, Intervals, bootstrap, count_groups
from guardkit.model import artefact
from guardkit.model.card import recalibrated_card
from guardkit.model.loaded import Model, load_scorers
from guardkit.training.finish import (
    by_scorer,
    score_examples,
    write_calibrations,
    write_novelties,
)
from guardkit.training.overlap import refuse_training_texts
from guardkit.types import UNLABELLED, Examples, FloatArray, Progress

#: Groups of each label: ten for a parameter of the simplest map, and a map has one a label.
LEAST_GROUPS = 10
RESAMPLES = 1000


@dataclass(frozen=True)
class Recalibrated:
    """The new model and what the calibration of its default scorer is worth; ``gain`` is of
    log-loss, before less after. {name: {value, low, high}}, ``after`` cross-fitted. ``others`` are
    the calibrations of its other scorers, by name."""

    path: Path
    calibration: Calibration
    others: Mapping[str, Calibration]
    before: Intervals
    after: Intervals
    gain: Interval


def recalibrate(
    ref: str,
    examples: Examples,
    out: Path,
    *,
    method: Method | Literal["auto"] = "auto",
    device: str = "auto",
    progress: Progress,
) -> Recalibrated:
    """Copy the model ``ref`` to ``out``, each of its scorers calibrated on ``examples``.

    ``out`` may be the model's own folder, which is then replaced whole. Raises DataError where
    the examples are too few, lack a label or are what the model was trained on.
    """
    models = load_scorers(ref, device=device)
    model = models[0]
    if out.resolve() != model.path:
        artefact.refuse_to_replace(out)
    examples = _in_columns(examples, model)
    refuse_training_texts(ref, model, examples)
    groups = group_names(examples)
    _refuse_too_few(examples, groups)
    every, data_hash = score_examples(models, examples, progress), examples_hash(examples)
    chosen, *more = [
        choose_calibration(
            scored.logits_NC,
            scored.tokens_N,
            examples.labels_N,
            model.labels,
            groups,
            data=data_hash,
            method=method,
            replaces=own.calibration,
        )
        for own, scored in zip(models, every, strict=True)
    ]
    others = by_scorer(models, [c.calibration for c in more])
    with artefact.workspace(out) as folder:
        shutil.copytree(model.path, folder, dirs_exist_ok=True)
        (folder / artefact.SUMS).unlink()
        write_calibrations(folder, chosen.calibration, others)
        write_novelties(folder, models, examples, every, data=data_hash)
        _describe(folder, model, chosen.calibration, others, out.name)
        artefact.publish(folder, out)

    def intervals(log_odds_NC: FloatArray) -> Intervals:
        measure = calibration_metrics(examples.labels_N, log_odds_NC)
        return bootstrap(measure, groups, resamples=RESAMPLES, seed=0)

    saved_N = log_losses(examples.labels_N, chosen.before_NC)
    saved_N -= log_losses(examples.labels_N, chosen.after_NC)
    gain = bootstrap(
        lambda weight_N: {"gain": float(weight_N @ saved_N / weight_N.sum())},
        groups,
        resamples=RESAMPLES,
        seed=0,
    )["gain"]
    before, after = intervals(chosen.before_NC), intervals(chosen.after_NC)
    return Recalibrated(out, chosen.calibration, others, before, after, gain)


def _in_columns(examples: Examples, model: Model) -> Examples:
    """Return the labelled examples, their labels in the order of the model's."""
    if model.config.task != "multiclass":
        raise DataError(f"{model.path}: only a multiclass model can be held against one label each")
    examples = labelled(examples)
    used = [examples.label_names[c] for c in np.unique(examples.labels_N)]
    refuse_other_labels(used, model.labels)
    column = [model.labels.index(x) if x in used else UNLABELLED for x in examples.label_names]
    labels_N = np.array(column, np.int64)[examples.labels_N]
    return Examples(examples.texts, labels_N, model.labels, examples.groups, examples.sources)


def _refuse_too_few(examples: Examples, groups: Sequence[str]) -> None:
    for c, name in enumerate(examples.label_names):
        there = count_groups(groups, examples.labels_N == c)
        if there < LEAST_GROUPS:
            raise DataError(
                f"{there} examples labelled {name!r} (groups counted once); calibrating needs "
                f"{LEAST_GROUPS} of each label at least, and some hundreds to be any good"
            )


def _describe(
    folder: Path,
    model: Model,
    calibration: Calibration,
    others: Mapping[str, Calibration],
    name: str,
) -> None:
    """Say in the copy's metrics and card that it was calibrated anew."""
    metrics, card = folder / artefact.METRICS, folder / artefact.CARD
    record: dict[str, Any] = {}
    if metrics.is_file():
        record = json.loads(metrics.read_text("utf-8"))
    # its results stay, for the order of texts that they tell of, and say whose they are
    artefact.write_json(metrics, record | {"recalibrated_from": model.hash})
    text = card.read_text("utf-8") if card.is_file() else f"# {name}\n"
    card.write_text(recalibrated_card(text, calibration, others), "utf-8")
