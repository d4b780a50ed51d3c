"""Tables of docs/results/evasion.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, percent, row

Record = dict[str, Any]


def evasion(record: Record) -> str:
    """A row a transform: undone to the letter, and recall with and without what else is read."""
    lines = header(
        "hidden by", "undone to the letter", "recall, raw text alone", "recall, all readings",
        "lost against plain text", "benign texts so hidden, flagged",
    )  # fmt: skip
    for one in record["transforms"]:
        figures = [one["raw"]["recall"]]
        figures += [one["also_read"][name] for name in ("recall", "recall_lost", "benign_flagged")]
        lines.append(row(one["name"], f"{100 * one['undone']:.1f}%", *map(percent, figures)))
    return "\n".join(lines)


def evasion_conditions(record: Record) -> str:
    line = (
        f"{record['attacks']} attacks, of which {percent(record['recall'])} are found in plain "
        f"text; {record['benign']:,} benign texts. `{record['model']}`, {record['conditions']}. "
    )
    if scripts := record.get("scripts"):
        line += (
            f"Of {scripts['texts']:,} benign sentences in many scripts "
            f"{scripts['with_another_reading']:,} have another reading; reading it too raises "
            f"false positives by {percent(scripts['rise'])}, from "
            f"{percent(scripts['flagged_raw'])}. "
        )
    return line + _source(record, "evasion")


def long_texts(record: Record) -> str:
    """A row a length: recall by place, and of the attacks that are found alone."""
    places = ("start", "middle", "end")
    lines = header(
        "tokens of the document", "attacks", "found alone",
        *(f"{place}: found, of those found alone" for place in places),
        "flagged without an attack",
    )  # fmt: skip
    for one in record["rows"]:
        cells = [
            percent(one[place]["recall"])
            + (f", {percent(one[place]['of_found_alone'])}" if one[place]["of_found_alone"] else "")
            for place in places
        ]
        first = [f"{one['tokens']:,}", one["attacks"], percent(one["alone"])]
        lines.append(row(*first, *cells, percent(one["without"])))
    return "\n".join(lines)


def long_texts_conditions(record: Record) -> str:
    name = "long_texts" if "lines" in record["also_read"] else "long_texts_no_lines"
    return (
        f"`{record['model']}`, windows pooled by {record['window_pooling']}; attacks of at most "
        f"{record['most_tokens']} tokens, {record['conditions']}. {_source(record, name)}"
    )


def _source(record: Record, name: str) -> str:
    return (
        f"`{record['script']}` at commit {record['commit'][:10]}, {record['machine']}; stored in "
        f"`benchmarks/results/{name}.json`."
    )


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "evasion": ("evasion.json", evasion),
    "evasion_conditions": ("evasion.json", evasion_conditions),
    "long_texts": ("long_texts.json", long_texts),
    "long_texts_conditions": ("long_texts.json", long_texts_conditions),
    "long_texts_no_lines": ("long_texts_no_lines.json", long_texts),
    "long_texts_no_lines_conditions": ("long_texts_no_lines.json", long_texts_conditions),
}
