"""The import flow: checkpoints that other code trained, one per label, become a model.

    family.import_checkpoints -> calibrate -> measure -> card -> publish

Work happens in a hidden folder beside ``OUT`` and moves there in one rename, or is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from guardkit.data.doubts import few_to_calibrate_on
from guardkit.data.splits import NEEDED_TO_CALIBRATE, group_names, load_calibration_set
from guardkit.errors import PluginError, UsageError
from guardkit.model import artefact
from guardkit.plugins import installed_plugins
from guardkit.training.finish import TrainResult, finish_model
from guardkit.training.options import check_options, read_card
from guardkit.types import Progress, SupportsImport


def import_model(
    plugin: str,
    checkpoints: Mapping[str, str],
    out: Path,
    *,
    overrides: Mapping[str, str],
    calibration_data: str | None,
    card: Path | None,
    device: str,
    progress: Progress,
    note: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Make a model of family ``plugin`` out of ``checkpoints``, {label: where it is}.

    ``calibration_data`` is a data spec of labelled text that no checkpoint was trained on;
    without it the model gives no probabilities. ``overrides`` are options of the family's
    ``import_config``, as text; ``note`` is told where the text is little. Raises UsageError, as
    far as can be before any work is done.
    """
    family = installed_plugins().family(plugin)
    if not isinstance(family, SupportsImport):
        raise PluginError(f"plugin {family.name!r} imports no checkpoints")
    if len(checkpoints) < 2:
        raise UsageError(
            f"--class: {len(checkpoints)} given; a classifier has two labels at least, each with "
            "a checkpoint of its own: --class LABEL=CHECKPOINT"
        )
    config = check_options(f"{family.name} import", family.import_config, overrides)
    opening = read_card(card) if card else None
    calibration = None
    if calibration_data is not None:
        calibration = load_calibration_set(calibration_data, tuple(checkpoints))
        for doubt in few_to_calibrate_on(
            calibration_data, calibration, group_names(calibration), NEEDED_TO_CALIBRATE
        ):
            note(doubt)
    artefact.refuse_to_replace(out)
    with artefact.workspace(out) as folder:
        return finish_model(
            family.import_checkpoints(checkpoints, config, folder, progress=progress),
            out,
            calibration=calibration,
            measured={"calibration": calibration},
            data={},
            opening=opening,
            device=device,
            progress=progress,
        )
