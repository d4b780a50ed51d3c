"""Tables of docs/results/novel-families.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, interval, percent, points, row

Record = dict[str, Any]
FEW_SHOT_BENIGN = ("ood_safeguard", "ood_notinject")


def recalls(record: Record) -> str:
    """A row an arm: recall at 1% false positives by number of examples, and its area."""
    arms = record["arms"]
    shots = next(iter(arms.values()))["n"]
    lines = header(
        "arm", *(f"n = {n}" for n in shots), "area", "AUROC, n = 0", f"AUROC, n = {shots[-1]}",
        f"false positives, n = {shots[-1]}",
    )  # fmt: skip
    for name, arm in arms.items():
        cells = [f"{100 * x['value']:.1f}%" for x in arm["recall"]]
        cells += [
            percent(arm["area"][0]), f"{arm['auroc'][0]['value']:.3f}",
            f"{arm['auroc'][-1]['value']:.3f}", percent(arm["fpr"][-1]),
        ]  # fmt: skip
        lines.append(row(name, *cells))
    return "\n".join(lines)


def differences(record: Record) -> str:
    """A row an arm: what it has more than the control."""
    shots = next(iter(record["less_control"].values()))["n"]
    lines = header(
        "arm, less label-only", "area", *(f"recall, n = {n}" for n in shots), "AUROC, n = 0",
        f"false positives, n = {shots[-1]}",
    )  # fmt: skip
    for name, gain in record["less_control"].items():
        cells = [points(x) for x in (gain["area"][0], *gain["recall"])]
        cells += [interval(gain["auroc"][0], "+.3f"), points(gain["fpr"][-1])]
        lines.append(row(name, *cells))
    return "\n".join(lines)


def by_family(record: Record) -> str:
    """A row a family: how many attacks, recall of each arm without and with most examples."""
    arms = record["arms"]
    shown = header(
        "family", "attacks", *(f"{name}: n = 0, 16" for name in arms), "novelty AUROC: own",
        "1 - largest p",
    )  # fmt: skip
    for family, task in record["tasks"].items():
        cells = [_first_and_last(record["points"][name].get(family)) for name in arms]
        strange = arms["mdlm"]["novelty"].get(family, {})
        cells += [f"{strange[kind]:.3f}" if kind in strange else "" for kind in ("own", "msp")]
        shown.append(row(family, task["attacks"], *cells))
    return "\n".join(shown)


def conditions(record: Record) -> str:
    commits = " and ".join(c[:10] for c in record["commits"])
    seconds = list(record["arms"]["mdlm"]["train_s"].values())
    return (
        f"Means over families; 95% intervals: {record['conditions']}. Area: mean height of recall "
        f"over log2(1 + n). An MDLM trained for {min(seconds):.0f} to {max(seconds):.0f} processor "
        f"seconds. `{record['script']}` at commit {commits}, {record['machine']}; stored in "
        "`benchmarks/results/novel_families.json`, every point of it."
    )


def few_shot(record: Record) -> str:
    """A row a number of examples: found of new and known attacks, and benign texts flagged."""
    lines = header(
        "examples", "new attacks found", "known attacks found", "safe-guard's benign, flagged",
        "NotInject, flagged",
    )  # fmt: skip
    for one in record["mean"]:
        cells = [percent(one[name]) for name in ("recall", "known", *FEW_SHOT_BENIGN)]
        lines.append(row(one["n"], *cells))
    return "\n".join(lines)


def few_shot_by_family(record: Record) -> str:
    """A row a family, a column a number of examples: the share of its other attacks found."""
    shots = [one["n"] for one in record["mean"]]
    lines = header("family", "attacks", *(f"n = {n}" for n in shots))
    for family, attacks in record["counts"]["families"].items():
        drawn = [p for p in record["points"] if p["family"] == family]
        found = [[p["recall"] for p in drawn if p["n"] == n] for n in shots]
        cells = [f"{100 * sum(x) / len(x):.0f}%" for x in found]
        lines.append(row(family, attacks, *cells))
    return "\n".join(lines)


def few_shot_conditions(record: Record) -> str:
    counts = record["counts"]
    benign = " and ".join(f"{counts[name]:,}" for name in FEW_SHOT_BENIGN)
    return (
        f"Means over families and {record['seeds']} drawings of examples; 95% intervals, families "
        f"and drawings drawn again. {counts['known']} known attacks, which the model remembers "
        f"from its validation set; {benign} benign texts. A row is fitted in "
        f"{1000 * record['fit_s']:.0f} ms (median), reading the examples aside. "
        f"`{record['script']}` at commit {record['commit'][:10]}, {record['machine']}, model "
        f"{record['model'][:10]}; stored in `benchmarks/results/few_shot.json`, every point of it."
    )


def _first_and_last(points: list[Record] | None, last: int = 16) -> str:
    if points is None:
        return "not run"
    of_n = {n: [p["recall"] for p in points if p["n"] == n] for n in (0, last)}
    return ", ".join(f"{100 * sum(x) / len(x):.0f}%" for x in of_n.values())


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "novel_families": ("novel_families.json", recalls),
    "novel_families_differences": ("novel_families.json", differences),
    "novel_families_by_family": ("novel_families.json", by_family),
    "novel_families_conditions": ("novel_families.json", conditions),
    "novel_families_states": ("novel_families_states.json", recalls),
    "few_shot": ("few_shot.json", few_shot),
    "few_shot_by_family": ("few_shot.json", few_shot_by_family),
    "few_shot_conditions": ("few_shot.json", few_shot_conditions),
}
