"""Inputs, a policy that needs no model, and real processes that classify."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Stands in every text: no log may hold it.
PLANTED = "planted-5a7c"
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


def write_input(path: Path, rows: int) -> None:
    lines = (json.dumps({"id": i, "text": f"{PLANTED} number {i}"}) + "\n" for i in range(rows))
    path.write_text("".join(lines), "utf-8")


class Running:
    """``guardkit classify`` in a process of its own, forked from one that has imported it."""

    def __init__(
        self,
        folder: Path,
        out: str,
        *more: str,
        source: str = "in.jsonl",
        log: Path | None = None,
        shard_rows: int = 0,
        within: Callable[[Path], None] | None = None,
    ) -> None:
        self.folder, self.out = folder, out
        self.log = log or folder / f"{out}.log"
        arguments = ["classify", source, "--policy", "policy.yaml", "--out", out, *more]
        self.process = _context().Process(
            target=_classify, args=(folder, arguments, self.log, shard_rows, within)
        )
        self.process.start()

    def parts(self) -> int:
        return len(list(self.folder.glob(f"{self.out}.parts/part-*")))

    def wait_for_parts(self, n: int = 1, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while self.parts() < n and self.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self.process.pid is not None
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.process.pid, number)

    def end(self, timeout_s: float = 120) -> int:
        """Wait for the end and return the exit code; what was planted is nowhere in the log."""
        self.process.join(timeout_s)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {timeout_s} s\n{self.said()}")
        assert self.process.exitcode is not None
        assert PLANTED not in self.said()
        return self.process.exitcode

    def finish(self) -> None:
        assert self.end() == 0, self.said()

    def peak_bytes(self) -> int:
        """Return the most memory it had, the interpreter and guardkit itself included."""
        return int(Path(f"{self.log}.peak").read_text())

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


def _context() -> multiprocessing.context.ForkServerContext:
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["guardkit.cli.main", "guardkit.cli.output", "guardkit.classify.process_pool", __name__]
    )
    return context


def _classify(
    folder: Path,
    arguments: list[str],
    log: Path,
    shard_rows: int,
    within: Callable[[Path], None] | None,
) -> None:
    from guardkit.classify import shards
    from guardkit.cli.main import main

    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if shard_rows:
        shards.SHARD_ROWS = shard_rows
    if within is not None:
        within(folder)
    code = main(arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path(f"{log}.peak").write_text(str(peak * 1024))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
