"""What ``guardkit policy`` prints of policies: tested, fitted, certified, compared, swept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from guardkit.cli.console import console
from guardkit.cli.output import left_out, show_metrics, with_interval
from guardkit.cli.terminal import say
from guardkit.metrics import Interval
from guardkit.policy.router import CaseResult
from guardkit.text.visible import visible
from guardkit.tuning.certify import Certified
from guardkit.tuning.compare import Comparison, Flip, would_be
from guardkit.tuning.frontier import Frontier
from guardkit.tuning.stacking import StackedFit
from guardkit.tuning.sweep import Point, Sweep
from guardkit.types import Decision

TEXT_WIDTH = 80


def show_cases(results: Sequence[CaseResult]) -> None:
    """Print how a policy's tests went."""
    table = Table("", "text", "expected", "got", "error")
    for result in results:
        mark = Text("ok", style="green") if result.passed else Text("FAILED", style="bold red")
        expected, got = (
            Text(", ".join(f"{name}: {action}" for name, action in actions.items()))
            for actions in (result.expected, result.got)
        )
        shown = visible(result.text)
        shown = shown if len(shown) <= 70 else f"{shown[:69]}…"
        table.add_row(mark, Text(shown), expected, got, Text(result.error or ""))
    console().print(table)


def show_stack(stack: StackedFit) -> None:
    """Print a fitted node: its weights, what it is worth, and what the policy should say."""
    uncounted = f"; {stack.left_out:,} could not be judged" if stack.left_out else ""
    show_metrics(
        f"{stack.category}: stacked({', '.join(stack.parts)}), {stack.n:,} texts, "
        f"{stack.positives:,} positive{uncounted}",
        stack.parameters,
    )
    show_metrics("log-loss, cross-validated", stack.log_loss)
    gain = {name: value or 0.0 for name, value in stack.gain.items()}
    verdict = "" if gain["low"] > 0 else ": not shown to be better"
    shown = f"{gain['value']:.4f} ({gain['low']:.4f} to {gain['high']:.4f}){verdict}"
    say(f"gain over {stack.best_other!r}, the best of the others: {shown}")
    say("  ".join(f"{key}: {value}" for key, value in stack.written.items()))


def show_certified(result: Certified) -> None:
    """Print a new certificate and what was seen on the way."""
    found, basis = result.certificate, result.certificate.basis
    of = ", ".join(f"{name} {count:,}" for name, count in result.labels.items())
    table = Table(show_header=False)
    table.add_row("benign texts", Text(f"{found.n:,}{f' ({of})' if of else ''}"))
    if result.duplicates:
        table.add_row("near-duplicates, left out", f"{result.duplicates:,}")
    if result.unlabelled:
        table.add_row("unlabelled, left out", f"{result.unlabelled:,}")
    if found.unjudged:
        counted = "counted as flagged" if basis.on_error == "closed" else "counted as allowed"
        table.add_row("could not be judged", f"{found.unjudged:,}, {counted}")
    table.add_row("false positives", f"{found.false_positives:,} of {found.allowed:,} allowed")
    table.add_row("false-positive rate", f"at most {_percent(found.bound)}")
    t = found.threshold
    raised = "" if result.raised_from is None else f", raised from {result.raised_from:.4f}"
    table.add_row("threshold", f"{t.probability:.6g} (log-odds {t.log_odds:.4f}{raised})")
    if result.positives:
        recall = result.flagged_positives / result.positives
        table.add_row("recall", f"{recall:.1%} of {result.positives:,} positive texts")
    promise = f"max_fpr {basis.max_fpr:g}, confidence {basis.confidence:g}"
    console().print(Text(f"{result.category}: {promise}"))
    console().print(table)
    if raised:
        say("raised to the `below` of a stage: a text settled there must not pass the threshold")


def show_measured(what: str, report: Mapping[str, Any]) -> None:
    """Print what ``evaluate_policy`` returned in short: a line for each category."""
    console().print(Text(f"{what}: {report['n']:,} texts{left_out(report)}"))
    table = Table("category", "positive", "recall", "95% interval", "fpr", "95% interval")
    for name, category in report["categories"].items():
        recall, fpr = (with_interval(category["metrics"][x]) for x in ("recall", "fpr"))
        table.add_row(Text(name), f"{category['positives']:,}", *recall, *fpr)
    console().print(table)


