"""Tables of docs/results/novelty.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, interval, row

Record = dict[str, Any]
SOURCES = {
    "bipia": "BIPIA", "safeguard": "safe-guard", "medical": "medical abstracts",
    "sql": "SQL injection", "pooled": "all of them",
}  # fmt: skip
#: What each of these models gives where it is asked for novelty.
OWN = {"mdlm": "unigram", "gpt2": "likelihood"}


def novelty(record: Record) -> str:
    """A row a network and score, a column a source: AUROC within like lengths."""
    columns = list(SOURCES)
    lines = header("network", "score", *SOURCES.values())
    for family, model in record["models"].items():
        for score, rows in model["scores"].items():
            cells = [interval(rows[c]["within_length"]) for c in columns]
            lines.append(row(family, _title(family, score), *cells))
    return "\n".join(lines)


def novelty_used(record: Record) -> str:
    """A row a network and score, all unseen sources together: what a policy would see."""
    lines = header(
        "network", "score", "AUROC", "like lengths", "less that of msp", "sure texts",
        "less that of msp", "p <= 0.05: unseen", "known", "p <= 0.01: unseen", "known",
    )  # fmt: skip
    for family, model in record["models"].items():
        for score, rows in model["scores"].items():
            pooled, alarms = rows["pooled"], rows["false_alarms"]
            cells = [interval(pooled["auroc"])]
            for x in ("within_length", "sure"):
                gain = "" if score == "msp" else interval(pooled["over_msp"][x], "+.3f")
                cells += [interval(pooled[x]), gain]
            for bound in ("0.05", "0.01"):
                cells += [f"{pooled['found_at'][bound]:.1%}", f"{alarms[bound]:.1%}"]
            lines.append(row(family, _title(family, score), *cells))
    return "\n".join(lines)


def novelty_conditions(record: Record) -> str:
    texts = record["texts"]
    unseen = ", ".join(f"{number} of {name}" for name, number in texts.items())
    runs = record["models"].items()
    return (
        f"Known texts: the test split of the sources trained on. Unseen: {unseen}, "
        f"{record['cap']} a source at most, chosen by hash. Sure: the largest probability is "
        f"{record['sure']} or more. 95% intervals: {record['conditions']}. `{record['script']}`, "
        + "; ".join(
            f"{family} (SHA-256 {run['hash'][:10]}; {run['known']} known texts, p-values among "
            f"{run['calibration']} calibration texts) at commit {run['commit'][:10]}, "
            f"{run['machine']}, torch {run['versions']['torch']}"
            for family, run in runs
        )
        + "; stored in `benchmarks/results/novelty.json`."
    )


def _title(family: str, score: str) -> str:
    return f"{score} (the model's own)" if OWN[family] == score else score


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "novelty": ("novelty.json", novelty),
    "novelty_used": ("novelty.json", novelty_used),
    "novelty_conditions": ("novelty.json", novelty_conditions),
}
