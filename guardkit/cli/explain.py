"""``guardkit explain``: why a model says what it says of a text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardkit.cli.options import DeviceOption, ModelOption, ScorerOption, refuse_without_model
from guardkit.errors import InputFileError, UsageError
from guardkit.types import Role, Row

if TYPE_CHECKING:
    from guardkit.model.loaded import Model


def explain(
    text: Annotated[
        str | None,
        typer.Argument(help="A text; - reads one from standard input.", show_default=False),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="In place of TEXT, a row as `guardkit classify` reads it, also a conversation: "
            "of its texts, the one that decides. - reads one JSON object from standard input.",
        ),
    ] = None,
    line: Annotated[
        int | None,
        typer.Option(min=1, help="Which line or row of --record; needed where it has several."),
    ] = None,
    model: ModelOption = None,
    scorer: ScorerOption = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page, too.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Show what each token of TEXT adds to the verdict of a model, in colour.

    Without --model, of the bundled policy's first member, and of a conversation the words of
    those whom its categories judge. What is explained is the scorer that the output names.
    """
    from guardkit.cli import output
    from guardkit.evaluation import explanation

    refuse_without_model(scorer, model)
    if (text is None) == (record is None):
        raise UsageError("give a TEXT or --record FILE, one of them")
    if line is not None and (record is None or record == "-"):
        raise UsageError("--line chooses from the FILE of --record")
    row = _row(record, line) if record is not None else Row(1, 1, (_text(text or ""),))
    loaded, judges = _model(model, scorer, device)
    explained = explanation.explain_row(loaded, row, judges)
    if html is not None:
        explanation.write_page(html, explained)
    output.show_explanation(explained)


def _row(record: str, line: int | None) -> Row:
    from guardkit.classify.rows import one_row

    with _reading_standard_input():
        return one_row(record, line)


def _text(text: str) -> str:
    """Return the text that is meant; an argument, too, may hold bytes that are not UTF-8."""
    with _reading_standard_input():
        data = sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")


@contextmanager
def _reading_standard_input() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputFileError(f"standard input: cannot be read: {error.strerror}") from error


def _model(
    model: str | None, scorer: str | None, device: str
) -> tuple[Model, Callable[[Role | None], bool]]:
    """Return the model to ask, and whose words it judges."""
    from guardkit.model.loaded import load_model
    from guardkit.policy.router import load_policy

    if model is not None:
        return load_model(model, scorer=scorer, device=device), lambda role: True
    router = load_policy(device=device)
    first = next(iter(router.policy.members))
    asking = [category for category in router.policy.categories.values() if category.asks(first)]
    return router.model(first), lambda role: any(category.judges(role) for category in asking)
