"""Tables of docs/results/policies.md, from what benchmarks/policies/bundled_policies.py stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.tables.markdown import header, percent, points, row

Record = dict[str, Any]

SETS = {
    "test": "test, all sources",
    "ood_deepset_test": "deepset",
    "ood_safeguard": "safe-guard",
    "ood_notinject": "NotInject",
}
#: Of which a command's output is shown whole.
SHOWN_SET = "ood_safeguard"


def check(record: Record) -> str:
    return _session(record["check"])


def test_output(record: Record) -> str:
    shown = ("default", SHOWN_SET)
    return _session(run for run in record["test"] if (run["policy"], run["set"]) == shown)


def test_recall(record: Record) -> str:
    return _measured(record, "recall", [name for name in SETS if name != "ood_notinject"])


def test_fpr(record: Record) -> str:
    return _measured(record, "fpr", list(SETS))


def _measured(record: Record, figure: str, sets: Sequence[str]) -> str:
    """A row a policy's category, a column a set; none where a set has no label it looks for."""
    lines = header("policy", "category", *(SETS[name] for name in sets))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for run in record["test"]:
        for one in run["categories"]:
            cells = rows.setdefault((run["policy"], one["category"]), {})
            cells[run["set"]] = percent(one[figure])
    for (policy, category), cells in rows.items():
        shown = [cells.get(name, "") for name in sets]
        if any(shown):
            lines.append(row(policy, category, *shown))
    return "\n".join(lines)


def diff_output(record: Record) -> str:
    return _session(run for run in record["diff"] if run["set"] == SHOWN_SET)


def diff(record: Record) -> str:
    """A row a set: what adding the backup turns round, and how often rightly."""
    lines = header(
        "texts", "rows", "flip", "allow -> block", "block -> allow", "for the better",
        "for the worse",
    )  # fmt: skip
    for run in record["diff"]:
        found = run["categories"]["injection"]
        changes = [found["actions"].get(c, 0) for c in ("allow -> block", "block -> allow")]
        counts = [run["rows"], run["flips"], *changes, found["better"], found["worse"]]
        lines.append(row(SETS[run["set"]], *(f"{n:,}" for n in counts)))
    return "\n".join(lines)


def frontier_output(record: Record) -> str:
    return _session(run for run in record["frontier"] if run["set"] == SHOWN_SET)


def frontier(record: Record) -> str:
    """A row a set: what the backup is worth there."""
    lines = header(
        "texts", "benign / injection", "specialist alone: recall", "backup alone",
        "cascade, on texts its bounds were not chosen on", "false positives there",
        "recall gained over the specialist", "over the backup", "does the backup help?",
    )  # fmt: skip
    for run in record["frontier"]:
        alone = {point["name"]: f"{point['recall']:.1%}" for point in run["singles"]}
        cells = [
            f"{run['n'] - run['positives']:,} / {run['positives']:,}",
            alone["specialist alone"],
            alone["backup alone"],
            percent(run["held_out"]["recall"]),
            percent(run["held_out"]["fpr"]),
            points(run["gains"]["specialist"]),
            points(run["gains"]["backup"]),
            "yes" if run["helps"] else "not shown",
        ]
        lines.append(row(SETS[run["set"]], *cells))
    return "\n".join(lines)


def conditions(record: Record) -> str:
    runs = [run for kind in ("check", "test", "diff", "frontier") for run in record[kind]]
    minutes = sum(run["seconds"] for run in runs) / 60
    loads = [f"{run['load']:.1f}" for run in record["frontier"]]
    models = ", ".join(f"{name} {found[:10]}" for name, found in record["models"].items())
    return (
        f"95% bootstrap intervals over groups of near-duplicates, seed {record['seed']}; "
        f"`{record['script']}` at commit {record['commit'][:10]}, {record['machine']}, torch "
        f"{record['versions']['torch']}, {minutes:.0f} minutes in all, beside other work (load "
        f"average after a sweep: {' and '.join(loads)}; its milliseconds are above those of an "
        "idle machine); stored in `benchmarks/results/policies.json`. Models (SHA-256): "
        f"{models}."
    )


def _session(runs: Iterable[Record]) -> str:
    """Return commands and what they printed, as a terminal shows it."""
    lines = [f"$ {run['command']}\n{run['output']}" for run in runs]
    return "```text\n" + "\n".join(lines) + "\n```"


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    f"policies_{render.__name__}": ("policies.json", render)
    for render in (
        check, test_output, test_recall, test_fpr, diff_output, diff, frontier_output, frontier,
        conditions,
    )
}  # fmt: skip
