"""The train flow: examples, a family's training, calibration on data it never saw, a model.

    load -> hold out -> family.train -> calibrate -> measure -> card -> publish

Work goes to ``OUT.partial`` and moves to ``OUT`` in one rename once all of it is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from guardkit.calibration.fit import choose_calibration, refuse_one_group
from guardkit.data.examples import group_names, load_examples, normalised, split_by_group
from guardkit.data.hashes import texts_hash
from guardkit.errors import (
    ClassifierError,
    ConfigError,
    DataError,
    TrainingInterrupted,
    UsageError,
)
from guardkit.evaluation.measure import evaluate_model
from guardkit.model import artefact
from guardkit.model.card import model_card
from guardkit.model.chunks import CHUNK_TEXTS, chunks
from guardkit.model.loaded import Model, Scored, joined, load_model, novelty_of
from guardkit.plugins import installed_plugins
from guardkit.text import readings
from guardkit.training.adapt import (
    OverDefence,
    adapt_model,
    few_examples,
    refuse_training_options,
)
from guardkit.training.run_folder import RunFolder, remove_run_files
from guardkit.types import (
    UNLABELLED,
    ClassifierFamily,
    Examples,
    Progress,
    SupportsAdapt,
    TrainingData,
)
from guardkit.yamlfile import read_yaml

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class TrainResult:
    """A finished model and what was measured on it."""

    path: Path
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Parts:
    """What each set of examples may be used for. No text that validation, calibration or test
    holds is trained on or calibrated on; of texts in two sets the later one here keeps it."""

    train: Examples  # weights
    validation: Examples  # early stopping
    calibration: Examples  # the probability map; the family never sees it
    test: Examples | None  # measured once, at the end
    pretrain: Examples | None  # text without labels


def train_model(
    plugin: str,
    data: str,
    out: Path,
    *,
    preset: str | None,
    config_file: Path | None,
    overrides: Mapping[str, str],
    init: str | None,
    pretrain_data: str | None,
    calibration_data: str | None,
    card: Path | None,
    resume: bool,
    device: str,
    progress: Progress,
    over_defence: OverDefence | None = None,
) -> TrainResult | None:
    """Train, calibrate and measure a model of family ``plugin`` and write it to ``out``.

    ``data``, ``pretrain_data`` and ``calibration_data`` are data specs (``data.examples``).
    Without a validation split a tenth of the training groups is held out; without
    ``calibration_data`` half of the held-out groups become the calibration set. ``card`` is a
    Markdown file that opens the model card. Raises UsageError before any work is done, and
    TrainingInterrupted, after which the same call with ``resume`` goes on.

    Where ``init`` is a model of a family that adapts its models, and all examples have one label,
    that model is adapted to them (``guardkit.training.adapt``), within ``over_defence``.

    Under ``torchrun`` every process makes this call; all but the first return None.
    """
    family = installed_plugins().family(plugin)
    few = few_examples(init, data) if isinstance(family, SupportsAdapt) else None
    if isinstance(family, SupportsAdapt) and init is not None and few is not None:
        given = {
            "--preset": preset, "--config": config_file, "--set": overrides, "--card": card,
            "--pretrain-data": pretrain_data, "--calibration-data": calibration_data,
            "--resume": resume,
        }  # fmt: skip
        refuse_training_options([option for option, value in given.items() if value])
        limit = over_defence or OverDefence()
        report = adapt_model(
            plugin, family, init, few, out, over_defence=limit, device=device, progress=progress
        )
        return TrainResult(out, {"adapted": report})
    if over_defence is not None:
        raise UsageError(
            "--over-defence, --max-over-defence: for adapting a model of one's own (--init MODEL) "
            "to examples that all have one label"
        )
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and not getattr(family, "data_parallel", False):
        raise ConfigError(f"plugin {plugin!r} trains in one process; start it without torchrun")
    config = build_config(family, preset, config_file, overrides)
    parts = load_parts(data, pretrain_data, calibration_data)
    leads = not several or os.environ["RANK"] == "0"
    run = {
        "plugin": plugin,
        "options": config.model_dump(mode="json"),
        "init": init,
        "train": fingerprint(parts.train),
        "validation": fingerprint(parts.validation),
        "pretrain": fingerprint(parts.pretrain) if parts.pretrain else None,
    }
    opening = read_card(card) if card else None
    folder = RunFolder(out, family)
    with folder.begun(run, resume=resume) if leads else nullcontext(resume) as goes_on:
        try:
            trained = family.train(
                TrainingData(parts.train, parts.validation), config, folder.path,
                pretrain=parts.pretrain, init=init, resume=goes_on, device=device,
                progress=progress,
            )  # fmt: skip
        except TrainingInterrupted:
            raise
        except Exception:
            if leads:
                folder.remove_unless_saved()
            raise
        if not leads:
            return None
        result = finish_model(
            trained, out,
            calibration=parts.calibration,
            measured={
                "validation": parts.validation, "calibration": parts.calibration,
                "test": parts.test,
            },
            data={k: run[k] for k in ("train", "validation", "pretrain")},
            opening=opening, device=device, progress=progress,
        )  # fmt: skip
        folder.remove()
    return result


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
        scored, data_hash = score_examples(model, calibration, progress), fingerprint(calibration)
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


def build_config(
    family: ClassifierFamily,
    preset: str | None,
    config_file: Path | None,
    overrides: Mapping[str, str],
) -> Any:
    """Return the family's options: preset, then file (YAML), then ``key=value``, later wins.

    Raises ConfigError that lists every mistake and what was allowed.
    """
    options: dict[str, Any] = {}
    if preset is not None:
        if preset not in family.presets:
            raise ConfigError(
                f"--preset {preset!r}: {family.name} has {', '.join(family.presets) or 'none'}"
            )
        options |= family.presets[preset]
    if config_file is not None:
        options |= _read_options(config_file)
    return check_options(family.name, family.config, options | dict(overrides))


def check_options(of: str, config: type[BaseModel], options: Mapping[str, Any]) -> Any:
    """Return ``options`` as a ``config``, or raise ConfigError with every mistake."""
    try:
        # from the command line every value is text: lax mode reads "3" as 3, "true" as True
        return config.model_validate(options)
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            name = ".".join(map(str, detail["loc"])) or "options"
            if detail["type"] == "extra_forbidden":
                lines.append(f"{name}: no such option; {of} has {', '.join(config.model_fields)}")
            else:
                lines.append(f"{name}: {detail['msg']} (got {detail['input']!r:.80})")
        raise ConfigError(f"options of {of}:\n  " + "\n  ".join(lines)) from error


def load_parts(data: str, pretrain_data: str | None, calibration_data: str | None) -> Parts:
    """Load the specs and decide what each example may be used for.

    Raises DataError where a label has no example to train or to calibrate on.
    """
    splits = load_examples(data)
    if "train" not in splits:
        raise DataError(f"{data}: no train split; it has {', '.join(splits)}. See ?split=NAME")
    train = _labelled(splits["train"])
    if len(train.label_names) < 2:
        raise DataError(
            f"{data}: one label only, {', '.join(train.label_names)}; two are the least, unless "
            "--init names a model to adapt to them: one of plugin mdlm, which has this label"
        )
    if "validation" in splits:
        held_out = _labelled(splits["validation"])
    else:
        train, held_out = split_by_group(train, HELD_OUT_SHARE, seed=0)
    if calibration_data is None:
        # another seed: by the same one every held-out group would fall on one side
        validation, calibration = split_by_group(held_out, 0.5, seed=1)
    else:
        validation = held_out
        calibration = calibration_set(calibration_data, train.label_names)
    test = _labelled(splits["test"]) if "test" in splits else None

    tested = _texts(test)
    calibration = _without(calibration, tested)
    validation = _without(validation, tested | _texts(calibration))
    reserved = tested | _texts(calibration) | _texts(validation)
    train = _without(train, reserved)
    for what, examples in (("train", train), ("calibrate", calibration)):
        if missing := _unseen_labels(examples):
            raise DataError(
                f"{calibration_data or data}: no example labelled {missing[0]!r} to {what} on, "
                "once texts that stand in a later set are left out"
            )
    refuse_one_group(group_names(calibration))
    pretrain = _pretrain_texts(splits["train"], pretrain_data, reserved)
    return Parts(train, validation, calibration, test, pretrain)


def _texts(examples: Examples | None) -> set[str]:
    return {normalised(text) for text in examples.texts} if examples else set()


def _without(examples: Examples, reserved: set[str]) -> Examples:
    """Leave out texts that another set holds, compared without case and white space."""
    kept = [i for i, text in enumerate(examples.texts) if normalised(text) not in reserved]
    return examples.select(kept)


def _pretrain_texts(train: Examples, spec: str | None, reserved: set[str]) -> Examples | None:
    """Gather text without labels: unlabelled training rows, and every split of the spec but
    test; nothing that is ``reserved``."""
    texts = [t for t, y in zip(train.texts, train.labels_N, strict=True) if y == UNLABELLED]
    if spec is not None:
        for name, examples in load_examples(spec, need_labels=False).items():
            if name != "test":
                texts += examples.texts
    if not texts:
        return None
    unlabelled = Examples(texts, np.full(len(texts), UNLABELLED), train.label_names)
    return _without(unlabelled, reserved)


def calibration_set(spec: str, label_names: tuple[str, ...]) -> Examples:
    """Join the splits of ``spec``. Raises DataError where its labels are not ``label_names``."""
    splits = load_examples(spec)
    texts: list[str] = []
    labels: list[int] = []
    groups: list[str] = []
    for examples in splits.values():
        if unknown := set(examples.label_names) - set(label_names):
            raise DataError(
                f"{spec}: labels {sorted(unknown)} are not the model's: {', '.join(label_names)}"
            )
        place = [label_names.index(name) for name in examples.label_names]
        known = _labelled(examples)
        texts += known.texts
        labels += [place[y] for y in known.labels_N]
        groups += group_names(known)
    examples = Examples(texts, np.array(labels, np.int64), label_names, groups)
    if missing := _unseen_labels(examples):
        raise DataError(f"{spec}: no example labelled {missing[0]!r} to calibrate on")
    refuse_one_group(groups)
    return examples


def _unseen_labels(examples: Examples) -> list[str]:
    counts_C = np.bincount(examples.labels_N, minlength=len(examples.label_names))
    return [examples.label_names[c] for c in np.flatnonzero(counts_C == 0)]


def _labelled(examples: Examples) -> Examples:
    return examples.select(np.flatnonzero(examples.labels_N != UNLABELLED))


def score_examples(model: Model, examples: Examples, progress: Progress) -> Scored:
    """Score examples, novelty with them. Raises ClassifierError where one cannot be scored."""
    scored: list[Scored] = []
    for i, texts in enumerate(chunks(examples.texts, "calibrate", progress)):
        scored.append(model.score(texts, novelty=True))
        for index, reason in scored[-1].errors.items():
            raise ClassifierError(f"calibration text {i * CHUNK_TEXTS + index}: {reason}")
    return joined(scored)


def fingerprint(examples: Examples) -> str:
    """Return the hash by which a model knows what it was trained or calibrated on."""
    return texts_hash(examples.texts, [str(y) for y in examples.labels_N])


def _read_options(path: Path) -> dict[str, Any]:
    try:
        document = read_yaml(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from error
    if document.problems:
        lines = [f"{path}:{p.line}: {p.message}" for p in document.problems]
        raise ConfigError("--config: " + "\n".join(lines))
    if not isinstance(document.data, dict):
        raise ConfigError(f"--config {path}: expected a mapping of option names to values")
    return document.data


def read_card(path: Path) -> str:
    """Return the Markdown that opens a model card. Raises ConfigError."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--card {path}: cannot be read: {error}") from error
