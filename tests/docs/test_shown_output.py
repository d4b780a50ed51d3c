"""docs/calibration.md shows what its command prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardkit.cli.main import main

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "calibration.md").read_text("utf-8")


def test_the_output_shown_is_that_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = re.findall(r"^guardkit (calibrate .*)$", DOCS, flags=re.M)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", DOCS, flags=re.M | re.S)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    number = r"\d+\.\d+"
    # another processor moves the last digits of a score, and a text to the next bin of the ECE
    for line, expected in zip(printed.splitlines(), shown.splitlines(), strict=False):
        assert re.sub(number, "#", line).split() == re.sub(number, "#", expected).split()
        values = [float(x) for x in re.findall(number, line)]
        assert values == pytest.approx([float(x) for x in re.findall(number, expected)], abs=0.01)
    assert len(printed.splitlines()) > len(shown.splitlines())
    assert (tmp_path / "reliability.svg").is_file()
