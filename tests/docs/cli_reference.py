"""docs/cli.md, written from the command line itself:

python -m tests.docs.cli_reference
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from guardkit.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
COMMAND = "python -m tests.docs.cli_reference"
OPENING = (
    "# Command line reference\n\n"
    "Every command with its arguments, options and defaults, as `guardkit COMMAND --help` says "
    f"them. This page is generated (`{COMMAND}`): change the help texts in `guardkit/cli/`, not "
    "the page. What the exit codes mean: [classify.md](classify.md#exit-codes).\n"
)


def page() -> str:
    """Return the reference as Markdown: a section for each command, groups before their own."""
    commands = [*_commands(get_command(app), "guardkit")]
    contents = [
        f"- [`{path}`](#{path.replace(' ', '-')})" for path, command in commands if _does(command)
    ]
    sections = [_section(path, command) for path, command in commands if _does(command)]
    return "\n".join([OPENING, *contents, "", *sections])


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{path} {name}")


def _does(command: Any) -> bool:
    """Whether a command does anything by itself, or has options: a mere group does not."""
    return bool(
        not hasattr(command, "commands") or command.invoke_without_command or command.params
    )


def _section(path: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = [path, *(["[OPTIONS]"] if options else []), *map(_metavar, arguments)]
    if hasattr(command, "commands"):
        usage.append("[COMMAND]" if command.invoke_without_command else "COMMAND")
    parts = [f"## `{path}`", f"```text\n{' '.join(usage)}\n```", *_paragraphs(command.help)]
    context = typer.Context(command, info_name=path)
    if command.params:
        parts.append("\n".join(_line(p, context) for p in [*arguments, *options]))
    if command.epilog:
        parts.append(f"Example: `{command.epilog.removeprefix('Example: ')}`")
    return "\n\n".join(parts) + "\n"


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a help text, a line each."""
    return [" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n")]


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _line(parameter: Any, context: typer.Context) -> str:
    name, about = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        name = _metavar(parameter)
    several = " May be given several times." if parameter.multiple else ""
    about, bracket, facts = about.partition("  [")  # the default, the range, whether it must be
    return f"- `{name}`: {about}{several}{bracket and ' [' + facts}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
