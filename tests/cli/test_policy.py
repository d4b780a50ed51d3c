"""`guardkit policy check` and `test`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardkit.cli.main import main
from guardkit.plugins import Plugins
from tests.support.command_folder import POLICY, Family, install


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


def test_policy_check_lists_every_mistake_and_loads_no_model(
    plugins: Plugins, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "check", "policy.yaml"]) == 0
    assert capsys.readouterr().out == (
        "policy.yaml: ok: 'test'; categories: injection; members: only\n"
    )
    bad = POLICY.replace("action: flag", "action: shout").replace("version: 1", "version: 7")
    Path("bad.yaml").write_text(bad)
    assert main(["policy", "check", "bad.yaml"]) == 2
    err = capsys.readouterr().err
    assert "error: bad.yaml: 2 mistakes" in err
    assert "bad.yaml:1: version" in err
    assert "bad.yaml:10: categories.injection.action" in err
    family = plugins.families["fake"]
    assert isinstance(family, Family)
    assert family.loads == []


def test_policy_test_runs_the_tests_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test", "policy.yaml"]) == 0
    assert "2 of 2 passed" in capsys.readouterr().out
    Path("policy.yaml").write_text(POLICY.replace("injection: allow", "injection: flag"))
    assert main(["policy", "test", "policy.yaml"]) == 1
    out, _ = capsys.readouterr()
    assert re.search(r"FAILED │ a cake +│ injection: flag +│ injection: allow", out)
    assert "1 of 2 passed" in out
    Path("policy.yaml").write_text(POLICY[: POLICY.index("tests:")])
    assert main(["policy", "test", "policy.yaml"]) == 2
    assert "has no tests" in capsys.readouterr().err
