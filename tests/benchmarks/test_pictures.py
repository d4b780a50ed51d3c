"""benchmarks/pictures.py on the stored results."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def pictures() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "pictures.py"))


@pytest.mark.parametrize(
    "name", ["estimators", "generalisation", "novel-families", "evasion", "explanations"]
)
def test_a_picture_of_the_results_pages_is_of_the_stored_results(
    name: str, pictures: dict[str, Any], tmp_path: Path
) -> None:
    shown = (pictures["PICTURES"] / f"{name}.svg").read_text("utf-8")
    if f"Matplotlib v{matplotlib.__version__}," not in shown:
        pytest.skip(f"drawn by another Matplotlib than this, {matplotlib.__version__}")
    results, draw = pictures["DRAWN"][name]
    records = [json.loads((pictures["RESULTS"] / each).read_text("utf-8")) for each in results]
    draw(*records, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text("utf-8") == shown


def test_every_picture_drawn_is_on_its_page(pictures: dict[str, Any]) -> None:
    for name in pictures["DRAWN"]:
        page = (pictures["PICTURES"] / f"{name}.md").read_text("utf-8")
        assert f"]({name}.svg)" in page
