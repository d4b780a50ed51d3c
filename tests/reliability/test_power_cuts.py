"""A power cut after any call on a file: what was not flushed is gone, and nothing is lost."""

from __future__ import annotations

import copy
import os
import random
import shutil
from pathlib import Path

import pytest

from guardkit.classify import shards
from guardkit.cli.main import main

from .disk import Disk
from .faults import Call, watched
from .runs import POLICY, write_input

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]
ARGUMENTS = ["classify", "in.jsonl", "--policy", "policy.yaml", "--out", "out.jsonl"]
STATES = 150


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setattr(shards, "SHARD_ROWS", 20)
    write_input(Path("in.jsonl"), 90)
    Path("policy.yaml").write_text(POLICY, "utf-8")
    return tmp_path


def states_of_a_run(*, flushing: bool = True) -> list[Disk]:
    """Run once and return the disk as it was after each call."""
    disk = Disk(Path.cwd())
    states: list[Disk] = []
    source: list[str] = []

    def before(call: Call, data: bytes) -> None:
        if call.name != "fsync" or flushing:
            disk.see(call, data, source[-1] if source else None)
            states.append(copy.deepcopy(disk))

    replace = os.replace

    def noting(src: str | Path, dst: str | Path) -> None:
        name = str(Path(src).relative_to(Path.cwd()))
        source.append(name.replace(f".{os.getpid()}", ".PID"))
        replaced(src, dst)

    with watched(Path.cwd(), before):
        replaced, os.replace = os.replace, noting
        try:
            assert main(ARGUMENTS) == 0
        finally:
            os.replace = replace
    return states


def resumed(states: list[Disk], n: int, cut: Path) -> list[str]:
    """Cut the power ``n`` times and resume; return what went wrong."""
    whole = Path("out.jsonl").read_bytes()
    wrong = []
    for seed in range(n):
        chance = random.Random(seed)
        at = chance.randrange(len(states))
        states[at].crash(chance, cut)
        os.chdir(cut)
        before = sorted(str(p) for p in cut.rglob("*"))
        out = cut / "out.jsonl"
        if out.exists() and out.read_bytes() != whole:
            wrong.append(f"seed {seed}, call {at}: a torn output")
        code = main([*ARGUMENTS, "--resume"])
        if code != 0 or out.read_bytes() != whole:
            wrong.append(f"seed {seed}, call {at}: exit code {code}, from {before}")
    return wrong


def test_a_power_cut_at_any_call_costs_no_row(desk: Path) -> None:
    states = states_of_a_run()
    assert len(states) > 80
    assert resumed(states, STATES, desk / "cut") == []


def test_without_flushing_it_would(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model finds what is not flushed: else the test above shows nothing."""
    assert resumed(states_of_a_run(flushing=False), STATES // 3, desk / "cut")


def test_what_is_left_of_an_ended_run_is_no_part_of_another(desk: Path) -> None:
    """Its manifest was removed and its parts were not: the next input must not get them."""
    states = states_of_a_run()
    ended = [s for s in states if "out.jsonl.parts/manifest.json" not in s.now]
    for seed in range(30):
        chance = random.Random(seed)
        chance.choice(ended[-8:]).crash(chance, desk / "cut")
        os.chdir(desk / "cut")
        Path("out.jsonl.parts", "manifest.json").unlink(missing_ok=True)
        other = Path("in.jsonl").read_text().splitlines(keepends=True)
        Path("in.jsonl").write_text("".join(other[::-1]))
        assert main(ARGUMENTS) == 0
        got = Path("out.jsonl").read_bytes()
        shutil.rmtree("out.jsonl.parts", ignore_errors=True)
        assert main(ARGUMENTS) == 0
        assert Path("out.jsonl").read_bytes() == got
