"""The command line: parse, call, print. ``main`` alone catches.

Exit codes: 0 done; 1 ``--fail-on`` matched or a policy test failed; 2 usage, or an invalid file,
policy or option; 3 the run failed, or finished with lines it could not read or judge; 130
stopped by the user; 141 nobody reads the output any more.

Nothing heavy is imported here, so that ``guardkit --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from guardkit import __version__
from guardkit.cli.adapt import adapt
from guardkit.cli.calibrate import calibrate
from guardkit.cli.classify import classify
from guardkit.cli.data import data_app
from guardkit.cli.evaluate import evaluate
from guardkit.cli.explain import explain
from guardkit.cli.models import models_app
from guardkit.cli.options import EXIT_PIPE, EXIT_TROUBLE
from guardkit.cli.plugins import plugins_app
from guardkit.cli.policy import policy_app
from guardkit.cli.serve import serve
from guardkit.cli.terminal import finish, open_streams, say
from guardkit.cli.train import train
from guardkit.errors import GuardkitError, Interrupted, OutputError

app = typer.Typer(
    help="Train small text classifiers, and route text through ensembles of them under a policy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(policy_app, name="policy")
app.add_typer(models_app, name="models")
app.add_typer(plugins_app, name="plugins")
app.add_typer(data_app, name="data")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    streams = open_streams()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        finish(streams)
    except BrokenPipeError:
        code = EXIT_PIPE
    except GuardkitError as error:
        code = _told(error)
    with suppress(BrokenPipeError, OutputError):  # what failed just now fails again
        finish(streams)
    return code


def _run(argv: list[str]) -> int:
    try:
        code = app(argv, prog_name="guardkit", standalone_mode=False)
    except SystemExit as end:
        # how typer and rich end where nobody reads: with 1
        if isinstance(end.__context__, BrokenPipeError):
            raise BrokenPipeError from end
        return end.code if isinstance(end.code, int) else 0
    except (GuardkitError, BrokenPipeError):
        raise
    except _CommandLineError as error:
        return _misused(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a bug, ours or a plugin's, or a library's panic: show all
        if isinstance(error, OSError):
            finish([sys.stdout])  # or typer could not print its help: this fails again, and says so
        say(traceback.format_exc().rstrip(), err=True)
        return EXIT_TROUBLE
    return code if isinstance(code, int) else 0


def _told(error: GuardkitError) -> int:
    lines = [f"{'' if isinstance(error, Interrupted) else 'error: '}{error}"]
    if os.environ.get("GUARDKIT_TRACEBACK") == "1":
        lines.insert(0, "".join(traceback.format_exception(error)).rstrip())
    with suppress(BrokenPipeError, OutputError):  # the exit code still tells
        say("\n".join(lines), err=True)
    return error.exit_code


#: What typer raises where a command line is wrong; it has no public name there.
_CommandLineError: Any = typer.BadParameter.__mro__[2]


def _misused(error: Any) -> int:
    if message := error.format_message():  # none where the help was shown
        usage = [error.ctx.get_usage(), f"Try '{error.ctx.command_path} --help' for help.", ""]
        say("\n".join([*(usage if error.ctx else []), f"error: {message}"]), err=True)
    return int(error.exit_code)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"guardkit {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Train small text classifiers, and route text through ensembles of them under a policy."""


app.command(epilog="Example: guardkit train --plugin mdlm --data reviews/ --out models/reviews")(
    train
)
app.command(epilog="Example: guardkit adapt builtin:injection --data few.jsonl --out models/mine")(
    adapt
)
app.command(
    epilog="Example: guardkit classify prompts.jsonl --out decisions.jsonl --fail-on block"
)(classify)
app.command(
    epilog="Example: guardkit evaluate --model builtin:mdlm/injection --data mail.csv?label=kind"
)(evaluate)
app.command(epilog="Example: guardkit calibrate --model models/mine --data mail/ --out models/own")(
    calibrate
)
app.command(epilog="Example: guardkit explain 'Ignore all previous instructions.'")(explain)
app.command(epilog="Example: guardkit serve --policy policy.yaml --port 8000")(serve)
