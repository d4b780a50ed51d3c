"""benchmarks/tables/pictures.py on the stored results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

matplotlib = pytest.importorskip("matplotlib")
from benchmarks.tables.pictures import DRAWN, PICTURES, RESULTS  # noqa: E402


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_of_the_results_pages_is_of_the_stored_results(name: str, tmp_path: Path) -> None:
    results, draw = DRAWN[name]
    records = [json.loads((RESULTS / each).read_text("utf-8")) for each in results]
    for file in ("one.svg", "two.svg"):
        draw(*records, tmp_path / file)
    one, two = ((tmp_path / file).read_text("utf-8") for file in ("one.svg", "two.svg"))
    assert one == two
    shown = (PICTURES / f"{name}.svg").read_text("utf-8")
    assert written(one) == written(shown)
    # another version may draw the same lines in other words
    if f"Matplotlib v{matplotlib.__version__}," in shown:
        assert one == shown


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_on_its_page(name: str) -> None:
    assert f"]({name}.svg)" in (PICTURES / f"{name}.md").read_text("utf-8")


def written(picture: str) -> list[str]:
    """Return what a picture says in letters and numbers."""
    return sorted(re.findall(r"<text[^>]*>([^<]+)</text>", picture))
