"""Running guardkit as a user does: another process, another folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).parents[2]
#: What this process was told about guardkit and Python must not reach the one it starts.
OWN = ("GUARDKIT_", "PYTHON", "VIRTUAL_ENV")


class Run(Protocol):
    def __call__(
        self, command: Sequence[Any], *, cwd: Path, code: int = 0, **env: str
    ) -> subprocess.CompletedProcess[str]: ...


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    return {**kept, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **extra}


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command and return it; any exit code but ``code`` fails with what it printed."""

    def run(
        command: Sequence[Any], *, cwd: Path, code: int = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=clean_environment(env),
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run
