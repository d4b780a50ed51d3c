"""Every call on a file fails in turn: a clean end that names the path, then the same bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from guardkit.classify import shards
from guardkit.cli.main import main

from .faults import ERRORS, OTHERS, Before, Call, failing, watched
from .runs import PLANTED, POLICY, write_input

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]
ARGUMENTS = ["classify", "in.jsonl", "--policy", "policy.yaml", "--out", "out.jsonl"]


def run(*more: str, before: Before = lambda call, data: None) -> tuple[int, list[Call]]:
    with watched(Path.cwd(), before) as calls:
        return main([*ARGUMENTS, *more]), calls


@pytest.fixture(autouse=True)
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Work in a folder with an input of three shards; return an undisturbed run's output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shards, "SHARD_ROWS", 20)
    write_input(Path("in.jsonl"), 50)
    Path("policy.yaml").write_text(POLICY, "utf-8")
    assert main(ARGUMENTS) == 0
    content = Path("out.jsonl").read_bytes()
    Path("out.jsonl").unlink()
    return content


def fault_and_resume(
    before: Before, what: str, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> int:
    """Run with a fault, then resume without; return the exit code of the first."""
    capsys.readouterr()
    code, _ = run(before=before)
    said = capsys.readouterr().err
    assert code in (0, 2, 3), what
    assert "Traceback" not in said, f"{what}\n{said}"
    assert PLANTED not in said, what
    if code:
        assert "error: " in said, what
        assert any(x in said for x in ("out.jsonl", "in.jsonl", "policy.yaml", f"{Path.cwd()}:")), (
            what, said,
        )  # fmt: skip
    else:
        assert Path("out.jsonl").read_bytes() == whole, what
    if Path("out.jsonl").exists():  # whole, or not there
        assert Path("out.jsonl").read_bytes() == whole, what
    if code or Path("out.jsonl.parts").exists():
        again = run("--resume")[0]
        assert again == 0, f"{what}\n{said}\n{capsys.readouterr().err}"
    assert Path("out.jsonl").read_bytes() == whole, what
    assert not Path("out.jsonl.parts").exists(), what
    assert sorted(os.listdir()) == ["in.jsonl", "out.jsonl", "policy.yaml"], what
    Path("out.jsonl").unlink()
    return code


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
def test_every_call_fails_in_turn_and_resume_ends_in_the_same_bytes(
    sticky: bool, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    code, calls = run()
    assert code == 0
    Path("out.jsonl").unlink()
    assert len(calls) > 60
    tried = failed = 0
    for target in dict.fromkeys(calls):
        broken = False

        def which(call: Call, target: Call = target) -> bool:
            nonlocal broken
            broken = (broken and sticky) or call == target
            return broken

        kinds = [(number, False) for number in ERRORS.get(target.name, OTHERS)]
        kinds += [(errno.ENOSPC, True)] if target.name == "write" else []
        for number, short in kinds:
            broken = False
            what = f"{target}: {errno.errorcode[number]}{' after a short write' if short else ''}"
            before = failing(which, number, short=short)
            failed += fault_and_resume(before, what, whole, capsys) != 0
            tried += 1
    assert tried > 120
    assert failed > tried // 2


def test_a_short_write_is_no_fault(whole: bytes) -> None:
    halved = []

    def before(call: Call, data: bytes) -> int | None:
        if call.name != "write" or len(data) < 2:
            return None
        halved.append(call)
        return len(data) // 2

    assert run(before=before)[0] == 0
    assert Path("out.jsonl").read_bytes() == whole
    assert len(halved) > 10
