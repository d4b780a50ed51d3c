"""``guardkit serve`` in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.serving import Served


class Process:
    """A running ``guardkit serve``; ``served`` asks it."""

    def __init__(self, folder: Path, *more: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "guardkit", "serve", "--port", str(port), *more]
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline() + self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said)
        assert found, self.said + self.log.read_text()
        self.served = Served(int(found[1]), None, None)  # type: ignore[arg-type]

    def wait_for(self, word: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while word not in self.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert word in self.log.read_text()

    def resident_bytes(self) -> int:
        """Return the memory that the process has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return 1024 * int(found[1])

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode
