"""The numbers in the READMEs are the stored ones."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_readmes_tables_are_made_of_the_stored_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as for a script
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    pages = [page.read_text("utf-8") for page in tables["PAGES"]]
    for name in tables["TABLES"]:
        assert any(f"<!-- table: {name} -->" in page for page in pages)
    assert [tables["filled"](page) for page in pages] == pages
