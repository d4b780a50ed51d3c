"""Where a stored result comes from: the commit, and the machine with the threads it used."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

from benchmarks.lib.paths import ROOT


def commit() -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def machine() -> str:
    """Return the GPU's name, or the processor's and how many threads torch runs on it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    threads = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    return f"{names[0] if names else platform.machine()}, {threads} threads"
