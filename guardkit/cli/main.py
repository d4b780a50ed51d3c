"""The command line: parse, call, print. ``main`` alone catches.

Exit codes: 0 done; 1 ``--fail-on`` matched or a policy test failed; 2 usage, or an invalid file,
policy or option; 3 the run failed, or finished with lines it could not read or judge; 130
stopped by the user; 141 nobody reads standard output any more.

Nothing heavy is imported here, so that ``guardkit --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from guardkit import __version__
from guardkit.cli.evaluate import calibrate, evaluate
from guardkit.cli.models import models_app
from guardkit.cli.options import (
    EXIT_MATCHED,
    EXIT_PIPE,
    EXIT_TROUBLE,
    BackendOption,
    CalibrationOption,
    CardOption,
    DataOption,
    DeviceOption,
    ModelOption,
    PolicyOption,
    SetOption,
    pairs,
)
from guardkit.cli.policy import policy_app
from guardkit.errors import GuardkitError, Interrupted, UsageError

if TYPE_CHECKING:
    from guardkit.model.loaded import Model

app = typer.Typer(
    help="Train small text classifiers, and route text through ensembles of them under a policy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
plugins_app = typer.Typer(help="Show what is installed.", invoke_without_command=True)
app.add_typer(policy_app, name="policy")
app.add_typer(models_app, name="models")
app.add_typer(plugins_app, name="plugins")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        app(list(sys.argv[1:] if argv is None else argv), prog_name="guardkit")
    except SystemExit as end:  # how typer ends: help, usage errors, typer.Exit
        return end.code if isinstance(end.code, int) else 0
    except GuardkitError as error:
        if os.environ.get("GUARDKIT_TRACEBACK") == "1":
            traceback.print_exc()
        prefix = "" if isinstance(error, Interrupted) else "error: "
        print(f"{prefix}{error}", file=sys.stderr)
        return error.exit_code
    except Exception:  # a bug, ours or a plugin's: show all of it
        traceback.print_exc()
        return EXIT_TROUBLE
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        print(f"guardkit {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Train small text classifiers, and route text through ensembles of them under a policy."""


