"""The README's numbers are the stored ones."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readmes_tables_are_made_of_the_stored_results() -> None:
    filled = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["filled"]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "<!-- table: bundled -->" in readme
    assert filled(readme) == readme
