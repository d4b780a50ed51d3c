"""``guardkit data``: look at labelled text before a model learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardkit.errors import UsageError

data_app = typer.Typer(
    help="Look at labelled text before a model learns from it.", no_args_is_help=True
)


@data_app.callback()
def data() -> None:
    """Look at labelled text before a model learns from it."""


@data_app.command("audit", epilog="Example: guardkit data audit reviews/ --json audit.json")
def data_audit(
    spec: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="Labelled text, as `guardkit train --data` takes it."),
    ],
    split: Annotated[
        str | None, typer.Option(help="Default: train, or the only one there is.")
    ] = None,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="Quote no text; phrases of many texts stay.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything there as JSON, too.")
    ] = None,
) -> None:
    """Report features of labelled text that tell the label though they should not.

    Length, final sign, emoji, case, format, language, source, phrases: how often each comes with
    which label, how well it tells the label by itself, which texts are to blame, and what to add.
    """
    from guardkit.audit.audit import audit
    from guardkit.audit.findings import as_json
    from guardkit.cli.data_output import show_audit
    from guardkit.data.examples import load_split
    from guardkit.model import artefact

    if json and not json.parent.is_dir():
        raise UsageError(f"--json {json}: no such folder")
    name, examples = load_split(spec, split, default="train")
    found = audit(examples, texts=not no_texts)
    show_audit(found, f"split {name!r} of {spec}")
    if json:
        artefact.write_json(json, {"data": spec, "split": name, **as_json(found)})
