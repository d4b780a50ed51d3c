"""Write the tables of the results pages from the stored results: no number is typed by hand.

    python -m benchmarks.tables.fill

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from benchmarks.lib.paths import ROOT
from benchmarks.tables import (
    bundled_models,
    certificates,
    domains,
    engine,
    estimators,
    evasion,
    explanations,
    generalisation,
    imdb,
    network,
    novel_families,
    novelty,
    policies,
    specialists,
)

RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "examples" / "guardkit-nbsvm" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
#: A table's name: the results it is made of, and what makes it.
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    **bundled_models.TABLES,
    **certificates.TABLES,
    **domains.TABLES,
    **engine.TABLES,
    **estimators.TABLES,
    **evasion.TABLES,
    **explanations.TABLES,
    **generalisation.TABLES,
    **imdb.TABLES,
    **network.TABLES,
    **novel_families.TABLES,
    **novelty.TABLES,
    **policies.TABLES,
    **specialists.TABLES,
}


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8")), "utf-8")


def filled(text: str) -> str:
    """Return ``text`` with every table made anew from its results."""
    return BLOCK.sub(lambda m: f"{m[1]}{table(m[2])}\n{m[3]}", text)


def table(name: str) -> str:
    source, render = TABLES[name]
    path = RESULTS / source
    if not path.is_file():
        return f"Not measured yet: `benchmarks/results/{source}` is not there."
    return render(json.loads(path.read_text("utf-8")))


if __name__ == "__main__":
    main()
