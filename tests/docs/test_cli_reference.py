"""docs/cli.md is what the command line says of itself."""

from __future__ import annotations

import pytest

from .cli_reference import COMMAND, PAGE, page


def test_the_page_is_what_the_command_line_says() -> None:
    assert PAGE.read_text("utf-8") == page(), f"write docs/cli.md anew: {COMMAND}"


@pytest.mark.parametrize(("columns", "colour"), [("20", "NO_COLOR"), ("400", "FORCE_COLOR")])
def test_the_page_is_the_same_in_every_terminal(
    columns: str, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERMINAL_WIDTH", columns)
    monkeypatch.setenv(colour, "1")
    assert page() == PAGE.read_text("utf-8")
