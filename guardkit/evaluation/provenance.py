"""What a measurement was made with: when, on which machine, with which versions."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from guardkit import __version__


def provenance() -> dict[str, str]:
    """Return ``date`` (UTC), ``guardkit``, ``python`` and ``torch`` versions, and ``machine``."""
    made_with = {"guardkit": __version__, "python": platform.python_version()}
    if torch := sys.modules.get("torch"):  # where no model needed it, nor do we
        made_with["torch"] = torch.__version__
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, **made_with, "machine": _machine()}


def _machine() -> str:
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        name: str = torch.cuda.get_device_name()
        return name
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = f", {torch.get_num_threads()} threads" if torch else ""
    return f"{names[0] if names else platform.machine()}, {cores} cores{threads}"
