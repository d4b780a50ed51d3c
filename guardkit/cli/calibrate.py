"""``guardkit calibrate``: a model's probabilities fitted anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from guardkit.cli.options import DataOption, DeviceOption
from guardkit.cli.terminal import say
from guardkit.errors import UsageError


def calibrate(
    model: Annotated[
        str,
        typer.Option("--model", metavar="DIR", help="A model's folder, or builtin:FAMILY/NAME."),
    ],
    data: DataOption,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The new model's folder; its own replaces the model."),
    ],
    split: Annotated[
        str | None, typer.Option(help="Default: validation, or the only one there is.")
    ] = None,
    method: Annotated[
        Literal["auto", "platt", "length", "isotonic"],
        typer.Option(help="auto: the simplest that does as well as any on text held out."),
    ] = "auto",
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw there how reliable it was and is."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Fit a model's probabilities anew, to labelled text that it was not trained on.

    Writes a copy of the model; its weights stay as they are.
    """
    from guardkit.calibration.reliability_diagram import reliability_diagram
    from guardkit.cli import output
    from guardkit.cli.progress import shown_progress
    from guardkit.data.examples import load_split
    from guardkit.files import write_atomically
    from guardkit.training.recalibrate import recalibrate

    if picture and not picture.parent.is_dir():
        raise UsageError(f"--picture {picture}: no such folder")
    name, examples = load_split(data, split, default="validation")
    say(f"calibrating on split {name!r} of {data}", err=True)
    with shown_progress() as progress:
        result = recalibrate(model, examples, out, method=method, device=device, progress=progress)
    output.show_recalibrated(result)
    if picture:
        c = result.calibration
        of = repr(c.labels[1]) if len(c.labels) == 2 else "the likeliest label"
        drawn = reliability_diagram(c.reliability_before, c.reliability_after, of=of)
        write_atomically(picture, drawn.encode())
        say(f"the picture is in {picture}")
    output.say_where(result.path)
