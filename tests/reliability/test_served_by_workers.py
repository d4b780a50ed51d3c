"""``guardkit serve --workers``: several processes at one port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import Process
from tests.support.serving import Served

from .runs import POLICY

pytestmark = pytest.mark.reliability

ODD = b'{"text": "number 3"}'


class Together(Process):
    """Two workers; ``each`` asks one of them."""

    def __init__(self, folder: Path, *more: str) -> None:
        (folder / "policy.yaml").write_text(POLICY)
        super().__init__(folder, "--policy", "policy.yaml", "--workers", "2", *more)
        assert self.process.stdout is not None
        ports = self.process.stdout.readline().rpartition(": ")[2].split(", ")
        self.each = [Served(int(port), None, None) for port in ports]  # type: ignore[arg-type]

    def pids(self) -> list[int]:
        """Return the processes that serve."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.split()}
        return [pid for pid, line in lines.items() if b"spawn_main" in line]


@pytest.fixture
def together(tmp_path: Path) -> Iterator[Together]:
    server = Together(tmp_path)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def asked(server: Together) -> list[float]:
    counted = 'guardkit_requests_total{endpoint="/v1/classify",status="200"}'
    return [worker.metric(counted) for worker in server.each]


def test_workers_share_a_port_come_back_and_end_together(together: Together) -> None:
    for _ in range(200):
        assert together.served.post("/v1/classify", ODD).status == 200
        if all(asked(together)):
            break
    assert all(asked(together)), "both were asked"

    policy = together.log.parent / "policy.yaml"
    policy.write_text(POLICY.replace("action: flag", "action: block"))
    together.process.send_signal(signal.SIGHUP)
    for worker in together.each:
        deadline = time.monotonic() + 60
        while worker.post("/v1/classify", ODD).json["decisions"][0]["action"] != "block":
            assert time.monotonic() < deadline
            time.sleep(0.01)

    first, second = together.pids()
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(left := [pid for pid in together.pids() if not gone(pid)]) < 2 or first in left:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert second in left
    together.wait_for("ended with -9")
    pids = together.pids()
    assert together.end() == 0
    assert all(map(gone, pids))


def test_workers_end_with_the_process_that_started_them(together: Together) -> None:
    pids = together.pids()
    assert len(pids) == 2
    together.end(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not all(map(gone, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_workers_that_cannot_start_are_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("nonsense")
    command = [sys.executable, "-m", "guardkit", "serve", "--workers", "2", "--port", "0"]
    run = subprocess.run(
        [*command, "--policy", "policy.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 3
    assert "policy.yaml: 1 mistake" in run.stderr
    assert "Traceback" not in run.stderr
