"""Tables of docs/results/generalisation.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, percent, row

Record = dict[str, Any]


def generalisation(record: Record) -> str:
    """A row a detector, recall and AUROC of each set that has attacks, false positives of each."""
    sets = record["sets"]
    with_attacks = [name for name, count in sets.items() if count["injection"]]
    lines = header("detector", *(f"{name}: recall, AUROC" for name in with_attacks))
    for name, one in record["detectors"].items():
        cells = [
            f"{percent(one['sets'][each]['recall'])}, {one['sets'][each]['auroc']['value']:.3f}"
            for each in with_attacks
        ]
        lines.append(row(name, *cells))
    return "\n".join(lines)


def false_positives(record: Record) -> str:
    """A row a detector, a column a set: how many of its benign texts are flagged."""
    lines = header("detector", *record["sets"])
    for name, one in record["detectors"].items():
        cells = [percent(one["sets"][each]["fpr"]) for each in record["sets"]]
        lines.append(row(name, *cells))
    return "\n".join(lines)


def generalisation_conditions(record: Record) -> str:
    own = record["detectors"].values()
    machines = " and ".join(sorted({one["machine"] for one in own}))
    commits = " and ".join(sorted({one["commit"][:10] for one in own}))
    texts = ", ".join(
        f"{name} {count['injection']} and {count['benign']}"
        for name, count in record["sets"].items()
    )
    return (
        f"Attacks and benign texts: {texts}. {record['conditions']}. `{record['script']}` at "
        f"commit {commits}, {machines}; stored in `benchmarks/results/generalisation.json`."
    )


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "generalisation": ("generalisation.json", generalisation),
    "generalisation_false_positives": ("generalisation.json", false_positives),
    "generalisation_conditions": ("generalisation.json", generalisation_conditions),
}
