"""``guardkit classify``: a line of output for each line of input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from guardkit.cli.options import (
    EXIT_MATCHED,
    EXIT_TROUBLE,
    BackendOption,
    DeviceOption,
    ModelOption,
    PolicyOption,
    ScorerOption,
    refuse_without_model,
)
from guardkit.errors import UsageError


def classify(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="JSON lines (text, prompt or a conversation; id if any), .json, .csv, .tsv, "
            ".parquet or .txt, each also as .gz or .zst; a folder or a pattern of such files; - "
            "reads JSON lines from standard input. After it ?delimiter= may say what separates "
            "the fields of CSV files.",
        ),
    ],
    policy: PolicyOption = None,
    shadow: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A second policy: decides too, into the field `shadow`, and changes nothing.",
        ),
    ] = None,
    model: ModelOption = None,
    scorer: ScorerOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: standard output.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Copy this field of each line to the output."),
    ] = None,
    fail_on: Annotated[
        Literal["flag", "abstain", "block"] | None,
        typer.Option(help="Exit with 1 if any text gets this action, or a more severe one."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run of the same command.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the work; needs --out.")
    ] = 1,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="ray: the workers run on the Ray cluster that RAY_ADDRESS names, or on one made "
            "here; all its machines must share the files. Needs --out."
        ),
    ] = "local",
    shard_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="Kill a worker process that needs longer for one shard (2,000 lines at most) and "
            "try the shard again, three times in all; then its lines are errors and it is named. "
            "Default: 3600; with one worker, no limit. Not with --engine ray.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "torch",
) -> None:
    """Decide every line of FILE: one JSON line out for each line in, in order.

    Without --policy the bundled one decides. With --model every label's probability is given
    and nothing is flagged. With --out the work is saved as it is done: a run that was stopped or
    killed goes on with --resume, and ends in the same bytes.
    """
    from guardkit.classify import records
    from guardkit.classify.engine import Outcome, classify_into
    from guardkit.classify.job import Job
    from guardkit.classify.shards import Input
    from guardkit.cli import output
    from guardkit.cli.progress import seldom_progress
    from guardkit.cli.signals import stopped_at_once

    _refuse_what_does_not_fit(policy, model, shadow, fail_on)
    refuse_without_model(scorer, model)
    records.check_kept(keep or [])
    source = Input(file)
    save_to = out if out is not None and _can_be_saved(out, source.paths) else None
    if save_to is None:
        _refuse_without_output(resume, workers, engine)
    if shard_timeout and (save_to is None or engine != "local"):
        raise UsageError("--shard-timeout needs --out FILE, and processes of this machine")
    job = Job(
        policy=None if policy is None else str(policy),
        shadow=None if shadow is None else str(shadow),
        model=model,
        scorer=scorer,
        device=device,
        backend=backend,
        keep=tuple(keep or ()),
        named=len(source.paths) > 1,
    )
    if model is None:
        output.note_unproven(job.router)
    with seldom_progress(beside_output=out is None) as progress:
        if save_to is None:
            rows = job.rows(source)
            outcome = Outcome(records.classify(rows, job.load(), out, progress=progress))
        else:
            with stopped_at_once():
                outcome = classify_into(
                    save_to,
                    source,
                    job,
                    resume=resume,
                    workers=workers,
                    engine=engine,
                    shard_timeout_s=shard_timeout,
                    progress=progress,
                )
    output.say_outcome(outcome, out)
    if outcome.summary.unreadable or outcome.summary.undecided:
        raise typer.Exit(EXIT_TROUBLE)
    if fail_on and outcome.summary.reached(fail_on):
        raise typer.Exit(EXIT_MATCHED)


def _refuse_what_does_not_fit(
    policy: Path | None, model: str | None, shadow: Path | None, fail_on: str | None
) -> None:
    if policy and model:
        raise UsageError("give --policy or --model, not both")
    if model and shadow:
        raise UsageError("--shadow stands beside a policy, not beside --model")
    if model and fail_on:
        raise UsageError("--fail-on needs a policy: a model alone flags nothing")


def _refuse_without_output(resume: bool, workers: int, engine: str) -> None:
    if resume or workers > 1 or engine != "local":
        raise UsageError("--resume, --workers and --engine ray need --out FILE: they save work")


def _can_be_saved(out: Path, inputs: Sequence[str]) -> bool:
    """Whether there can be parts beside ``out``: not where it is a pipe or /dev/null. UsageError
    where it cannot be written at all."""
    try:
        if out.resolve() in [Path(path).resolve() for path in inputs]:
            raise UsageError(f"--out {out}: is the input itself")
        if not out.resolve().parent.is_dir():
            raise UsageError(f"--out {out}: its folder is not there; make it first")
        return not out.exists() or out.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name no file can have, links in a ring
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"--out {out}: cannot be written: {why}") from error
