"""The numbers in the READMEs are the stored ones."""

from __future__ import annotations

from benchmarks.tables.fill import PAGES, TABLES, filled


def test_the_readmes_tables_are_made_of_the_stored_results() -> None:
    pages = [page.read_text("utf-8") for page in PAGES]
    for name in TABLES:
        assert any(f"<!-- table: {name} -->" in page for page in pages)
    assert [filled(page) for page in pages] == pages
