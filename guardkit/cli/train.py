"""``guardkit train``: a new model from labelled text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardkit.cli.options import (
    CalibrationOption,
    CardOption,
    DataOption,
    DeviceOption,
    SetOption,
    pairs,
)


def train(
    plugin: Annotated[str, typer.Option(help="A classifier family: see `guardkit plugins`.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new model's folder.")],
    preset: Annotated[
        str | None, typer.Option(help="A named set of options: see `guardkit plugins`.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, help="Options in YAML; they override the preset."
        ),
    ] = None,
    set_: SetOption = None,
    init: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model to start from.")
    ] = None,
    pretrain_data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Text to learn from without labels.")
    ] = None,
    calibration_data: CalibrationOption = None,
    card: CardOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run of the same command.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Train a classifier on labelled text, calibrate it and measure it.

    Ctrl-C stops after the step under way and keeps what --resume needs.
    """
    from guardkit.cli import output
    from guardkit.cli.progress import shown_progress
    from guardkit.cli.signals import stopped_between_steps
    from guardkit.training.train import Recipe, train_model

    recipe = Recipe(
        plugin,
        data,
        preset=preset,
        config_file=config,
        overrides=dict(pairs("--set", "KEY=VALUE", set_)),
        init=init,
        pretrain_data=pretrain_data,
        calibration_data=calibration_data,
        card=card,
    )
    with shown_progress() as shown, stopped_between_steps(shown) as progress:
        result = train_model(
            recipe, out, resume=resume, device=device, progress=progress, note=output.say_note
        )
    if result is None:  # another process of this torchrun leads
        return
    output.show_measured(result.metrics)
    output.say_where(result.path)
