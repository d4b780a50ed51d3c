"""Tables of docs/results/explanations.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, interval, points, row

Record = dict[str, Any]

KINDS = {"injection": "attacks", "benign": "benign texts flagged"}


def drops(record: Record) -> str:
    """A row a model, kind and number deleted: how far the log-odds fall."""
    return _table(record, "drop", "log-odds fall by", _number)


def flips(record: Record) -> str:
    return _table(record, "flips", "no longer flagged", _percent)


def conditions(record: Record) -> str:
    models = record["models"]
    first = next(iter(models.values()))
    runs = "; ".join(
        f"`{name}` (scorer explained: {run['scorer']}; SHA-256 {run['hash'][:10]}) at commit "
        f"{run['commit'][:10]}, {run['machine']}"
        for name, run in models.items()
    )
    return (
        f"Explained label: {first['label']}. Random: the mean of {first['draws']} draws. "
        f"Conditions: {first['conditions']}. 95% intervals of paired differences. "
        f"`{record['script']}`: {runs}; stored in `benchmarks/results/explanations.json`."
    )


def _table(record: Record, of: str, title: str, show: Callable[[Record], str]) -> str:
    lines = header(
        "model", "texts", "pieces deleted", "n", f"{title}: top", "random", "lowest",
        "top, less random", "top, less lowest", "of the characters: top", "random",
    )  # fmt: skip
    for name, model in record["models"].items():
        for kind, found in model["kinds"].items():
            for one in found["rows"]:
                much = one["delete"]
                cells = [
                    f"`{name}`", KINDS[kind], f"{much}" if isinstance(much, int) else f"{much:.0%}",
                    f"{one['texts']}",
                    *(show({"value": one[of][x]["value"]}) for x in ("top", "random", "lowest")),
                    *(show(one["gain"][of][x]) for x in ("random", "lowest")),
                    *(f"{one['characters'][x]:.0%}" for x in ("top", "random")),
                ]  # fmt: skip
                lines.append(row(*cells))
    return "\n".join(lines)


def _number(value: Record) -> str:
    if "low" not in value:
        return f"{value['value']:+.2f}"
    return interval(value, "+.2f")


def _percent(value: Record) -> str:
    if "low" not in value:
        return f"{value['value']:.0%}"
    return points(value, 0)


SOURCE = "explanations.json"
TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "explanations": (SOURCE, drops),
    "explanations_flips": (SOURCE, flips),
    "explanations_conditions": (SOURCE, conditions),
}
