"""What a person reads: a run in a line, tables of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from guardkit.bounds import MARKDOWN_CHARACTERS
from guardkit.classify.engine import Outcome
from guardkit.classify.records import Summary
from guardkit.cli.console import console
from guardkit.cli.terminal import say
from guardkit.evaluation.explanation import Explanation
from guardkit.model.artefact import ArtefactConfig
from guardkit.plugins import Plugins
from guardkit.policy.backup_record import unproven
from guardkit.policy.router import PolicyRouter
from guardkit.text.visible import visible
from guardkit.training.recalibrate import Recalibrated
from guardkit.types import SEVERITY

LONG_RUN_S = 10.0  # from here on it is worth a line where the time went


def summary_line(summary: Summary, out: Path | None, *, resumed: int = 0) -> str:
    """Return one line on what a classify run did; ``resumed`` lines another had done before."""
    actions = [f"{summary.actions[a]:,} {a}" for a in SEVERITY if summary.actions[a]]
    troubles = {"unreadable": summary.unreadable, "could not be judged": summary.undecided}
    parts = [*actions, *(f"{n:,} {what}" for what, n in troubles.items() if n)]
    if summary.differing is not None:
        parts.append(f"{summary.differing:,} would differ under the shadow policy")
    rate = f"{summary.texts_per_s:,.0f} texts/s"
    if resumed:
        fresh = (summary.rows - resumed) / summary.seconds if summary.seconds else 0.0
        rate = f"{resumed:,} were done before; {fresh:,.0f} lines/s"
    speed = f"{summary.rows:,} lines in {summary.seconds:.1f} s ({rate})"
    where = f" -> {out}" if out else ""
    return f"{speed}{': ' if parts else ''}{', '.join(parts)}{where}"


def say_outcome(outcome: Outcome, out: Path | None) -> None:
    """Say on standard error what a classify run did, and what it could not do."""
    summary = outcome.summary
    lines = [summary_line(summary, out, resumed=outcome.resumed), times_line(summary)]
    lines += [f"member {name!r} was down for {n:,} lines" for name, n in summary.down.items()]
    for name, reason in outcome.set_aside.items():
        lines.append(f"set aside, its lines are errors: {name}: {reason}")
    if outcome.set_aside:
        lines.append("the same command with --resume tries them again")
    say("\n".join(line for line in lines if line is not None), err=True)


def say_where(model: Path) -> None:
    """Print where a new model is, and what it is for."""
    say(f"the model is in {model}; try: guardkit classify FILE --model {model}")


def say_note(line: str) -> None:
    """Say on standard error what does not stop the work."""
    say(f"note: {line}", err=True)


def note_unproven(router: PolicyRouter) -> None:
    """Say on standard error which of a policy's cascades have not been shown to pay, and which
    members may answer otherwise the next time."""
    for line in (*unproven(router.policy, router.sources), *router.unrepeatable()):
        say_note(line)


def times_line(summary: Summary) -> str | None:
    """Return where the time of a long run went, all workers together; None for a short one."""
    total = sum(summary.times.values())
    if total < LONG_RUN_S:
        return None
    shares = (f"{name} {seconds / total:.0%}" for name, seconds in summary.times.items())
    return f"of {total:,.0f} s of work: {', '.join(shares)}"


def show_metrics(title: str, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
    """Print {name: {value, low, high}}."""
    console().print(Text(title))
    table = Table("metric", "value", "95% interval")
    for name, m in metrics.items():
        table.add_row(name, *with_interval(m))
    console().print(table)


def show_measured(metrics: Mapping[str, Any]) -> None:
    """Print what a new model was measured to do, a table for each set of examples."""
    for name, report in metrics.items():
        if "metrics" in report:
            show_metrics(f"{name}: {report['n']:,} texts", report["metrics"])


def show_adaptation(report: Mapping[str, Any]) -> None:
    """Print how often texts get the label that a model was adapted to, before and after."""
    console().print(Text(f"share of texts called {report['label']!r} at probability 0.5"))
    table = Table("texts", "n", "before", "after", "at 1% false positives, before", "after")
    columns = ("before", "after", "before_at_fpr", "after_at_fpr")
    shares = dict(report["shares"])
    if found := report.get("over_defence"):
        shares[found["texts"]] = found
    for name, share in shares.items():
        cells = [_interval(share[c]) if c in share else "" for c in columns]
        table.add_row(Text(name), f"{share['n']:,}", *cells)
    console().print(table)


def show_evaluation(report: Mapping[str, Any]) -> None:
    """Print what ``evaluate.measure`` returned, and what it cost."""
    if "categories" in report:
        _show_policy_report(report)
    else:
        _show_model_report(report)
    cost = report["cost"]
    say(
        f"{cost['texts']:,} texts in {cost['seconds']:.1f} s: {cost['texts_per_s']:,.0f} texts/s, "
        f"{cost['ms_per_text']:.1f} ms per text"
    )


def _show_model_report(report: Mapping[str, Any]) -> None:
    about = f" (positive: {report['positive']})" if report["positive"] else ""
    show_metrics(f"{report['n']:,} texts{about}{left_out(report)}", report["metrics"])
    _show_warnings(report["warnings"])
    _show_parts("source", report["sources"])
    _show_parts("characters", report["lengths"])
    if "invariances" in report:
        _show_invariances(report["invariances"])


def _show_policy_report(report: Mapping[str, Any]) -> None:
    for name, category in report["categories"].items():
        title = (
            f"{name}: {report['n']:,} texts, {category['positives']:,} positive "
            f"({', '.join(category['positive'])}){left_out(report)}"
        )
        show_metrics(title, category["metrics"])
        _show_warnings(category["warnings"])
        members = Table("member", "asked about", "ms per text asked", "tokens per text")
        for member, share in category["members"].items():
            cost = report["cost"]["members"].get(member, {})  # a pattern costs next to nothing
            own = (_number(cost.get(name)) for name in ("ms_per_text", "tokens_per_text"))
            members.add_row(Text(member), f"{share:.1%}", *own)
        console().print(members)
        _show_parts("source", category["sources"])
        _show_parts("characters", category["lengths"])
        if "invariances" in category:
            _show_invariances(category["invariances"])


def show_recalibrated(result: Recalibrated) -> None:
    """Print what a new calibration is worth, and what others would have been."""
    c = result.calibration
    shares = ", ".join(f"{x} {p:.1%}" for x, p in zip(c.labels, c.prior, strict=True))
    old = "the calibration it had" if c.replaces else "no calibration"
    console().print(Text(f"{c.n:,} texts ({shares}); before: {old}; after: cross-fitted"))
    table = Table("", "before", "95% interval", "after", "95% interval")
    for name in result.before:
        values = (result.before[name], result.after[name])
        table.add_row(name, *(cell for m in values for cell in with_interval(m)))
    console().print(table)
    value, interval = with_interval(result.gain)
    verdict = "" if (result.gain["low"] or 0) > 0 else ": not shown to be better"
    say(f"log-loss saved: {value} ({interval}){verdict}")
    tried = Table("method", "log-loss, cross-fitted", "over the best", "standard error", "")
    for method, m in c.candidates.items():
        mark = "chosen" if method == c.method else ""
        numbers = (m.log_loss, m.excess, m.standard_error)
        tried.add_row(method, *(f"{x:.4f}" for x in numbers), mark)
    console().print(tried)
    if result.others:
        others = Table("other scorer", "method", "log-loss, before", "cross-fitted")
        for name, own in result.others.items():
            losses = (own.log_loss_before, own.log_loss_after)
            others.add_row(name, own.method, *(f"{x:.4f}" for x in losses))
        console().print(others)


def show_plugins(plugins: Plugins) -> None:
    """Print what is installed, what it registers and what is wrong with it."""
    table = Table("plugin", "distribution", "classifiers", "combiners", "hooks", "error")
    for plugin in plugins.plugins.values():
        names = (", ".join(x) or "-" for x in (plugin.classifiers, plugin.combiners, plugin.hooks))
        table.add_row(
            Text(plugin.name),
            Text(f"{plugin.distribution} {plugin.version}"),
            *map(Text, names),
            Text(plugin.error or "", style="bold red"),
        )
    console().print(table)
    for family in plugins.families.values():
        presets = ", ".join(family.presets) or "none"
        console().print(Text(f"{family.name}: {family.summary} (presets: {presets})"))


def show_models(models: Sequence[tuple[Path, ArtefactConfig]]) -> None:
    """Print (folder, config) of each bundled model."""
    table = Table("model", "plugin", "labels", "size", "folder")
    for folder, config in models:
        labels = ", ".join(config.labels)
        row = (
            f"builtin:{config.family}/{folder.name}",
            config.family,
            labels,
            _size(folder),
            str(folder),
        )
        table.add_row(*map(Text, row))
    console().print(table)


def show_model(
    folder: Path, config: ArtefactConfig, scorers: Mapping[str, bool], digest: str, card: str
) -> None:
    """Print what a model says of itself: its config in short, then its card."""
    from rich.markdown import Markdown  # here: it brings every lexer, 40 ms

    table = Table(show_header=False)
    table.add_row("folder", Text(str(folder)))
    table.add_row("plugin", config.family)
    table.add_row("labels", Text(", ".join(config.labels)))
    table.add_row("neutral label", Text(config.neutral or "none"))
    table.add_row("long texts", f"windows, {config.window_pooling} over them")
    if scorers:
        notes = (f"{x}{'' if known else ' (not calibrated)'}" for x, known in scorers.items())
        table.add_row("scorers", f"{', '.join(notes)}; the first is the default")
    table.add_row("readings", ", ".join(["raw", *config.also_read]))
    table.add_row("size", _size(folder))
    table.add_row("hash", digest)
    console().print(table)
    # as text: a link that a terminal could follow says where it leads
    short = len(card) <= MARKDOWN_CHARACTERS
    console().print(Markdown(visible(card), hyperlinks=False) if short else Text(card))


def show_explanation(explanation: Explanation) -> None:
    """Print a text with each piece coloured by what it adds to the label: red for, blue
    against."""
    out = console()
    if explanation.origin is not None:
        of = f", of {explanation.texts:,} texts" if explanation.texts > 1 else ""
        out.print(Text(f"decided by {explanation.origin.name()}{of}"))
    given = ", ".join(f"{x} {p:.3f}" for x, p in explanation.probabilities.items())
    out.print(Text(f"probabilities: {given}"))
    out.print(
        Text(f"evidence for {explanation.label!r} ({explanation.scorer}): ")
        + Text("for", style="on rgb(255,150,150) black")
        + Text(" ")
        + Text("against", style="on rgb(150,180,255) black")
    )
    if explanation.readings > 1:
        deciding = (
            "the text as it stands"
            if explanation.as_it_stands
            else "not the text as it stands, but what it says here"
        )
        out.print(Text(f"the worst of {explanation.readings} readings: {deciding}", style="yellow"))
    # rich drops some controls, which would move the pieces: they are spelt out before
    shown, at = Text(visible(explanation.text)), _positions(explanation.text)
    for piece in explanation.pieces:
        pale = 255 - int(105 * abs(piece.value) / explanation.largest)
        colour = f"rgb(255,{pale},{pale})" if piece.value > 0 else f"rgb({pale},{pale},255)"
        shown.stylize(f"black on {colour}", at[piece.start], at[piece.end])
    out.print(shown)
    table = Table("strongest pieces", "add")
    for piece in explanation.strongest:
        table.add_row(Text(repr(explanation.text[piece.start : piece.end])), f"{piece.value:+.3f}")
    out.print(table)


def _positions(text: str) -> list[int]:
    """Return where each character of ``text``, and its end, is in ``visible(text)``."""
    return [0, *accumulate(len(visible(character)) for character in text)]


def _show_parts(what: str, parts: Mapping[str, Mapping[str, Any]]) -> None:
    if not parts:
        return
    first = next(iter(parts.values()))
    counts = [name for name in ("n", "positives") if name in first]
    table = Table(what, *counts, *first["metrics"])
    for name, values in parts.items():
        table.add_row(
            Text(name),
            *(_number(values[count]) for count in counts),
            *map(_interval, values["metrics"].values()),
        )
    console().print(table)


def _show_invariances(found: Mapping[str, Any]) -> None:
    sampled = [f"{x['texts']:,} of {x['of']:,} {name}" for name, x in found["labels"].items()]
    title = f"changes that must not flip a verdict: {', '.join(sampled)} texts"
    if any(x["texts"] < x["of"] for x in found["labels"].values()):
        title += f" (--invariance-texts {found['per_label']}: at most so many of each label)"
    console().print(Text(title))
    rates = ("flips", "to_passed", "to_flagged")
    titles = ("flips", "flagged → not", "not → flagged", "log-odds change")
    table = Table("change", "texts", *titles)
    rows = {**found["transforms"], "any of these": found["any"]}
    for name, row in rows.items():
        cells = [_interval(row[key]) for key in (*rates, "log_odds_change") if key in row]
        table.add_row(Text(name), f"{row['n']:,}", *cells)
    console().print(table)
    if errors := sum(row["errors"] for row in found["transforms"].values()):
        console().print(Text(f"{errors:,} changed texts could not be judged", style="yellow"))


def _show_warnings(warnings: Mapping[str, str]) -> None:
    for name, why in warnings.items():
        console().print(Text(f"{name}: {why}", style="yellow"))


def left_out(report: Mapping[str, Any]) -> str:
    """Return how many texts a report does not count, and why; empty where it counts all."""
    counts = {"unlabelled, left out": report["unlabelled"], "could not be judged": report["errors"]}
    return "".join(f"; {n:,} {what}" for what, n in counts.items() if n)


def with_interval(m: Mapping[str, float | None]) -> tuple[str, str]:
    """Return a metric and its interval as two cells of a table."""
    interval = "" if m["value"] is None else f"{m['low']:.4f} to {m['high']:.4f}"
    return _number(m["value"]), interval


def _interval(metric: Mapping[str, float | None]) -> str:
    """Return a metric in three digits, its interval below it."""
    if metric["value"] is None:
        return "-"
    return f"{metric['value']:.3f}\n{metric['low']:.3f}-{metric['high']:.3f}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _size(folder: Path) -> str:
    return f"{sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.1f} MB"
