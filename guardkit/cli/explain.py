"""``guardkit explain``: why a model says what it says of a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardkit.cli.options import DeviceOption, ModelOption, ScorerOption, refuse_without_model
from guardkit.errors import InputFileError

if TYPE_CHECKING:
    from guardkit.model.loaded import Model


def explain(
    text: Annotated[str, typer.Argument(help="A text; - reads one from standard input.")],
    model: ModelOption = None,
    scorer: ScorerOption = None,
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

    refuse_without_model(scorer, model)
    loaded = load_model(model, scorer=scorer, device=device) if model else _first_member(device)
    try:
        data = sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")
    except OSError as error:
        raise InputFileError(f"standard input: cannot be read: {error.strerror}") from error
    text = data.decode("utf-8", "replace")  # an argument, too, may hold bytes that are not UTF-8
    explained = explanation.explain(loaded, text)
    if html is not None:
        explanation.write_page(html, explained)
    output.show_explanation(explained)


def _first_member(device: str) -> Model:
    from guardkit.policy.router import load_policy

    router = load_policy(device=device)
    return router.model(next(iter(router.policy.members)))
