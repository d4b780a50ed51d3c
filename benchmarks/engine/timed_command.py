"""A command in a process of its own: its seconds, and the memory it held."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Took:
    """Seconds of the clock and of the processors, and the most memory that its processes held
    together, 0 where that was not watched."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(
    command: Sequence[str | Path],
    cores: int,
    *,
    cwd: Path | None = None,
    modules: Sequence[Path] = (),
    watched: bool = False,
) -> Took:
    """Run a command on ``cores`` cores, one thread each, with the folders ``modules`` on Python's
    path; to be ``watched`` slows it down."""
    pinned = sorted(os.sched_getaffinity(0))[:cores]
    path = os.pathsep.join([*map(str, modules), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    before, began = os.times(), time.perf_counter()
    process = subprocess.Popen(
        [*map(str, command)], cwd=cwd, env=environment, stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, pinned),
    )  # fmt: skip
    peak = 0
    while watched and process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.02)
    _, said = process.communicate()
    seconds, after = time.perf_counter() - began, os.times()
    if process.returncode:
        raise SystemExit(f"{command[:4]} failed: {said.decode()}")
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Took(seconds, cpu, peak)


def memory_of(pid: int) -> int:
    """Return the bytes that a process and all below it hold now, what they share counted once."""
    total, pending = 0, [pid]
    while pending:
        folder = Path(f"/proc/{pending.pop()}")
        try:
            fields = (folder / "smaps_rollup").read_text().split()
            total += int(fields[fields.index("Pss:") + 1]) * 1024
            for task in (folder / "task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except (OSError, ValueError):  # it has ended meanwhile
            continue
    return total
