"""A third party's classifier raises, hangs, dies, lies about shapes or changes what it was given:
the text that made it do so is an error and named, its neighbours are judged as ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .plugin import DEEDS, install, installed, write_deeds
from .runs import Running

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]
#: Deeds that harm nobody: the right scores come back all the same.
HARMLESS = ("clear", "rewrite", "shared")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install(tmp_path)
    return tmp_path


def out(folder: Path, name: str = "out.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("deed", DEEDS)
def test_one_text_fails_alone_and_says_why(folder: Path, deed: str) -> None:
    write_deeds(folder / "in.jsonl", 60, {17: deed, 18: deed, 55: deed})
    run = Running(folder, "out.jsonl", shard_rows=25, within=installed)
    assert run.end() == (0 if deed in HARMLESS else 3), run.said()
    lines = out(folder)
    assert [line["id"] for line in lines] == list(range(60))
    for i, line in enumerate(lines):
        if i in (17, 18, 55) and deed not in HARMLESS:
            assert line["error"]
            assert line["action"] == "flag"  # closed: what could not be judged is never safe
        else:
            assert line["error"] is None
            assert line["action"] == ("flag" if i % 2 else "allow")


def test_a_text_that_kills_its_worker_is_set_aside_and_named(folder: Path) -> None:
    write_deeds(folder / "in.jsonl", 200, {57: "die"})
    run = Running(folder, "out.jsonl", "--workers", "2", shard_rows=20, within=installed)
    assert run.end() == 3
    assert "set aside, its lines are errors: " in run.said()
    assert "in.jsonl, row 58: its worker ended with SIGKILL" in run.said()
    assert [line["id"] for line in out(folder) if line["error"]] == [57]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_text_that_takes_too_long_fails_alone_and_its_neighbours_are_judged(
    folder: Path, workers: int
) -> None:
    write_deeds(folder / "in.jsonl", 200, {57: "hang", 131: "sleep"})
    run = Running(
        folder, "out.jsonl", "--workers", str(workers), "--shard-timeout", "2",
        shard_rows=20, within=installed,
    )  # fmt: skip
    assert run.end() == 3, run.said()
    assert "row 58: its worker ended with no answer for 2 s" in run.said()
    assert "row 132: its worker ended with no answer for 2 s" in run.said()
    lines = out(folder)
    assert [line["id"] for line in lines if line["error"]] == [57, 131]
    assert [line["action"] for line in lines if not line["error"]] == [
        "flag" if i % 2 else "allow" for i in range(200) if i not in (57, 131)
    ]
    assert lines[57]["action"] == lines[131]["action"] == "flag"  # closed
    assert [line["id"] for line in lines] == list(range(200))


def test_a_shard_of_texts_that_all_kill_their_worker_ends_all_the_same(folder: Path) -> None:
    write_deeds(folder / "in.jsonl", 60, dict.fromkeys(range(20, 40), "die"))
    run = Running(folder, "out.jsonl", "--workers", "2", shard_rows=20, within=installed)
    assert run.end() == 3
    assert [line["id"] for line in out(folder) if line["error"]] == list(range(20, 40))


@pytest.mark.parametrize("deed", ["die", "sleep", "hang"])
def test_what_happens_once_costs_nothing(folder: Path, deed: str) -> None:
    write_deeds(folder / "in.jsonl", 400, dict.fromkeys(range(0, 400, 45), deed))
    (folder / f"once-{deed}").touch()
    run = Running(
        folder, "out.jsonl", "--workers", "2", "--shard-timeout", "3",
        shard_rows=20, within=installed,
    )  # fmt: skip
    run.finish()
    assert [line["action"] for line in out(folder)] == ["allow", "flag"] * 200
