"""`guardkit explain`: what each token adds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardkit.cli.main import main
from guardkit.plugins import Plugins
from tests.support.command_folder import POLICY, install


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


def test_explain_shows_what_each_token_adds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explain", "an attack \x1b[31m", "--model", "model"]) == 0
    out, _ = capsys.readouterr()
    assert "probabilities: benign 0.119, injection 0.881" in out
    assert "evidence for 'injection' (posterior)" in out
    assert re.search(r"'attack' +│ \+1\.500", out)
    assert re.search(r"'an' +│ -0\.500", out)
    assert "\x1b" not in out  # a text cannot drive the terminal
    monkeypatch.setattr("guardkit.policy.router.policies_dir", Path)
    Path("default.yaml").write_text(POLICY)
    assert main(["explain", "a cake"]) == 0
    assert "injection 0.119" in capsys.readouterr().out
