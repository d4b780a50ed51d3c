"""`guardkit train`, run as a user runs it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def set_options(*pairs: str) -> tuple[str, ...]:
    """Return KEY=VALUE pairs as options of ``guardkit train``."""
    return tuple(word for pair in pairs for word in ("--set", pair))


def guardkit_train(plugin: str, data: str, out: Path, options: Sequence[str]) -> None:
    """Run `guardkit train`, anew or where it was interrupted, and say how long it took."""
    shutil.rmtree(out, ignore_errors=True)
    command = ["guardkit", "train", "--plugin", plugin, "--data", data, "--out", str(out)]
    command += options
    if out.with_name(f"{out.name}.partial").exists():
        command.append("--resume")
    print(" ".join(command), flush=True)
    started = time.monotonic()
    subprocess.run(command, check=True)
    print(f"{out.name}: {time.monotonic() - started:.0f} s")
