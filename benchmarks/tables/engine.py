"""Tables of docs/results/engine.md, from what the engine's benchmarks stored."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, row

Record = dict[str, Any]
ALLOCATION = ("seconds", "system_s", "page_faults", "peak_mib")


def pipeline(record: Record) -> str:
    """classify and the bare network, texts a second, and where the former's time went."""
    speed, times = record["texts_per_s"], record["times"]
    total = statistics.median(record["seconds"]["classify"])
    runs = zip(record["in_network"], record["seconds"]["classify"], strict=True)
    inside = [network / whole for network, whole in runs]
    shares = ", ".join(f"{name} {seconds / total:.1%}" for name, seconds in times.items())
    lines = header(
        "bare forward passes, texts/s", "classify, texts/s", "share reached",
        "lowest and highest repeat", "of classify's time inside the network", "repeats",
        "of its time by kind", "tokens computed per real one",
    )  # fmt: skip
    cells = [
        f"{speed['forward']:.0f}",
        f"{speed['classify']:.0f}",
        f"{record['ratio']:.3f}",
        _spread(record["seconds"], "forward", "classify"),
        f"{record['share_in_network']:.3f}",
        f"{min(inside):.3f} to {max(inside):.3f}",
        shares,
        f"{record['computed_per_real_token']:.3f}",
    ]
    return "\n".join([*lines, row(*cells)])


def pipeline_conditions(record: Record) -> str:
    texts = record["texts"]
    return (
        f"Model `{record['model']['name']}`; {texts['n']:,} texts, lognormal lengths of "
        f"{texts['shortest']} to {texts['longest']} tokens (median {texts['median']}), and "
        f"{texts['other_readings']:,} other readings of them: {record['windows']:,} windows in "
        f"{record['batches']} batches; "
        f"{len(record['seconds']['classify'])} repeats in turn, medians. `{record['script']}` at "
        f"commit {record['commit'][:10]}, {record['machine']}, torch "
        f"{record['versions']['torch']}; stored in `benchmarks/results/pipeline.json`."
    )


def allocation(record: Record) -> str:
    """A row a way of malloc, and how many times as fast the second is."""
    lines = header(
        "freed memory", "processor seconds", "the system's of them", "page faults", "peak, MiB"
    )
    for way, own in record["runs"].items():
        cells = [statistics.median(r[k] for r in own) for k in ALLOCATION]
        lines.append(
            f"| {way} | {cells[0]:.2f} | {cells[1]:.2f} | {cells[2]:,.0f} | {cells[3]:,.0f} |"
        )
    return "\n".join(lines)


def allocation_conditions(record: Record) -> str:
    before, after = record["runs"].values()
    gains = [b["seconds"] / a["seconds"] for b, a in zip(before, after, strict=True)]
    return (
        f"{statistics.median(gains):.2f} times as fast kept ({min(gains):.2f} to {max(gains):.2f} "
        f"in {len(gains)} repeats in turn, medians in the table): {before[0]['texts']:,} texts, "
        f"`{record['model']}`. `{record['script']}` at commit {record['commit'][:10]}, "
        f"{record['machine']}, torch {record['versions']['torch']}, {record['versions']['libc']}; "
        "stored in `benchmarks/results/allocation.json`."
    )


def scale(record: Record) -> str:
    """A row a kind of work, a column a way to do it."""
    one, two, apart = "1 worker", "2 workers", "2 runs of half each"
    beside, on_ray = "2 workers beside Ray", "2 workers on Ray"
    ways = (one, two, apart, beside, on_ray)
    ratios = ((one, two), (one, apart), (apart, two), (beside, on_ray))
    lines = header(
        "work", *(f"{way}, lines/s" for way in ways), "2 workers : 1", "2 runs : 1 worker",
        "2 workers : 2 runs", "on Ray : beside it",
    )  # fmt: skip
    for kind, own in record.items():
        cells = [f"{own['rows_per_s'][way]:,.0f}" for way in ways]
        cells += [_ratio(own["seconds"], *pair) for pair in ratios]
        lines.append(row(SCALE_WORK[kind], *cells))
    return "\n".join(lines)


def scale_conditions(record: Record) -> str:
    lines = [
        f"{SCALE_WORK[kind]}: {one['rows']:,} lines, {len(one['seconds']['1 worker'])} repeats in "
        f"turn, medians, at commit {one['commit'][:10]}"
        for kind, one in record.items()
    ]
    one = next(iter(record.values()))
    return (
        f"{'; '.join(lines)}. `{one['script']}`, {one['machine'].split(',')[0]}, torch "
        f"{one['versions']['torch']}, Ray {one['versions']['ray']}; stored in "
        "`benchmarks/results/scale.json`."
    )


def _ratio(seconds: Record, slow: str, fast: str) -> str:
    """Return the median ratio of the repeats, and its spread."""
    ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    return f"{statistics.median(ratios):.2f} ({_spread(seconds, slow, fast)})"


def _spread(seconds: Record, slow: str, fast: str) -> str:
    """Return the least and the largest ratio among the repeats."""
    ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def io_null(record: Record) -> str:
    """A row an input, a column a contender."""
    names = ["guardkit, 1 workers", "guardkit, 2 workers", "datasets", "series"]
    lines = header(
        "lines", "bytes a line, in and out", "guardkit, 1 worker", "guardkit, 2 workers",
        "`datasets`, 2 processes", "the floor of one core", "guardkit : datasets",
        "2 workers : 1", "two floors : 1",
    )  # fmt: skip
    for kind in ("long", "short"):
        one = record["results"][kind]
        speed = [f"{one['rows'][name]['lines_per_s']:,.0f}" for name in names]
        times = [f"{one['times_datasets']:.1f}", f"{one['times_one_worker']:.2f}"]
        size = f"{one['line_bytes']:.0f}, {one['output_line_bytes']:.0f}"
        cells = [*speed, *times, f"{one['two_series']:.2f}"]
        lines.append(row(f"{one['lines']:,} {kind}", size, *cells))
    return "\n".join(lines)


def io_null_memory(record: Record) -> str:
    """Peak memory, a row a number of workers."""
    rows = record["results"]["memory"]["rows"]
    counts = list(next(iter(rows.values())))
    lines = header("workers", *(f"{int(n):,} lines, MiB" for n in counts), "growth")
    for name, peaks in rows.items():
        cells = [f"{peaks[n] / 2**20:.0f}" for n in counts]
        growth = record["results"]["memory"]["growth"][name]
        lines.append(row(name.split()[0], *cells, f"{growth:.1%}"))
    return "\n".join(lines)


def io_null_conditions(record: Record) -> str:
    one = record["results"]["long"]
    versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    return (
        f"Lines of lognormal length; {one['repeats']} repeats in turn, medians, of ratios too; "
        f"lines a second of the whole command. `{record['script']}` at commit "
        f"{one['commit'][:10]}, {one['machine']}, {versions}; stored in "
        "`benchmarks/results/io_null.json`."
    )


SCALE_WORK = {"model": "a model, one thread a worker", "patterns": "a policy without a model"}
TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "pipeline": ("pipeline.json", pipeline),
    "pipeline_conditions": ("pipeline.json", pipeline_conditions),
    "allocation": ("allocation.json", allocation),
    "allocation_conditions": ("allocation.json", allocation_conditions),
    "scale": ("scale.json", scale),
    "scale_conditions": ("scale.json", scale_conditions),
    "io_null": ("io_null.json", io_null),
    "io_null_memory": ("io_null.json", io_null_memory),
    "io_null_conditions": ("io_null.json", io_null_conditions),
}
