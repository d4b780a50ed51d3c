"""The command line: what it prints where, and which code it exits with."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import guardkit
from guardkit.cli.main import app, main
from guardkit.errors import OutputError
from guardkit.plugins import Plugins
from tests.support.command_folder import TRAIN, install


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["classify"], "Missing argument"),
        (["classify", "in.jsonl", "--nonsense"], "No such option"),
        (["classify", "in.jsonl", "--fail-on", "maybe"], "--fail-on"),
        (["nonsense"], "No such command"),
        (["classify", "none.jsonl", "--policy", "policy.yaml"], "error: none.jsonl: cannot be op"),
        (["classify", "in.jsonl", "--policy", "none.yaml"], "none.yaml"),
        (["classify", "in.jsonl", "--model", "none"], "not a guardkit model: no such folder"),
        (
            ["classify", "in.jsonl", "--model", "model", "--policy", "policy.yaml"],
            "error: give --policy or --model, not both",
        ),
        (["classify", "in.jsonl", "--model", "model", "--fail-on", "flag"], "--fail-on needs a po"),
        (["classify", "in.jsonl", "--out", "in.jsonl"], "error: --out in.jsonl: is the input its"),
        (["classify", "in.jsonl", "--keep", "action"], "error: --keep action: the output has a f"),
        (["evaluate", "--data", "x.csv"], "error: give one of --model and --policy"),
        (
            ["evaluate", "--data", "x.csv", "--model", "model", "--no-texts"],
            "error: --no-texts: there is no report to leave them out of; give --report DIR",
        ),
        (["evaluate", "--data", "x.csv", "--model", "model"], "error: x.csv: no such file"),
        (
            ["train", "--plugin", "fake", "--data", "x", "--out", "o", "--set", "a"],
            "error: --set a: expected KEY=VALUE",
        ),
        (["train", "--plugin", "torn", "--data", "x", "--out", "o"], "No module named 'torn'"),
        ([*TRAIN, "--config", "none.yaml"], "'none.yaml' does not exist"),
        (
            ["evaluate", "--data", "x.csv", "--model", "model", "--json", "none/r.json"],
            "error: --json none/r.json: no such folder",
        ),
        (["models", "verify", "."], "has no config.json"),
        (
            ["models", "show", "builtin:none"],
            "no such bundled model; bundled: builtin:fake/injection",
        ),
    ],
)
def test_a_mistake_exits_with_2_and_says_what_is_wrong(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""


def test_other_failures_exit_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("guardkit.classify.records.classify", fail)
    args = ["classify", "in.jsonl", "--policy", "policy.yaml"]
    failure: Exception = OutputError("out.jsonl: cannot be written: No space left on device")
    assert main(args) == 3
    assert capsys.readouterr().err == f"error: {failure}\n"
    monkeypatch.setenv("GUARDKIT_TRACEBACK", "1")
    assert main(args) == 3
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.delenv("GUARDKIT_TRACEBACK")
    failure = KeyError("a bug")
    assert main(args) == 3
    assert "KeyError: 'a bug'" in capsys.readouterr().err
    failure = KeyboardInterrupt()  # type: ignore[assignment]
    assert main(args) == 130


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"guardkit {guardkit.__version__}\n"
    commands = [[c.name or c.callback.__name__] for c in app.registered_commands if c.callback]
    groups = [(g.name, g.typer_instance) for g in app.registered_groups]
    commands += [[str(name), str(c.name)] for name, g in groups if g for c in g.registered_commands]
    assert ["policy", "check"] in commands
    for command in commands:
        assert main([*command, "--help"]) == 0
        example = re.search(r"Example: (.*\s.*)", capsys.readouterr().out)
        assert example, command
        assert example[1].startswith(f"guardkit {' '.join(command)}")


DEFAULT = str(Path(__file__).parents[2] / "policies" / "default.yaml")


@pytest.mark.parametrize("args", [["--help"], ["policy", "check", DEFAULT]])
def test_help_and_a_policy_check_take_little_more_than_their_libraries(args: list[str]) -> None:
    """Half a second on a machine that imports those in .25: a bound that a slow machine scales.

    Of pairs run back to back the best counts: a busy machine slows both of a pair, or spoils it.
    """

    def seconds(run: list[str]) -> float:  # of this process: the machine may be busy with others
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *run], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    libraries = ["-c", "import numpy, pydantic, typer, typer._adapters"]
    pairs = [(seconds(libraries), seconds(["-m", "guardkit", *args])) for _ in range(5)]
    assert min(own / floor for floor, own in pairs) < 2.5


def test_what_nothing_caught_is_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def panicking(*_: Any, **__: Any) -> Any:
        raise panic("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr("guardkit.classify.shards.Input", panicking)
    assert main(["classify", "in.jsonl", "--policy", "policy.yaml"]) == 3
    assert "PanicException" in capsys.readouterr().err
