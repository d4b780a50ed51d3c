"""The table of docs/policies.md about how often a certificate is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.tables.markdown import header, row

Record = dict[str, Any]


def certificates(record: Record) -> str:
    """A row a setting: how often the promise was broken, whatever the law of the scores."""
    lines = header(
        "benign texts", "max_fpr", "confidence", "may be broken in", "continuous scores",
        "scores with ties or failures", "a cascade, certified whole", "the usual way",
    )  # fmt: skip
    settings = dict.fromkeys((r["n"], r["max_fpr"], r["confidence"]) for r in record["rows"])
    for n, max_fpr, confidence in settings:
        rows = {r["law"]: r for r in record["rows"] if (r["n"], r["max_fpr"]) == (n, max_fpr)}
        whole = rows.pop("cascade", None)
        usual = [r["usual_broken"] for r in rows.values()]
        plain = rows.pop("continuous")
        cells = [
            f"{n:,}",
            f"{100 * max_fpr:g}%",
            f"{confidence:g}",
            f"{plain['promised']:.1%}",
            f"{plain['broken']:.1%}",
            _range([r["broken"] for r in rows.values()]),
            f"{whole['broken']:.1%}" if whole else "",
            _range(usual),
        ]
        lines.append(row(*cells))
    return "\n".join(lines)


def _range(shares: Sequence[float]) -> str:
    return f"{min(shares):.1%} to {max(shares):.1%}"


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "certificates": ("certificates.json", certificates),
}
