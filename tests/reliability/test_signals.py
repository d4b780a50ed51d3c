"""SIGTERM and SIGINT end a run within seconds, whatever it is doing; --resume goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from .plugin import install, installed, write_deeds
from .runs import POLICY, Running, write_input

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]
ROWS, SHARD_ROWS = 6_000, 200
SIGNALS = {1: 20, 2: 6}
DRAIN_S = 5.0


def ends_in_time(run: Running) -> int:
    began = time.monotonic()
    code = run.end()
    assert time.monotonic() - began < DRAIN_S
    return code


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_ends_it_and_resume_goes_on(tmp_path: Path, workers: int) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY, "utf-8")
    write_input(tmp_path / "in.jsonl", ROWS)
    more = ["--workers", str(workers)]
    Running(tmp_path, "whole.jsonl", shard_rows=SHARD_ROWS).finish()
    whole, chance, counted = (tmp_path / "whole.jsonl").read_bytes(), random.Random(7), 0
    for attempt in range(SIGNALS[workers] * 3):
        if counted == SIGNALS[workers]:
            break
        number = (signal.SIGTERM, signal.SIGINT)[attempt % 2]
        run = Running(tmp_path, "out.jsonl", *more, shard_rows=SHARD_ROWS)
        run.wait_for_parts(chance.randint(1, ROWS // SHARD_ROWS - 5))
        run.kill(number)
        if ends_in_time(run) == 130:
            counted += 1
            assert f"stopped by {number.name}; the same command with --resume" in run.said()
            assert "Traceback" not in run.said()
            Running(tmp_path, "out.jsonl", *more, "--resume", shard_rows=SHARD_ROWS).finish()
        else:
            assert run.process.exitcode == 0  # it was done
        assert (tmp_path / "out.jsonl").read_bytes() == whole
        (tmp_path / "out.jsonl").unlink()
    assert counted == SIGNALS[workers]


@pytest.mark.parametrize("deed", ["sleep", "hang"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_whose_plugin_hangs_and_swallows_it(
    tmp_path: Path, deed: str, number: signal.Signals
) -> None:
    install(tmp_path)
    write_deeds(tmp_path / "in.jsonl", 100, {57: deed})
    run = Running(tmp_path, "out.jsonl", shard_rows=20, within=installed)
    run.wait_for_parts(1)
    time.sleep(0.3)
    run.kill(number)
    assert ends_in_time(run) == 130
    assert f"stopped by {number.name}" in run.said()
    write_deeds(tmp_path / "in.jsonl", 100, {})


def test_workers_end_with_a_parent_that_was_killed_even_where_they_hang(tmp_path: Path) -> None:
    install(tmp_path)
    write_deeds(tmp_path / "in.jsonl", 100, {7: "hang", 27: "sleep"})
    run = Running(tmp_path, "out.jsonl", "--workers", "2", shard_rows=20, within=installed)
    deadline = time.monotonic() + 60
    assert run.process.pid is not None
    while len(children_of(run.process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(2)
    workers = children_of(run.process.pid)
    run.kill()
    run.end()
    deadline = time.monotonic() + DRAIN_S
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in workers if alive(pid)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_a_worker_killed_from_outside_costs_its_shard_alone(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY, "utf-8")
    write_input(tmp_path / "in.jsonl", ROWS)
    Running(tmp_path, "whole.jsonl", shard_rows=SHARD_ROWS).finish()
    chance, killed = random.Random(3), 0
    for _ in range(5):
        run = Running(tmp_path, "out.jsonl", "--workers", "2", shard_rows=50)
        for _ in range(3):
            run.wait_for_parts(run.parts() + chance.randint(1, 20))
            if run.process.is_alive() and (workers := children_of(run.process.pid or 0)):
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1
        run.finish()
        assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        (tmp_path / "out.jsonl").unlink()
    assert killed >= 10
