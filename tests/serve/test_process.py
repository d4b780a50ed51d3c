"""``guardkit serve`` as a process: what it prints, the signals it takes, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.runs import POLICY
from tests.support.server_process import Process

ODD = '{"text": "number 3"}'


def test_a_server_is_started_asked_told_of_a_new_policy_and_ended(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    server = Process(tmp_path, "--policy", "policy.yaml", "--audit-log", "audit.jsonl")
    try:
        assert "policy patterns" in server.said
        assert server.served.post("/v1/classify", ODD.encode()).json["decisions"][0]["action"] == (
            "flag"
        )
        (tmp_path / "policy.yaml").write_text(POLICY.replace("action: flag", "action: block"))
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for("is served now")
        answer = server.served.post("/v1/classify", ODD.encode())
        assert answer.json["decisions"][0]["action"] == "block"
        (tmp_path / "policy.yaml").write_text("nonsense")
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for("the old policy goes on")
        assert server.served.post("/v1/classify", ODD.encode()).status == 200
    finally:
        code = server.end()
    assert code == 0
    shown = [line for line in server.said.splitlines() if line.startswith("try: curl ")]
    assert len(shown) == 1, server.said
    url, body = (shlex.split(shown[0])[i] for i in (3, -1))
    assert url == f"{server.served.url}/v1/classify"
    assert json.loads(body)["text"]
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 3
    assert "number 3" not in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "absent.yaml"], "absent.yaml"),
        (["--host", "192.0.2.1"], "cannot be served at"),
        (["--api-key-file", "absent"], "cannot be read"),
        (["--openai-name", "violence"], "expected NAME=CATEGORY"),
        (["--openai-name", "violence=nothing"], "has no category 'nothing'"),
        (["--audit-text-share", "0.5"], "needs --audit-log"),
        (["--audit-log", "absent/log"], "cannot be written"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_a_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    from guardkit.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("guardkit.serve.run._allow_many_connections", lambda: None)
    monkeypatch.setattr("guardkit.serve.run.log_to_stderr", lambda: None)
    Path("policy.yaml").write_text(POLICY)
    given = arguments if "--policy" in arguments else [*arguments, "--policy", "policy.yaml"]
    assert main(["serve", "--port", "0", *given]) in (2, 3)
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert said in told
    assert "Traceback" not in told


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from guardkit.cli.main import main

    absent: Callable[[str], None] = lambda name: None  # noqa: E731
    monkeypatch.setattr("guardkit.cli.serve.find_spec", absent)
    assert main(["serve"]) == 2
    assert "pip install 'guardkit[serve]'" in capsys.readouterr().err