@app.command(epilog="Example: guardkit train --plugin mdlm --data reviews/ --out models/reviews")
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
    over_defence: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Adapting a model: benign texts that sound like attacks. Default: bundled ones.",
        ),
    ] = None,
    max_over_defence: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Adapting a model: the share of them that may be flagged. Default: 0.1.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run of the same command.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Train a classifier on labelled text, calibrate it and measure it.

    With --init MODEL and examples that all have one label, that model is adapted to them: a row is
    added to the label, in seconds, and what changed is measured.

    Ctrl-C stops after the step under way and keeps what --resume needs.
    """
    from guardkit.cli import output, running
    from guardkit.training.adapt import MAX_OVER_DEFENCE, OverDefence
    from guardkit.training.train import train_model

    limits = None
    if over_defence is not None or max_over_defence is not None:
        share = MAX_OVER_DEFENCE if max_over_defence is None else max_over_defence
        limits = OverDefence(over_defence, share)
    overrides = dict(pairs("--set", "KEY=VALUE", set_))
    with running.progress() as shown, running.interruptible(shown) as progress:
        result = train_model(
            plugin,
            data,
            out,
            preset=preset,
            config_file=config,
            overrides=overrides,
            init=init,
            pretrain_data=pretrain_data,
            calibration_data=calibration_data,
            card=card,
            resume=resume,
            device=device,
            progress=progress,
            over_defence=limits,
        )
    if result is None:  # another process of this torchrun leads
        return
    if "adapted" in result.metrics:
        output.show_adaptation(result.metrics["adapted"])
    output.show_measured(result.metrics)
    print(f"the model is in {result.path}; try: guardkit classify FILE --model {result.path}")


@app.command(
    epilog="Example: guardkit classify prompts.jsonl --out decisions.jsonl --fail-on block"
)
def classify(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="JSON lines (text, prompt or messages; id if any), .csv, .parquet or .txt, each "
            "also as .gz or .zst; a folder or a pattern of such files; - reads JSON lines from "
            "standard input.",
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
    from guardkit.classify.engine import classify_into
    from guardkit.classify.job import Job
    from guardkit.classify.shards import Input
    from guardkit.cli import output, running

    if policy and model:
        raise UsageError("give --policy or --model, not both")
    if model and shadow:
        raise UsageError("--shadow stands beside a policy, not beside --model")
    if model and fail_on:
        raise UsageError("--fail-on needs a policy: a model alone flags nothing")
    records.check_kept(keep or [])
    paths = Input(file).paths
    saved = out is not None and _can_be_saved(out, paths)
    job = Job(
        policy=None if policy is None else str(policy),
        shadow=None if shadow is None else str(shadow),
        model=model,
        device=device,
        backend=backend,
        keep=tuple(keep or ()),
        named=len(paths) > 1,
    )
    if not saved and (resume or workers > 1 or engine != "local"):
        raise UsageError("--resume, --workers and --engine ray need --out FILE: they save work")
    if shard_timeout and (not saved or engine != "local"):
        raise UsageError("--shard-timeout needs --out FILE, and processes of this machine")
    if model is None:
        output.note_unproven(job.router)
    set_aside: Mapping[str, str] = {}
    resumed = 0
    try:
        with running.terminal_progress(beside_output=out is None) as progress:
            if saved:
                assert out is not None
                with running.stoppable():
                    outcome = classify_into(
                        out,
                        file,
                        job,
                        resume=resume,
                        workers=workers,
                        engine=engine,
                        shard_timeout_s=shard_timeout,
                        progress=progress,
                    )
                summary, set_aside = outcome.summary, outcome.set_aside
                resumed = outcome.resumed
            else:
                summary = records.classify(job.rows(file), job.judge(), out, progress=progress)
    except BrokenPipeError:
        # the interpreter would complain when it flushes what nobody reads
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_PIPE) from None
    print(output.summary_line(summary, out, resumed=resumed), file=sys.stderr)
    if (times := output.times_line(summary)) is not None:
        print(times, file=sys.stderr)
    for name, reason in set_aside.items():
        print(f"set aside, its lines are errors: {name}: {reason}", file=sys.stderr)
    if set_aside:
        print("the same command with --resume tries them again", file=sys.stderr)
    if summary.unreadable or summary.undecided:
        raise typer.Exit(EXIT_TROUBLE)
    if fail_on and summary.reached(fail_on):
        raise typer.Exit(EXIT_MATCHED)


app.command(
    epilog="Example: guardkit evaluate --model builtin:mdlm/injection --data mail.csv?label=kind"
)(evaluate)
app.command(epilog="Example: guardkit calibrate --model models/mine --data mail/ --out models/own")(
    calibrate
)


@app.command(epilog="Example: guardkit explain 'Ignore all previous instructions.'")
def explain(
    text: Annotated[str, typer.Argument(help="A text; - reads one from standard input.")],
    model: ModelOption = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page, too.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Show what each token of TEXT adds to the verdict of a model, in colour.

    Without --model, of the bundled policy's first member. What is explained is the scorer that
    the output names.
    """
    from guardkit.cli import output
    from guardkit.evaluation import explanation
    from guardkit.model.loaded import load_model

    loaded = load_model(model, device=device) if model else _first_member(device)
    data = sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")
    text = data.decode("utf-8", "replace")  # an argument, too, may hold bytes that are not UTF-8
    explained = explanation.explain(loaded, text)
    if html is not None:
        explanation.write_page(html, explained)
    output.show_explanation(explained)


@plugins_app.callback(epilog="Example: guardkit plugins")
def plugins(context: typer.Context) -> None:
    """Show the installed plugins, what they register and what is wrong with them."""
    if context.invoked_subcommand is None:
        plugins_list()


@plugins_app.command("list", epilog="Example: guardkit plugins list")
def plugins_list() -> None:
    """Show the installed plugins, what they register and what is wrong with them."""
    from guardkit.cli import output
    from guardkit.plugins import installed_plugins

    output.show_plugins(installed_plugins())


def _can_be_saved(out: Path, inputs: Sequence[str]) -> bool:
    """Whether there can be parts beside ``out``: not where it is a pipe or /dev/null. UsageError
    where it cannot be written at all."""
    try:
        if out.resolve() in [Path(path).resolve() for path in inputs]:
            raise UsageError(f"--out {out}: is the input itself")
        return not out.exists() or out.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name no file can have, links in a ring
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"--out {out}: cannot be written: {why}") from error


def _first_member(device: str) -> Model:
    from guardkit.policy.router import load_policy

    router = load_policy(device=device)
    return router.model(next(iter(router.policy.members)))
