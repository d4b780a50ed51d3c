"""Tables of docs/results/domains.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, interval, row

Record = dict[str, Any]

TITLES = {
    "medical": "medical abstracts", "sqli": "SQL injection",
    "sqli-random": "SQL injection, random split", "sms": "SMS spam",
}  # fmt: skip
METRICS = {
    "accuracy": "accuracy", "macro_f1": "macro-F1", "roc_auc": "AUROC",
    "recall_at_fpr_1%": "recall at 1% FPR",
}  # fmt: skip
SCORERS = ("tfidf", "nbsvm", "gpt2", "mdlm")


def scores(record: Record) -> str:
    """A row a domain and scorer; a network that was not trained says so."""
    lines = header("domain", "scorer", *METRICS.values(), "training", "texts/s")
    for name, domain in record["domains"].items():
        for scorer in SCORERS:
            if (own := domain["scorers"].get(scorer)) is None:
                lines.append(f"| {TITLES[name]} | {scorer} | not run |" + " |" * (len(METRICS) + 1))
                continue
            cells = [interval(own[metric]) if metric in own else "" for metric in METRICS]
            cells += [f"{own['train']['seconds']:,.0f} s", f"{own['texts_per_s']:,.0f}"]
            lines.append(row(TITLES[name], scorer, *cells))
    return "\n".join(lines)


def gains(record: Record) -> str:
    lines = header("domain", "mdlm, less", *METRICS.values())
    for name, domain in record["domains"].items():
        for other, gain in domain["gains"].items():
            cells = [interval(gain[m], "+.3f") if m in gain else "" for m in METRICS]
            lines.append(row(TITLES[name], other, *cells))
    return "\n".join(lines)


def sets(record: Record) -> str:
    lines = header(
        "domain", "trained on", "held out of training", "tested on",
        "groups of near-duplicates there", "test texts with a near-duplicate in training",
        "best accuracy possible",
    )  # fmt: skip
    for name, domain in record["domains"].items():
        about = domain["about"]
        cells = [f"{about[x]:,}" for x in ("train", "held_out", "test", "groups")]
        cells += [f"{about['near_duplicate_in_training']:.1%}", f"{about['ceiling']:.1%}"]
        lines.append(row(TITLES[name], *cells))
    return "\n".join(lines)


def conditions(record: Record) -> str:
    runs = [
        own["train"]
        for domain in record["domains"].values()
        for own in domain["scorers"].values()
        if "command" in own["train"]
    ]
    trained = ""
    if runs:
        commits = " and ".join(sorted({run["commit"][:10] for run in runs}))
        machines = " and ".join(sorted({run["machine"] for run in runs}))
        trained = f" Networks trained at commit {commits} on {machines}; seconds are the clock's."
    return (
        f"95% intervals: {record['conditions']}.{trained} Measured by `{record['script']}` at "
        f"commit {record['commit'][:10]}, {record['machine']}, where the linear models were fitted "
        "too; stored in `benchmarks/results/domains.json`, each network's command as well."
    )


SOURCE = "domains.json"
TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "domains": (SOURCE, scores),
    "domains_gains": (SOURCE, gains),
    "domains_sets": (SOURCE, sets),
    "domains_conditions": (SOURCE, conditions),
}
