"""`guardkit classify`: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guardkit.cli.main import main
from guardkit.plugins import Plugins
from tests.support.command_folder import install, written


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


def test_classify_writes_decisions_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "in.jsonl", "--policy", "policy.yaml"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["action"] for line in out.splitlines()] == ["allow", "flag"]
    assert re.fullmatch(r"2 lines in [\d.]+ s \([\d,]+ texts/s\): 1 allow, 1 flag\n", err)


def test_classify_into_a_file_keeps_fields(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["classify", "in.jsonl", "--policy", "policy.yaml", "--out", "out.jsonl", "--keep", "k"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("-> out.jsonl\n")
    assert [line.get("k") for line in written()] == [None, [1]]


def test_a_terminal_sees_progress_where_it_does_not_run_into_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    args = ["classify", "in.jsonl", "--policy", "policy.yaml"]
    assert main([*args, "--out", "out.jsonl"]) == 0
    assert "classify" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(args) == 0
    assert capsys.readouterr().err.startswith("2 lines in")


def test_classify_with_a_model_gives_probabilities(capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("model", "builtin:injection"):
        assert main(["classify", "in.jsonl", "--model", model, "--out", "out.jsonl"]) == 0
        assert [line["probabilities"]["injection"] for line in written()] == [0.119203, 0.880797]
    assert "action" not in written()[0]


@pytest.mark.parametrize("decider", [["--model", "model"], ["--policy", "policy.yaml"]])
def test_classify_runs_models_on_the_backend_it_is_given(
    decider: list[str], plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, backends = plugins.families["fake"], []
    load = family.load

    def noting(path: Path, *, device: str, backend: str) -> Any:
        backends.append(backend)
        return load(path, device=device, backend=backend)

    monkeypatch.setattr(family, "load", noting)
    assert main(["classify", "in.jsonl", *decider, "--backend", "onnx"]) == 0
    assert backends == ["onnx"]


@pytest.mark.parametrize(
    ("lines", "fail_on", "code"),
    [
        (['{"text": "a cake"}'], None, 0),
        (['{"text": "a cake"}'], "flag", 0),
        (['{"text": "an attack"}'], None, 0),
        (['{"text": "an attack"}'], "flag", 1),
        (['{"text": "an attack"}'], "abstain", 0),
        (['{"text": "an attack"}'], "block", 0),
        (["not json"], None, 3),
        (['{"text": "BROKEN"}'], None, 3),
        (["not json", '{"text": "an attack"}'], "flag", 3),
    ],
)
def test_the_exit_code_says_how_a_run_ended(
    lines: list[str], fail_on: str | None, code: int
) -> None:
    Path("in.jsonl").write_text("\n".join(lines))
    args = ["classify", "in.jsonl", "--policy", "policy.yaml", "--out", "out.jsonl"]
    assert main(args + (["--fail-on", fail_on] if fail_on else [])) == code
    assert len(written()) == len(lines)


def test_a_reader_that_has_gone_ends_the_run_quietly(tmp_path: Path) -> None:
    Path("many.jsonl").write_text('{"text": "a cake"}\n' * 5000)
    script = (
        "import sys, guardkit.cli.main, guardkit.policy.router, guardkit.model.loaded\n"
        "from tests.support import command_folder as made\n"
        "plugins = made.plugins_of(made.Family(made.logits_of))\n"
        "guardkit.policy.router.installed_plugins = lambda: plugins\n"
        "sys.exit(guardkit.cli.main.main(['classify', 'many.jsonl', '--policy', 'policy.yaml']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stderr is not None
        assert json.loads(run.stdout.readline())["action"] == "allow"
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 141
