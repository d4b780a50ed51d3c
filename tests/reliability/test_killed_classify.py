"""Real classifying processes, killed at random points, end in the bytes of one left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from .faults import Call, watched
from .runs import POLICY, Running, write_input

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(900)]
ROWS, SHARD_ROWS = 6_000, 200
SHARDS = ROWS // SHARD_ROWS
#: Runs killed by number of workers, each three times: first run, resume, resume of that.
KILLED = {1: 50, 2: 5}
DEEP = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "policy.yaml").write_text(POLICY, "utf-8")
    write_input(folder / "in.jsonl", ROWS)
    Running(folder, "whole.jsonl", shard_rows=SHARD_ROWS).finish()
    return folder


def kill_somewhere(run: Running, chance: random.Random) -> bool:
    """Kill a run after a random part; return whether some parts were there, and not all."""
    before = run.parts()
    # a third of what is left, at most: so that the next runs have something to do
    run.wait_for_parts(before + chance.randint(1, max(1, (SHARDS - before) // 3)))
    time.sleep(chance.random() * 0.02)
    run.kill()
    assert run.end() in (-signal.SIGKILL, 0), run.said()
    return 0 < run.parts() < SHARDS


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again_it_loses_and_repeats_nothing(folder: Path, workers: int) -> None:
    whole = (folder / "whole.jsonl").read_bytes()
    assert whole.count(b"\n") == ROWS
    chance, counted, nested = random.Random(workers), 0, 0
    more = ["--workers", str(workers)]
    for attempt in range(KILLED[workers] * 2):
        if counted >= KILLED[workers]:
            break
        out = f"out-{workers}-{attempt}.jsonl"
        kills = 0
        for depth in range(DEEP):
            resume = ["--resume"] if depth else []
            run = Running(folder, out, *more, *resume, shard_rows=SHARD_ROWS)
            kills += kill_somewhere(run, chance)
            if (folder / out).exists():
                break
        Running(folder, out, *more, "--resume", shard_rows=SHARD_ROWS).finish()
        assert (folder / out).read_bytes() == whole
        assert not (folder / f"{out}.parts").exists()
        (folder / out).unlink()
        counted += kills > 0
        nested += kills == DEEP
    assert counted >= KILLED[workers], f"only {counted} kills fell between parts"
    assert nested >= KILLED[workers] // 4, f"only {nested} runs were killed {DEEP} times"


class _KillsItself:
    """Ends the process by SIGKILL just before its n-th call on a file."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, folder: Path) -> None:
        made = 0

        def before(call: Call, data: bytes) -> None:
            nonlocal made
            made += 1
            if made == self.n:
                os.kill(os.getpid(), signal.SIGKILL)

        self.watching = watched(folder, before)
        self.watching.__enter__()


def test_killed_before_every_single_call_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY, "utf-8")
    write_input(tmp_path / "in.jsonl", 50)
    Running(tmp_path, "whole.jsonl", shard_rows=20).finish()
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for n in range(1, 500):
        run = Running(tmp_path, "out.jsonl", shard_rows=20, within=_KillsItself(n))
        if run.end() == 0:
            break
        if (tmp_path / "out.jsonl").exists():
            assert (tmp_path / "out.jsonl").read_bytes() == whole
        Running(tmp_path, "out.jsonl", "--resume", shard_rows=20).finish()
        assert (tmp_path / "out.jsonl").read_bytes() == whole
        assert not (tmp_path / "out.jsonl.parts").exists()
        (tmp_path / "out.jsonl").unlink()
    assert 60 < n < 400
