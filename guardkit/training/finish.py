"""What every new model goes through: calibrated and measured on text it never saw, described,
sealed and given its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardkit.calibration.fit import choose_calibration
from guardkit.calibration.maps import Calibration, calibration_file
from guardkit.data.hashes import examples_hash
from guardkit.data.splits import group_names
from guardkit.errors import ClassifierError
from guardkit.evaluation.measure import evaluate_model
from guardkit.model import artefact
from guardkit.model.asking import Shared
from guardkit.model.card import model_card
from guardkit.model.chunks import CHUNK_TEXTS, chunks
from guardkit.model.loaded import Model, load_scorers, novelty_of
from guardkit.model.novelty import Novelty, novelty_file
from guardkit.model.scored import Scored, joined
from guardkit.text import readings
from guardkit.training.run_folder import RUN_FILES, remove_run_files
from guardkit.types import Examples, Progress


@dataclass(frozen=True)
class TrainResult:
    """A finished model and what was measured on it."""

    path: Path
    metrics: Mapping[str, Any]


def finish_model(
    folder: Path,
    out: Path,
    *,
    calibration: Examples | None,
    measured: Mapping[str, Examples | None],
    data: Mapping[str, Any],
    opening: str | None,
    device: str,
    progress: Progress,
) -> TrainResult:
    """Calibrate what a family left in ``folder`` by each of its scorers, measure it by the default
    one, write its card, publish it.

    Without ``calibration`` the model gives no probabilities, so nothing is measured either.
    """
    # at once: after an hour of calibration would be too late
    artefact.check_layout(folder, besides=RUN_FILES)
    config = artefact.read_config(folder)
    if config.window_pooling == "max":  # what a part of a text decides, another reading may
        config = config.model_copy(update={"also_read": list(readings.ALL)})
        artefact.write_json(folder / artefact.CONFIG, config)
    models = load_scorers(folder, device=device, allow_unverified=True)
    model, others = models[0], dict[str, Calibration]()
    metrics: dict[str, Any] = {"data": data}
    if calibration is not None:
        every, data_hash = score_examples(models, calibration, progress), examples_hash(calibration)
        groups = group_names(calibration)
        fitted, *more = [
            choose_calibration(
                scored.logits_NC,
                scored.tokens_N,
                calibration.labels_N,
                model.labels,
                groups,
                data=data_hash,
            ).calibration
            for scored in every
        ]
        others = by_scorer(models, more)
        write_calibrations(folder, fitted, others)
        write_novelties(folder, models, calibration, every, data=data_hash)
        model = replace(model, calibration=fitted)
        for name, examples in measured.items():
            if examples is not None and len(examples):
                metrics[name] = evaluate_model(model, examples, progress=progress)
    artefact.write_json(folder / artefact.METRICS, metrics)
    card = model_card(out.name, model.config, model.calibration, others, metrics, opening=opening)
    (folder / artefact.CARD).write_text(card, "utf-8")
    remove_run_files(folder)
    artefact.publish(folder, out)
    return TrainResult(out, metrics)


def score_examples(models: Sequence[Model], examples: Examples, progress: Progress) -> list[Scored]:
    """Score examples by each of one artefact's scorers, novelty with them; what one scorer
    computed of a text no other computes again. Raises ClassifierError where one cannot be
    scored."""
    found: list[list[Scored]] = []
    for i, texts in enumerate(chunks(examples.texts, "calibrate", progress)):
        shared: Shared = {}
        found.append([m.score(texts, novelty=True, shared=shared) for m in models])
        for scored in found[-1]:
            for index, reason in scored.errors.items():
                raise ClassifierError(f"calibration text {i * CHUNK_TEXTS + index}: {reason}")
    return [joined(parts) for parts in zip(*found, strict=True)]


def by_scorer(models: Sequence[Model], others: Sequence[Calibration]) -> dict[str, Calibration]:
    """Return the calibrations of all ``models`` but the first, by the names of their scorers."""
    names = [model.scorer for model in models[1:]]
    return {name: own for name, own in zip(names, others, strict=True) if name is not None}


def write_calibrations(
    folder: Path, default: Calibration, others: Mapping[str, Calibration]
) -> None:
    artefact.write_json(folder / artefact.CALIBRATION, calibration_file(default, others))


def write_novelties(
    folder: Path, models: Sequence[Model], examples: Examples, every: Sequence[Scored], *, data: str
) -> None:
    """Write the novelty of ``examples`` by each scorer that gives one; nothing where the default
    one gives none."""
    default, *rest = [novelty_of(examples, scored, data=data) for scored in every]
    if default is None:
        return
    names = [model.scorer for model in models[1:]]
    others: dict[str, Novelty] = {
        name: own
        for name, own in zip(names, rest, strict=True)
        if name is not None and own is not None
    }
    artefact.write_json(folder / artefact.NOVELTY, novelty_file(default, others))