def show_comparison(comparison: Comparison, limit: int) -> None:
    """Print how two policies differ: counts by category, then up to ``limit`` texts with routes."""
    c = comparison
    names = [f"{r.policy.name} ({r.policy.path.name})" for r in (c.old, c.new)]
    console().print(Text(f"{names[0]} -> {names[1]}: {len(c.flips):,} of {c.rows:,} rows flip"))
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
    console().print(table)
    for only, router in ((c.only_old, c.old), (c.only_new, c.new)):
        for name, n in only.items():
            say(f"{name}: only in {router.policy.name}, where {n:,} rows were not allowed")
    if limit and c.flips:
        _show_flips(c, limit)
    if len(c.flips) > limit:
        say(f"{limit:,} of {len(c.flips):,} shown; --show N shows more, --json FILE has them all")


def show_frontier(frontier: Frontier) -> None:
    """Print a sweep: what members cost, what the choices catch, and what the backup is worth."""
    f, s = frontier, frontier.sweep
    left = f"; {f.unlabelled:,} unlabelled, left out" if f.unlabelled else ""
    console().print(Text(f"{f.category}: {f.n:,} texts, {f.positives:,} positive{left}"))
    costs = Table("member", "ms per text", "tokens", "operations (estimate)", "read now / kept")
    for member, cost in f.costs.items():
        flops = "-" if cost.flops is None else f"{cost.flops / 1e6:,.1f} M"
        read = f"{cost.scored:,} / {f.n - min(cost.scored, f.n):,}"
        costs.add_row(Text(member), f"{cost.ms:.2f}", f"{cost.tokens:.0f}", flops, read)
    console().print(costs)
    table = Table("point", "settle", "threshold", "ms", "asked", "recall", "95% interval", "fpr")
    own = [] if s.own is None else [s.own]
    for point in [*own, *s.singles, *s.frontier]:
        low, high = (s.intervals[point.name][x] or 0.0 for x in ("low", "high"))
        table.add_row(
            Text(point.name + (" *" if _same(point, s.chosen) else "")),
            _settle(point),
            f"{point.threshold:g}",
            f"{point.ms:.2f}",
            Text(", ".join(f"{name} {share:.0%}" for name, share in point.asked.items())),
            f"{point.recall:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{point.fpr:.2%}",
        )
    console().print(table)
    say(
        f"Thresholds, but the file's, flag at most {f.max_fpr:.2%} of the negatives; they and the "
        "bounds were chosen on these very texts."
    )
    held = {x: _spoken(s.held_out[x], percent=x != "ms") for x in s.held_out}
    say(f"* chosen: most recall. {_chosen(s.chosen)}")
    say(
        "  On texts it was not chosen on (two halves, each decided by what is best on the other): "
        f"recall {held['recall']}, false positives {held['fpr']}, {held['ms']} ms."
    )
    if s.own is not None:
        _say_better(s)
    _say_verdict(s)


def _say_better(sweep: Sweep) -> None:
    own = sweep.own
    assert own is not None
    if not sweep.better:
        say("No choice dominates the file's own point (no dearer, no more missed or flagged).")
        return
    best = sweep.better[0]
    say(
        f"{len(sweep.better):,} choices dominate the file's own point at its false-positive rate "
        f"of {own.fpr:.2%}, such as {_chosen(best)}: recall {best.recall:.1%}, {best.ms:.2f} ms."
    )


def _say_verdict(sweep: Sweep) -> None:
    gain = _spoken(sweep.gains[sweep.first], percent=True)
    if sweep.helps:
        say(f"THE BACKUP HELPS: recall over {sweep.first} alone, cross-fitted: +{gain}.")
    else:
        say(
            f"THE BACKUP IS NOT SHOWN TO HELP: recall over {sweep.first} alone, cross-fitted: "
            f"{gain}. `decide: {{member: {sweep.first}}}` is simpler and cheaper."
        )
    for member, interval in sweep.gains.items():
        if member != sweep.first:
            say(f"Recall of the cascade over {member} alone: {_spoken(interval, percent=True)}.")


def _same(point: Point, other: Point) -> bool:
    return (point.bounds, point.threshold) == (other.bounds, other.threshold)


def _settle(point: Point) -> str:
    return "; ".join(f"{below:g} {above:g}" for below, above in point.bounds[:-1]) or "-"


def _chosen(point: Point) -> str:
    return f"settle {_settle(point)}, threshold {point.threshold:g}"


def _spoken(interval: Interval, *, percent: bool) -> str:
    value, low, high = (interval[x] for x in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "unknown"
    if percent:
        return f"{value:.1%} ({low:.1%} to {high:.1%})"
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


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
                Text(visible(flip.label or "")),
                Text(f"{about}{change}{verdict}"),
                Text("\n".join(routes)),
            )
    console().print(table)


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
    shown = " ".join(visible(text).split())
    return shown if len(shown) <= TEXT_WIDTH else f"{shown[: TEXT_WIDTH - 1]}…"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
