"""Tables of docs/results/network.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.injection.sets import DEVELOPMENT, REPORTING
from benchmarks.tables.markdown import header, percent, points, row

Record = dict[str, Any]


def development(record: Record) -> str:
    return _parts(record, [name for name in record["sizes"] if name in DEVELOPMENT], "sets")


def reporting(record: Record) -> str:
    return _parts(record, [name for name in record["sizes"] if name in REPORTING], "sets")


def frozen(record: Record) -> str:
    """Of the frozen lists, both at the threshold and at a probability of a half."""
    names = [name for name in record["sizes"] if name.startswith("frozen_")]
    lines = header("part", "threshold", *(_heading(record, name) for name in names))
    for part, one in record["parts"].items():
        for key, where in (("sets", "1% of benign validation"), ("at_half", "probability 0.5")):
            lines.append(row(part, where, *(_cell(one[key][name]) for name in names)))
    return "\n".join(lines)


def gain(record: Record) -> str:
    lines = header("sources", "recall at 1%, both less n-grams alone")
    for name, value in record["gain_of_network"].items():
        lines.append(row(name, points(value)))
    return "\n".join(lines)


def conditions(record: Record) -> str:
    sizes = ", ".join(
        f"{name} {count['injection']} and {count['benign']}"
        for name, count in record["sizes"].items()
    )
    return (
        f"Attacks and benign texts: {sizes}. {record['conditions']}. Model "
        f"`{record['model'][:12]}`, `{record['script']}` at commit {record['commit'][:10]}, "
        f"{record['machine']}; stored in `benchmarks/results/network.json`."
    )


def _parts(record: Record, names: list[str], key: str) -> str:
    lines = header("part", *(_heading(record, name) for name in names))
    for part, one in record["parts"].items():
        lines.append(row(part, *(_cell(one[key][name]) for name in names)))
    return "\n".join(lines)


def _heading(record: Record, name: str) -> str:
    count = record["sizes"][name]
    has = [what for what, label in (("found", "injection"), ("flagged", "benign")) if count[label]]
    return f"{name}: {', '.join(has)}" + (", AUROC" if len(has) == 2 else "")


def _cell(one: Record) -> str:
    shown = [percent(one[k]) for k in ("recall", "fpr") if one[k]["value"] is not None]
    return ", ".join(shown + ([f"{one['auroc']['value']:.3f}"] if "auroc" in one else []))


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "network_development": ("network.json", development),
    "network_reporting": ("network.json", reporting),
    "network_frozen": ("network.json", frozen),
    "network_gain": ("network.json", gain),
    "network_conditions": ("network.json", conditions),
}
