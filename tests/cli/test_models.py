"""`guardkit models`: what comes with plugins, and whether it is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardkit.cli.main import main
from guardkit.model import artefact
from guardkit.plugins import Plugins
from tests.support.command_folder import install


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


def test_models_are_listed_shown_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert re.search(r"builtin:fake/injection │ fake +│ benign, injection", capsys.readouterr().out)
    assert main(["models", "show", "builtin:injection"]) == 0
    assert "It has no model card." in capsys.readouterr().out
    (Path("model") / artefact.CARD).write_text("# A card\n\nIt is small.\n")
    assert main(["models", "verify", "model"]) == 2
    assert "README.md: in the folder but not in SHA256SUMS" in capsys.readouterr().err
    artefact.seal(Path("model"))
    assert main(["models", "show", "model"]) == 0
    assert "It is small." in capsys.readouterr().out
    assert main(["models", "verify", "model"]) == 0
    digest = artefact.model_hash(Path("model"))
    assert capsys.readouterr().out == f"{Path('model').resolve()}: ok, {digest}\n"
