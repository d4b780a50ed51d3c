"""The train flow: examples, a family's training, calibration on data it never saw, a model.

    load -> hold out -> family.train -> calibrate -> measure -> card -> publish

Work goes to ``OUT.partial`` and moves to ``OUT`` in one rename once all of it is there.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from guardkit.audit.audit import audit
from guardkit.audit.findings import warning_lines
from guardkit.data.hashes import examples_hash
from guardkit.data.splits import DataSplits, OneLabelError, load_data_splits
from guardkit.errors import ConfigError, DataError
from guardkit.plugins import installed_plugins
from guardkit.training.finish import TrainResult, finish_model
from guardkit.training.options import build_config, read_card
from guardkit.training.run_folder import RunFolder
from guardkit.types import ClassifierFamily, Examples, Progress, SupportsAdapt, TrainingData

#: Sets that a finished model is measured on, in the order of its record.
MEASURED = ("validation", "calibration", "test")
#: Shortcuts in the training text that are warned of, at most.
SHORTCUTS = 3


@dataclass(frozen=True)
class Recipe:
    """What a model is to be made of. ``data``, ``pretrain_data`` and ``calibration_data`` are data
    specs (``data.examples``); ``card`` is a Markdown file that opens the model card."""

    plugin: str
    data: str
    preset: str | None = None
    config_file: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    init: str | None = None
    pretrain_data: str | None = None
    calibration_data: str | None = None
    card: Path | None = None


def train_model(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: Progress,
    note: Callable[[str], None] = lambda _: None,
) -> TrainResult | None:
    """Train, calibrate and measure a model and write it to ``out``. ``note`` is told, before the
    work begins, of what in the data may be a mistake, is too little, or tells the label though it
    should not (``SHORTCUTS`` at most).

    How the data is divided: ``data.splits.load_data_splits``. Raises UsageError before any work
    is done, and TrainingInterrupted, after which the same call with ``resume`` goes on.

    Under ``torchrun`` every process makes this call; all but the first return None.
    """
    family = installed_plugins().family(recipe.plugin)
    leads = _leads(family)
    config = build_config(family, recipe.preset, recipe.config_file, recipe.overrides)
    opening = read_card(recipe.card) if recipe.card else None
    splits = _load(recipe, family, out, note if leads else lambda _: None)
    if leads:
        _note_shortcuts(splits.train, recipe.data, note)
    learnt_from = {
        "train": examples_hash(splits.train),
        "validation": examples_hash(splits.validation),
        "pretrain": examples_hash(splits.pretrain) if splits.pretrain else None,
    }
    record = {
        "plugin": recipe.plugin,
        "options": config.model_dump(mode="json"),
        "init": recipe.init,
        **learnt_from,
    }
    folder = RunFolder(out, family, leads=leads)
    with folder.begun(record, resume=resume) as goes_on:
        with folder.removed_if_nothing_is_saved():
            trained = family.train(
                TrainingData(splits.train, splits.validation),
                config,
                folder.path,
                pretrain=splits.pretrain,
                init=recipe.init,
                resume=goes_on,
                device=device,
                progress=progress,
            )
        if not leads:
            return None
        result = finish_model(
            trained,
            out,
            calibration=splits.calibration,
            measured={name: getattr(splits, name) for name in MEASURED},
            data=learnt_from,
            opening=opening,
            device=device,
            progress=progress,
        )
        folder.remove()
    return result


def _leads(family: ClassifierFamily) -> bool:
    """Whether this process writes the model: all but the first of a ``torchrun`` only help."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    if not getattr(family, "data_parallel", False):
        raise ConfigError(
            f"plugin {family.name!r} trains in one process; start it without torchrun"
        )
    return os.environ["RANK"] == "0"


def _note_shortcuts(train: Examples, spec: str, note: Callable[[str], None]) -> None:
    found = audit(train, texts=False, quick=True)
    if lines := warning_lines(found, most=SHORTCUTS):
        for line in lines:
            note(line)
        command = shlex.join(["guardkit", "data", "audit", spec])
        note(f"{found.read:,} of {found.texts:,} texts were looked at; all of it: {command}")


def _load(
    recipe: Recipe, family: ClassifierFamily, out: Path, note: Callable[[str], None]
) -> DataSplits:
    specs = recipe.data, recipe.pretrain_data, recipe.calibration_data
    try:
        return load_data_splits(*specs, note=note)
    except OneLabelError as error:
        model = recipe.init if recipe.init and isinstance(family, SupportsAdapt) else "MODEL"
        command = ["guardkit", "adapt", model, "--data", recipe.data, "--out", str(out)]
        raise DataError(
            f"{error}. A model that knows {error.label!r} can be adapted to these: "
            f"{shlex.join(command)}"
        ) from error
