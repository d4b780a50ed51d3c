"""``guardkit adapt``: a trained model and few examples of something new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardkit.cli.options import DataOption, DeviceOption, ModelFolder


def adapt(
    model: ModelFolder,
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new model's folder.")],
    over_defence: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Benign texts that sound like attacks. Default: bundled ones.",
        ),
    ] = None,
    max_over_defence: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="The share of them that may be flagged. Default: 0.1.",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Teach a trained model a few examples of one of its labels, in seconds.

    What changed is measured; a model that flags too many benign texts is not written.
    """
    from guardkit.cli import output
    from guardkit.cli.progress import shown_progress
    from guardkit.training.adapt import MAX_OVER_DEFENCE, OverDefence, adapt_model

    share = MAX_OVER_DEFENCE if max_over_defence is None else max_over_defence
    limit = OverDefence(over_defence, share)
    with shown_progress() as progress:
        report = adapt_model(model, data, out, over_defence=limit, device=device, progress=progress)
    output.show_adaptation(report)
    output.say_where(out)
