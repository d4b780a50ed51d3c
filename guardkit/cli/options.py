"""Options and arguments that several commands share, and the codes they exit with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from guardkit.errors import UsageError

EXIT_MATCHED = 1
EXIT_TROUBLE = 3
EXIT_PIPE = 128 + 13  # as a shell reports a program that SIGPIPE ended

DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto: a GPU if there is one.")
]
BackendOption = Annotated[
    Literal["torch", "onnx"],
    typer.Option("--backend", help="onnx: run exported models, see `guardkit models export`."),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="DIR", help="A model's folder, or builtin:FAMILY/NAME."),
]
ScorerOption = Annotated[
    str | None,
    typer.Option(
        "--scorer",
        metavar="NAME",
        help="How the model scores, where it can in several ways; see `guardkit models show`.",
    ),
]
PolicyOption = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="A policy file.")
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SPEC",
        help="hf:NAME, a folder of train/validation/test files, or files (parquet, csv, tsv, "
        "json, jsonl). Options follow a ?, joined by &: text=, label=, group=, source= (columns), "
        "split=, config=, delimiter=, where=COLUMN:VALUE|VALUE.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One option; overrides the rest."),
]
CalibrationOption = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Labelled text for the probabilities alone.")
]
CardOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", exists=True, help="Markdown on data, licence and use: opens the card."
    ),
]
PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")]
ModelFolder = Annotated[
    str, typer.Argument(metavar="DIR", help="A model's folder, or builtin:FAMILY/NAME.")
]


def refuse_without_model(scorer: str | None, model: str | None) -> None:
    """Raise UsageError where a scorer is named, but no model that would have it."""
    if scorer is not None and model is None:
        raise UsageError(
            f"--scorer {scorer}: of which model? give --model; members of a policy "
            "name theirs in its file"
        )


def pairs(option: str, expected: str, given: Sequence[str] | None) -> list[tuple[str, str]]:
    """Split what ``option`` was given, each KEY=VALUE. Raises UsageError."""
    pairs = []
    for text in given or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"{option} {text}: expected {expected}")
        pairs.append((key, value))
    return pairs
