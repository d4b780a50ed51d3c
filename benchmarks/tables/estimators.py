"""Tables of docs/results/estimators.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, percent, points, row

Record = dict[str, Any]
RULES = {
    "experiment": "one Bernoulli mask of its own for each class, the mean of repeats",
    "one_pass": "one pass, the label slot",
    "naive_bayes": "no network: naive Bayes, which half pairs give before training",
    "wide": "no network: the wide term of the one pass",
}
GAPS = {
    "sharing": ("half pairs, shared masks, 8 evaluations", "one mask of its own for each class"),
    "network": ("half pairs, shared masks, 8 evaluations", "naive Bayes"),
    "network_one_pass": ("one pass", "the wide term"),
    "second_look": ("half pairs, shared masks, 8 evaluations", "one pass"),
}
ORDER = (
    "bernoulli", "fixed_k", "systematic_k", "complementary", "half_pairs", "partition",
)  # fmt: skip


def estimators(record: Record) -> str:
    """A row a rule; the experiment's with its repeats."""
    lines = header("rule", "accuracy", "texts/s")
    for name, one in record["rows"].items():
        title = RULES.get(name) or f"half pairs, shared masks, {one['evaluations']} evaluations"
        if "repeats" in one:
            title += f" ({', '.join(f'{r:.1%}' for r in one['repeats'])})"
        speed = f"{one['texts_per_s']:,.1f}" if "texts_per_s" in one else ""
        lines.append(row(title, percent(one["accuracy"]), speed))
    return "\n".join(lines)


def estimators_gaps(record: Record) -> str:
    lines = header("first", "second", "accuracy of the first, less the second's")
    for name, (first, second) in GAPS.items():
        lines.append(row(first, second, points(record["gaps"][name])))
    return "\n".join(lines)


def estimators_curve(record: Record) -> str:
    """A row an estimator and number of evaluations, shared masks beside separate ones."""
    points = {(p["estimator"], p["evaluations"], p["shared"]): p for p in record["curve"]["points"]}
    lines = header(
        "estimator", "evaluations", "shared: accuracy", "correlation", "texts/s",
        "separate: accuracy", "correlation",
    )  # fmt: skip
    for estimator, evaluations in sorted(
        {(e, n) for e, n, _ in points}, key=lambda key: (ORDER.index(key[0]), key[1])
    ):
        shared, own = (points[estimator, evaluations, s] for s in (True, False))
        lines.append(
            f"| {estimator} | {evaluations} | {percent(shared['accuracy'])} "
            f"| {shared['correlation']:.3f} | {shared['texts_per_s']:,.1f} "
            f"| {percent(own['accuracy'])} | {own['correlation']:.3f} |"
        )
    limit = record["curve"]["limit"]
    lines.append(
        f"| half_pairs, the others' limit | {limit['evaluations']} "
        f"| {percent(limit['accuracy'])} | | | | |"
    )
    return "\n".join(lines)


def estimators_stopping(record: Record) -> str:
    stop = record["early_stopping"]
    lines = header(
        "alpha", "evaluations at most", "evaluations, mean", "stopped early",
        "of all texts, stopped on another class than at most", "accuracy", "accuracy at most",
    )  # fmt: skip
    cells = [
        stop["alpha"],
        stop["cap"],
        f"{stop['evaluations']:.1f}",
        f"{stop['stopped_early']:.1%}",
        f"{stop['flipped']:.1%}",
        percent(stop["accuracy"]),
        percent(stop["capped_accuracy"]),
    ]
    return "\n".join([*lines, row(*cells)])


def estimators_conditions(record: Record) -> str:
    data = record["data"]
    return (
        f"{data['texts']:,} test texts drawn at random (seed {data['seed']}), "
        f"{data['tokens']:,} tokens; the curves and early stopping on the first "
        f"{record['curve']['texts']:,} of them. Model `{record['model']['name']}`, "
        f"SHA-256 {record['model']['hash'][:10]}. 95% intervals: {record['conditions']}. "
        f"`{record['script']}` at commit {record['commit'][:10]}, {record['machine']}, torch "
        f"{record['versions']['torch']}; stored in `benchmarks/results/estimators_imdb.json`."
    )


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "estimators": ("estimators_imdb.json", estimators),
    "estimators_gaps": ("estimators_imdb.json", estimators_gaps),
    "estimators_curve": ("estimators_imdb.json", estimators_curve),
    "estimators_stopping": ("estimators_imdb.json", estimators_stopping),
    "estimators_conditions": ("estimators_imdb.json", estimators_conditions),
}
