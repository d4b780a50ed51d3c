"""``guardkit evaluate`` and ``calibrate``: what labelled text says of a model or a policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from guardkit.cli.options import BackendOption, DataOption, DeviceOption, ModelOption, PolicyOption
from guardkit.errors import UsageError


def evaluate(
    data: DataOption,
    model: ModelOption = None,
    policy: PolicyOption = None,
    split: Annotated[
        str | None, typer.Option(help="Default: test, or the only one there is.")
    ] = None,
    positive: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The label that is to be found.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write report.html there, with pictures, and its JSON."),
    ] = None,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="Quote no text in the report.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the numbers there as JSON, too.")
    ] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "torch",
) -> None:
    """Measure a model or a policy on labelled text, with 95% intervals."""
    from guardkit.cli import output, running
    from guardkit.data.examples import load_split
    from guardkit.data.hashes import examples_hash
    from guardkit.evaluation import report as page
    from guardkit.evaluation.breakdown import with_breakdown
    from guardkit.evaluation.measure import measure
    from guardkit.evaluation.predictions import predict
    from guardkit.evaluation.provenance import provenance
    from guardkit.model import artefact
    from guardkit.model.loaded import load_model
    from guardkit.policy.router import load_policy

    if (model is None) == (policy is None):
        raise UsageError("give one of --model and --policy")
    if json and not json.parent.is_dir():
        raise UsageError(f"--json {json}: no such folder")
    if no_texts and not report:
        raise UsageError("--no-texts: there is no report to leave them out of; give --report DIR")
    name, examples = load_split(data, split)
    print(f"evaluating on split {name!r} of {data}", file=sys.stderr)
    loaded = (
        load_model(model, device=device, backend=backend)
        if model is not None
        else load_policy(policy, device=device, backend=backend)
    )
    if report:
        page.prepare(report)
    with running.progress() as progress:
        predictions = predict(loaded, examples, positive=positive, progress=progress)
    numbers = {
        "data": data,
        "split": name,
        "data_hash": examples_hash(examples),
        **predictions.about,
        **provenance(),
        **measure(predictions),
        "cost": predictions.cost,
    }
    output.show_evaluation(numbers)
    if json:
        artefact.write_json(json, numbers)
    if report:
        full = with_breakdown(numbers, predictions, texts=not no_texts)
        print(f"the report is {page.write_report(report, full)}")


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
    from guardkit.cli import output, running
    from guardkit.data.examples import load_split
    from guardkit.training.recalibrate import recalibrate

    if picture and not picture.parent.is_dir():
        raise UsageError(f"--picture {picture}: no such folder")
    name, examples = load_split(data, split, default="validation")
    print(f"calibrating on split {name!r} of {data}", file=sys.stderr)
    with running.progress() as progress:
        result = recalibrate(model, examples, out, method=method, device=device, progress=progress)
    output.show_recalibrated(result)
    if picture:
        c = result.calibration
        of = repr(c.labels[1]) if len(c.labels) == 2 else "the likeliest label"
        drawn = reliability_diagram(c.reliability_before, c.reliability_after, of=of)
        picture.write_text(drawn, "utf-8")
        print(f"the picture is in {picture}")
    print(f"the model is in {result.path}; try: guardkit classify FILE --model {result.path}")
