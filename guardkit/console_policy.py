"""What ``guardkit policy`` prints of policies at work: measured, compared, swept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from guardkit.compare import Comparison, Flip, would_be
from guardkit.console import _left_out, _out, _visible
from guardkit.types import Decision

TEXT_WIDTH = 80


def show_measured(what: str, report: Mapping[str, Any]) -> None:
    """Print what ``evaluate_policy`` returned in short: a line for each category."""
    _out().print(Text(f"{what}: {report['n']:,} texts{_left_out(report)}"))
    table = Table("category", "positive", "recall", "95% interval", "fpr", "95% interval")
    for name, category in report["categories"].items():
        recall, fpr = (_with_interval(category["metrics"][x]) for x in ("recall", "fpr"))
        table.add_row(Text(name), f"{category['positives']:,}", *recall, *fpr)
    _out().print(table)


def show_comparison(comparison: Comparison, limit: int) -> None:
    """Print how two policies differ: counts by category, then up to ``limit`` texts with routes."""
    c = comparison
    names = [f"{r.policy.name} ({r.policy.path.name})" for r in (c.old, c.new)]
    _out().print(Text(f"{names[0]} -> {names[1]}: {len(c.flips):,} of {c.rows:,} rows flip"))
    table = Table("category", "change", "rows", "for the better", "for the worse")
    overall = {} if len(c.categories) == 1 and not (c.only_old or c.only_new) else {"": c.actions}
    for name, changes in {**c.categories, **overall}.items():
        for change, n in sorted(changes.items(), key=lambda item: (len({*item[0]}), -item[1])):
            told = c.labelled and len({*change}) > 1 and name in c.categories
            verdicts = c.verdicts(name, change)
            better, worse = (f"{verdicts[x]:,}" if told else "" for x in ("better", "worse"))
            old, new = change
            shown = f"{old} -> {new}" if old != new else f"still {old}"
            table.add_row(Text(name or "(overall)"), shown, f"{n:,}", better, worse)
    _out().print(table)
    for only, router in ((c.only_old, c.old), (c.only_new, c.new)):
        for name, n in only.items():
            print(f"{name}: only in {router.policy.name}, where {n:,} rows were not allowed")
    if limit and c.flips:
        _show_flips(c, limit)
    if len(c.flips) > limit:
        print(f"{limit:,} of {len(c.flips):,} shown; --show N shows more, --json FILE has them all")


def _show_flips(comparison: Comparison, limit: int) -> None:
    table = Table("line", "text", "label", "change", "routes, old and new")
    for flip in comparison.flips[:limit]:
        for category, change, verdict in _changes(flip):
            routes = [_route(decision, category) for decision in (flip.old, flip.new)]
            more = f" (+{len(flip.row.texts) - 1} more)" if len(flip.row.texts) > 1 else ""
            text = _short(flip.row.texts[0]) if flip.row.texts else "(unreadable)"
            about = f"{category}: " if len(comparison.categories) > 1 else ""
            table.add_row(
                str(flip.row.line),
                Text(text + more),
                Text(_visible(flip.label or "")),
                Text(f"{about}{change}{verdict}"),
                Text("\n".join(routes)),
            )
    _out().print(table)


def _changes(flip: Flip) -> Iterator[tuple[str, str, str]]:
    """Yield (category, change, verdict), or what became of the text as a whole."""
    for name, (old, new) in flip.changes.items():
        verdict = f"\n{flip.verdicts[name]}" if name in flip.verdicts else ""
        yield name, f"{old} -> {new}", verdict
    if not flip.changes:
        yield "", f"{would_be(flip.old)} -> {would_be(flip.new)}", ""


def _route(decision: Decision, category: str) -> str:
    steps = [s for s in decision.route if category in ("", s.category)]
    shown = [f"{s.member} {'failed' if s.score is None else format(s.score, '.3f')}" for s in steps]
    return " > ".join(shown) or "-"


def _short(text: str) -> str:
    shown = " ".join(_visible(text).split())
    return shown if len(shown) <= TEXT_WIDTH else f"{shown[: TEXT_WIDTH - 1]}…"


def _with_interval(metric: Mapping[str, float | None]) -> tuple[str, str]:
    if metric["value"] is None:
        return "-", ""
    return f"{metric['value']:.4f}", f"{metric['low']:.4f} to {metric['high']:.4f}"
