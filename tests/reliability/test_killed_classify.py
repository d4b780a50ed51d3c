"""Real classifying processes, killed at random points, end in the bytes of one left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(900)]
ROWS, KILLS = 14_000, 12
POLICY = """
version: 1
name: patterns
categories:
  odd:
    positive: [odd]
    decide: {pattern: {re2: "[13579]$"}}
    flag_at: {probability: 0.5}
    action: flag
"""


def start(folder: Path, out: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "guardkit", "classify", "in.jsonl", "--policy", "policy.yaml",
               "--out", out, *more]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return err


def parts(folder: Path, out: str) -> int:
    return len(list(folder.glob(f"{out}.parts/part-*")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "policy.yaml").write_text(POLICY, "utf-8")
    lines = (json.dumps({"id": i, "text": f"text number {i}"}) + "\n" for i in range(ROWS))
    (folder / "in.jsonl").write_text("".join(lines), "utf-8")
    finish(start(folder, "whole.jsonl"))
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again_it_loses_and_repeats_nothing(folder: Path, workers: int) -> None:
    whole = (folder / "whole.jsonl").read_bytes()
    assert whole.count(b"\n") == ROWS
    chance, counted = random.Random(workers), 0
    more = ["--workers", str(workers)]
    for attempt in range(KILLS * 6):
        if counted == KILLS:
            break
        out = f"out-{workers}-{attempt}.jsonl"
        process = start(folder, out, *more)
        deadline = time.monotonic() + 60
        while not parts(folder, out) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.08)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        counted += 0 < parts(folder, out) < ROWS / 2000  # some parts, and not all of them
        finish(start(folder, out, *more, *(["--resume"] if process.returncode < 0 else [])))
        assert (folder / out).read_bytes() == whole
        assert not (folder / f"{out}.parts").exists()
    assert counted >= KILLS // 2, f"only {counted} kills fell between parts"


def test_a_signal_ends_it_within_seconds_and_resume_goes_on(folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        out = f"stopped-{number}.jsonl"
        process = start(folder, out)
        while not parts(folder, out) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(number)
        began = time.monotonic()
        _, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 5
        if process.returncode == 0:  # it was done already
            continue
        assert process.returncode == 130
        assert "--resume" in err
        finish(start(folder, out, "--resume"))
        assert (folder / out).read_bytes() == (folder / "whole.jsonl").read_bytes()
