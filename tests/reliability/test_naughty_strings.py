"""The Big List of Naughty Strings, wherever a user can put a string: a finite score or a typed
error, and never a traceback."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from guardkit.cli.main import main
from guardkit.errors import PolicyError
from guardkit.policy.router import check_policy

from .hostile import hostile
from .runs import POLICY

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]
STRINGS: list[str] = json.loads(hostile("blns.json").read_text("utf-8"))
MODEL = "builtin:mdlm/injection"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY, "utf-8")


def test_the_list_is_whole() -> None:
    assert (len(STRINGS), len(set(STRINGS))) == (515, 511)


def out() -> list[dict]:
    return [json.loads(line) for line in Path("out.jsonl").read_bytes().splitlines()]


def test_as_a_text_and_as_an_id(capsys: pytest.CaptureFixture[str]) -> None:
    """A model scores every one of them, whatever the id."""
    rows = [{s: s, "kept": {s: s}, "text": s, "id": s} for s in STRINGS]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["classify", "in.jsonl", "--model", MODEL, "--device", "cpu", "--keep", "kept"]
    code = main([*command, "--out", "out.jsonl"])
    assert code in (0, 3), capsys.readouterr().err
    for s, line in zip(STRINGS, out(), strict=True):
        assert line["id"] == s
        assert line["kept"] == {s: s}
        if line["error"] is None:
            assert all(math.isfinite(p) for p in line["probabilities"].values())
        else:
            assert line["probabilities"] is None
    assert sum(line["error"] is None for line in out()) > 500


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_as_a_file_name(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = 0
    for s in filter(None, STRINGS):
        name = s + suffix
        try:
            Path(name).write_text('{"text": "1"}\n' if suffix == ".jsonl" else "text\n1\n")
        except (OSError, ValueError):
            there = False
        else:
            there, made = True, made + 1
        command = ["classify", "--policy", "policy.yaml", "--out", "out.jsonl", "--", name]
        code, said = main(command), capsys.readouterr().err
        assert "Traceback" not in said
        assert code == (0 if there else 2), (name, said)
        if there:
            assert out()[-1]["error"] is None
            Path(name).unlink()
        else:
            assert "error: " in said
    assert made > 300


def test_as_an_output_and_as_a_policy_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_text('{"text": "1"}\n')
    for s in STRINGS:
        for command in (
            ["--policy", "policy.yaml", "--out", f"{s}.out"],
            ["--policy", f"{s}.yaml"],
        ):
            code = main(["classify", "in.jsonl", *command])
            said = capsys.readouterr().err
            assert code in (0, 2, 3), (command, said)
            assert "Traceback" not in said, (command, said)


def test_as_the_name_of_a_policy_a_category_a_member_and_as_a_pattern() -> None:
    read = refused = 0
    for s in STRINGS:
        quoted = json.dumps(s)
        for old in ("name: patterns", "  odd:", "[odd]", '"[13579]$"', "flag_at"):
            new = {"name: patterns": f"name: {quoted}", "  odd:": f"  {quoted}:",
                   "[odd]": f"[{quoted}]", "flag_at": quoted}.get(old, quoted)  # fmt: skip
            Path("naughty.yaml").write_text(POLICY.replace(old, new), "utf-8")
            try:
                check_policy("naughty.yaml")
                read += 1
            except PolicyError as error:
                refused += bool(error.problems)
    assert read > 500
    assert refused > 500
    assert read + refused == 5 * len(STRINGS)
