"""`guardkit plugins`: what is installed and what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardkit.cli.main import main
from guardkit.plugins import Plugins
from tests.support.command_folder import install


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


def test_plugins_are_listed_with_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["plugins"], ["plugins", "list"]):
        assert main(args) == 0
        out, _ = capsys.readouterr()
        assert re.search(r"fake +│ fake 1", out)
        assert "No module named 'torn'" in out
        assert "fake: answers from a table (presets: none)" in out
