"""``guardkit evaluate``: what labelled text says of a model or a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardkit.cli.options import (
    BackendOption,
    DataOption,
    DeviceOption,
    ModelOption,
    PolicyOption,
    ScorerOption,
    refuse_without_model,
)
from guardkit.cli.terminal import say
from guardkit.errors import UsageError


def evaluate(
    data: DataOption,
    model: ModelOption = None,
    scorer: ScorerOption = None,
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
    invariances: Annotated[
        bool,
        typer.Option(
            "--invariances",
            help="Change texts in ways that must not flip a verdict (greeting, case, typing "
            "errors, JSON, Markdown) and say how often it flips.",
        ),
    ] = False,
    invariance_texts: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Change at most N texts of each label.  [default: 500]"
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the numbers there as JSON, too.")
    ] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "torch",
) -> None:
    """Measure a model or a policy on labelled text, with 95% intervals."""
    from guardkit.cli import output
    from guardkit.cli.progress import shown_progress
    from guardkit.data.examples import load_split
    from guardkit.data.hashes import examples_hash
    from guardkit.evaluation import report as page
    from guardkit.evaluation.breakdown import with_breakdown
    from guardkit.evaluation.flips import PER_LABEL, with_invariances
    from guardkit.evaluation.measure import measure
    from guardkit.evaluation.predictions import predict
    from guardkit.evaluation.provenance import provenance
    from guardkit.model import artefact
    from guardkit.model.loaded import load_model
    from guardkit.policy.router import load_policy

    if (model is None) == (policy is None):
        raise UsageError("give one of --model and --policy")
    refuse_without_model(scorer, model)
    if json and not json.parent.is_dir():
        raise UsageError(f"--json {json}: no such folder")
    if no_texts and not report:
        raise UsageError("--no-texts: there is no report to leave them out of; give --report DIR")
    if invariance_texts and not invariances:
        raise UsageError(
            f"--invariance-texts {invariance_texts}: no text is to be changed; give --invariances"
        )
    name, examples = load_split(data, split)
    say(f"evaluating on split {name!r} of {data}", err=True)
    loaded = (
        load_model(model, scorer=scorer, device=device, backend=backend)
        if model is not None
        else load_policy(policy, device=device, backend=backend)
    )
    if report:
        page.prepare(report)
    with shown_progress() as progress:
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
    if invariances:
        per_label = invariance_texts or PER_LABEL
        with shown_progress() as progress:
            numbers = with_invariances(numbers, predictions, per_label=per_label, progress=progress)
    output.show_evaluation(numbers)
    if json:
        artefact.write_json(json, numbers)
    if report:
        full = with_breakdown(numbers, predictions, texts=not no_texts)
        say(f"the report is {page.write_report(report, full)}")
