"""What every new model goes through: calibrated and measured on text it never saw, described,
sealed and given its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardkit.calibration.fit import choose_calibration
from guardkit.data.hashes import examples_hash
from guardkit.data.splits import group_names
from guardkit.errors import ClassifierError
from guardkit.evaluation.measure import evaluate_model
from guardkit.model import artefact
from guardkit.model.card import model_card
from guardkit.model.chunks import CHUNK_TEXTS, chunks
from guardkit.model.loaded import Model, load_model, novelty_of
from guardkit.model.scored import Scored, joined
from guardkit.text import readings
from guardkit.training.run_folder import remove_run_files
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
    """Calibrate and measure what a family left in ``folder``, write its card, publish it.

    Without ``calibration`` the model gives no probabilities, so nothing is measured either.
    """
    config = artefact.read_config(folder)
    if config.window_pooling == "max":  # what a part of a text decides, another reading may
        config = config.model_copy(update={"also_read": list(readings.ALL)})
        artefact.write_json(folder / artefact.CONFIG, config)
    model = load_model(folder, device=device, allow_unverified=True)
    metrics: dict[str, Any] = {"data": data}
    if calibration is not None:
        scored, data_hash = score_examples(model, calibration, progress), examples_hash(calibration)
        fitted = choose_calibration(
            scored.logits_NC,
            scored.tokens_N,
            calibration.labels_N,
            model.labels,
            group_names(calibration),
            data=data_hash,
        ).calibration
        artefact.write_json(folder / artefact.CALIBRATION, fitted)
        if (novelty := novelty_of(calibration, scored, data=data_hash)) is not None:
            artefact.write_json(folder / artefact.NOVELTY, novelty)
        model = replace(model, calibration=fitted)
        for name, examples in measured.items():
            if examples is not None and len(examples):
                metrics[name] = evaluate_model(model, examples, progress=progress)
    artefact.write_json(folder / artefact.METRICS, metrics)
    card = model_card(out.name, model.config, model.calibration, metrics, opening=opening)
    (folder / artefact.CARD).write_text(card, "utf-8")
    remove_run_files(folder)
    artefact.publish(folder, out)
    return TrainResult(out, metrics)


def score_examples(model: Model, examples: Examples, progress: Progress) -> Scored:
    """Score examples, novelty with them. Raises ClassifierError where one cannot be scored."""
    scored: list[Scored] = []
    for i, texts in enumerate(chunks(examples.texts, "calibrate", progress)):
        scored.append(model.score(texts, novelty=True))
        for index, reason in scored[-1].errors.items():
            raise ClassifierError(f"calibration text {i * CHUNK_TEXTS + index}: {reason}")
    return joined(scored)
