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
from collections.abc import Sequence
from typing import Annotated

import typer

from guardkit import __version__
from guardkit.cli.adapt import adapt
from guardkit.cli.calibrate import calibrate
from guardkit.cli.classify import classify
from guardkit.cli.evaluate import evaluate
from guardkit.cli.explain import explain
from guardkit.cli.models import models_app
from guardkit.cli.options import EXIT_TROUBLE
from guardkit.cli.plugins import plugins_app
from guardkit.cli.policy import policy_app
from guardkit.cli.train import train
from guardkit.errors import GuardkitError, Interrupted

app = typer.Typer(
    help="Train small text classifiers, and route text through ensembles of them under a policy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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
