"""Where collections of hostile input are, which are too large or too odd to keep here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENV_DATA = "GUARDKIT_DATA"


def hostile(name: str) -> Path:
    """Return a file or folder of ``hostile/`` below GUARDKIT_DATA, or skip the tests."""
    data = Path(os.environ.get(ENV_DATA) or ROOT.parent / "shared" / "data")
    path = data / "hostile" / name
    if not path.exists():
        pytest.skip(f"{path} is not there; {ENV_DATA} names the folder", allow_module_level=True)
    return path
