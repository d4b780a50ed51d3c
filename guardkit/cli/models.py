"""``guardkit models``: list, show and verify models, export them, import checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardkit.cli.options import (
    CalibrationOption,
    CardOption,
    DeviceOption,
    ModelFolder,
    SetOption,
    pairs,
)
from guardkit.cli.terminal import say
from guardkit.errors import UsageError

models_app = typer.Typer(help="List, show, verify, export and import models.", no_args_is_help=True)


@models_app.command("list", epilog="Example: guardkit models list")
def models_list() -> None:
    """List the models that come with the installed plugins."""
    from guardkit.cli import output
    from guardkit.model import artefact
    from guardkit.model.find import bundled_models
    from guardkit.plugins import installed_plugins

    folders = bundled_models(installed_plugins().families.values())
    output.show_models([(folder, artefact.read_config(folder)) for folder in folders])


@models_app.command("show", epilog="Example: guardkit models show builtin:mdlm/injection")
def models_show(folder: ModelFolder) -> None:
    """Show a model's labels, results and limits."""
    from guardkit.cli import output
    from guardkit.model import artefact
    from guardkit.model.scorers import calibrated_scorers
    from guardkit.plugins import installed_plugins

    path = _model_folder(folder)
    card, config = path / artefact.CARD, artefact.read_config(path)
    digest = artefact.verify(path)
    family = installed_plugins().families.get(config.family)  # None: its plugin is not there
    output.show_model(
        path,
        config,
        {} if family is None else calibrated_scorers(path, family),
        digest,
        card.read_text("utf-8") if card.is_file() else "It has no model card.",
    )


@models_app.command("verify", epilog="Example: guardkit models verify models/reviews")
def models_verify(folder: ModelFolder) -> None:
    """Check that a model's files are the ones it was published with."""
    from guardkit.model import artefact

    path = _model_folder(folder)
    artefact.read_config(path)
    say(f"{path}: ok, {artefact.verify(path)}")


@models_app.command(
    "export", epilog="Example: guardkit models export models/reviews --out models/reviews-onnx"
)
def models_export(
    folder: ModelFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new model's folder.")],
) -> None:
    """Copy a model with its network as ONNX beside the weights, for --backend onnx."""
    from guardkit.model.export import export_model

    say(f"{export_model(folder, out)}: run it with --backend onnx")


@models_app.command(
    "import",
    epilog="Example: guardkit models import --family mdlm --class neg=class_0/last.ckpt "
    "--class pos=class_1/last.ckpt --calibration-data held-out.jsonl --out models/old",
)
def models_import(
    family: Annotated[str, typer.Option(help="A classifier family: see `guardkit plugins`.")],
    classes: Annotated[
        list[str],
        typer.Option("--class", metavar="LABEL=CHECKPOINT", help="Once for each label."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new model's folder.")],
    weights: Annotated[
        str | None, typer.Option(metavar="ema|raw", help="Averaged weights, or the last.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|HUB_ID", help="The one the checkpoints were trained with."),
    ] = None,
    calibration_data: CalibrationOption = None,
    set_: SetOption = None,
    card: CardOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Make a classifier of checkpoints that other code trained, one for each label.

    Give --calibration-data: without it the model has no probabilities, and nothing decides by it.
    """
    from guardkit.cli import output
    from guardkit.cli.progress import shown_progress
    from guardkit.training.import_checkpoints import import_model

    checkpoints = pairs("--class", "LABEL=CHECKPOINT", classes)
    if len(dict(checkpoints)) < len(checkpoints):
        raise UsageError("--class: a label is given twice")
    overrides = dict(pairs("--set", "KEY=VALUE", set_))
    overrides |= {"weights": weights} if weights else {}
    overrides |= {"tokenizer": tokenizer} if tokenizer else {}
    with shown_progress() as progress:
        result = import_model(
            family,
            dict(checkpoints),
            out,
            overrides=overrides,
            calibration_data=calibration_data,
            card=card,
            device=device,
            progress=progress,
            note=output.say_note,
        )
    output.show_measured(result.metrics)
    if calibration_data is None:
        say(
            f"the model is in {result.path}, but not calibrated: it gives no probabilities. "
            "Import it again with --calibration-data, labelled text it was not trained on"
        )
    else:
        output.say_where(result.path)


def _model_folder(ref: str) -> Path:
    from guardkit.model.find import find_model
    from guardkit.plugins import installed_plugins

    return find_model(ref, family=None, base=Path.cwd(), plugins=installed_plugins())
