"""Tables of docs/results/specialists.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.tables.markdown import header, row

Record = dict[str, Any]
COMPARED = ("times as fast", "repeats", "same scores, to the bit")


def adapted(record: Record) -> str:
    lines = header("texts in a batch", "one after another, ms", "together, ms", *COMPARED)
    for one in record["rows"]:
        found = one["adapted"]
        ms = [_ms(found["seconds"][name]) for name in ("one after another", "one pass")]
        lines.append(row(one["texts"], *ms, *_compared(found, "one pass")))
    return "\n".join(lines)


def independent(record: Record) -> str:
    lines = header("texts in a batch", "way", "one after another, ms", "this way, ms", *COMPARED)
    for one in record["rows"]:
        found = one["independent"]
        usual = _ms(found["seconds"]["one after another"])
        for way in found["times"]:
            own = _ms(found["seconds"][way])
            lines.append(row(one["texts"], way, usual, own, *_compared(found, way)))
    return "\n".join(lines)


def conditions(record: Record) -> str:
    most = record["rows"][0]
    seconds = most["independent"]["seconds"]
    pairs = zip(seconds["tokenising"], seconds["one after another"], strict=True)
    share = statistics.median(part / whole for part, whole in pairs)
    each = ", ".join(
        f"`{name}` {_ms(own)}" for name, own in seconds.items() if name.startswith("builtin:")
    )
    return (
        f"A batch of {most['texts']}, one model alone, ms: {each}; tokenising it for all three is "
        f"{share:.1%} of their time, the most that a tokenizer in common could save. Texts of "
        f"sampled words, lognormal lengths of 20 to 512 tokens, seed {record['seed']}; medians of "
        f"{record['repeats']} repeats in turn, of ratios too. `{record['script']}` at commit "
        f"{record['commit'][:10]}, {record['machine']}, torch {record['versions']['torch']}; load "
        f"average {record['load']:.1f} from other work when it began; stored in "
        "`benchmarks/results/specialists_together.json`."
    )


def _compared(found: Record, way: str) -> list[str]:
    """Return the cells of the columns ``COMPARED``."""
    times: Sequence[float] = found["times"][way]
    equal = "yes" if found["equal"][way] else "no"
    return [f"{statistics.median(times):.2f}", f"{min(times):.2f} to {max(times):.2f}", equal]


def _ms(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.median(seconds):,.0f}"


SOURCE = "specialists_together.json"
TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "specialists_adapted": (SOURCE, adapted),
    "specialists_independent": (SOURCE, independent),
    "specialists_conditions": (SOURCE, conditions),
}
