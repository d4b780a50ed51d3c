"""What a person sees: progress on standard error, tables on standard output."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from guardkit.artefact import ArtefactConfig
from guardkit.batch import Summary
from guardkit.certify import Certified
from guardkit.errors import RunInterrupted, TrainingInterrupted
from guardkit.plugins import Plugins
from guardkit.recalibrate import Recalibrated
from guardkit.router import CaseResult, PolicyRouter
from guardkit.stack import Stack
from guardkit.types import SEVERITY, Evidence, Progress
from guardkit.verdicts import unproven

QUIET_S = 30.0  # between two lines of progress where there is no terminal to draw a bar on
LONG_RUN_S = 10.0  # from here on it is worth a line where the time went
STRONGEST_TOKENS = 12
LOG_WIDTH = 120  # a file or a pipe has no width of its own


class _Bars:
    """Progress on a terminal: one bar per stage."""

    def __init__(self) -> None:
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self.bars.add_task(stage, total=None, note="")
        self.bars.update(self._tasks[stage], completed=done, total=total or None, note=note)


class _Lines:
    """Progress in a log: a line when a stage begins, then one now and then."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._last >= QUIET_S:
            self._stage, self._last = stage, now
            of = f"/{total}" if total else ""
            print(f"{stage} {done}{of} {note}".rstrip(), file=sys.stderr, flush=True)


def progress() -> AbstractContextManager[Progress]:
    """Return a context that shows progress: bars on a terminal, else a line now and then. Of
    several processes that train together the first alone shows it."""
    if os.environ.get("RANK", "0") != "0":
        return nullcontext(lambda stage, done, total, note="": None)
    return _drawing() if sys.stderr.isatty() else nullcontext(_Lines())


def terminal_progress(*, beside_output: bool) -> AbstractContextManager[Progress | None]:
    """As ``progress``, but None where there is no terminal, or where bars would run into the
    output on it."""
    if not sys.stderr.isatty() or (beside_output and sys.stdout.isatty()):
        return nullcontext(None)
    return _drawing()


@contextmanager
def _drawing() -> Iterator[Progress]:
    bars = _Bars()
    with bars.bars:
        yield bars


@contextmanager
def interruptible(progress: Progress) -> Iterator[Progress]:
    """Make the first SIGINT or SIGTERM stop training between two steps; a second one kills."""
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)
        print("\nstopping after this step; once more stops at once", file=sys.stderr, flush=True)

    def stoppable(stage: str, done: int, total: int, note: str = "") -> None:
        progress(stage, done, total, note)
        if asked:
            raise TrainingInterrupted(
                f"training stopped ({stage} {done} of {total}); the same command with --resume "
                "goes on from here"
            )

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stoppable
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stoppable() -> Iterator[None]:
    """Make SIGINT and SIGTERM end a classification at once: what is done is saved already."""

    def stop(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise RunInterrupted(f"stopped by {name}; the same command with --resume goes on from here")

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summary_line(summary: Summary, out: Path | None) -> str:
    """Return one line on what a classify run did."""
    actions = [f"{summary.actions[a]:,} {a}" for a in SEVERITY if summary.actions[a]]
    troubles = {"unreadable": summary.unreadable, "could not be judged": summary.undecided}
    parts = [*actions, *(f"{n:,} {what}" for what, n in troubles.items() if n)]
    if summary.differing is not None:
        parts.append(f"{summary.differing:,} would differ under the shadow policy")
    speed = (
        f"{summary.rows:,} lines in {summary.seconds:.1f} s ({summary.texts_per_s:,.0f} texts/s)"
    )
    where = f" -> {out}" if out else ""
    return f"{speed}{': ' if parts else ''}{', '.join(parts)}{where}"


def note_unproven(router: PolicyRouter) -> None:
    """Say on standard error which of a policy's cascades have not been shown to pay."""
    for line in unproven(router.policy, router.folders):
        print(f"note: {line}", file=sys.stderr)


def times_line(summary: Summary) -> str | None:
    """Return where the time of a long run went, all workers together; None for a short one."""
    total = sum(summary.times.values())
    if total < LONG_RUN_S:
        return None
    shares = (f"{name} {seconds / total:.0%}" for name, seconds in summary.times.items())
    return f"of {total:,.0f} s of work: {', '.join(shares)}"


def show_metrics(title: str, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
    """Print {name: {value, low, high}}."""
    _out().print(Text(title))
    table = Table("metric", "value", "95% interval")
    for name, m in metrics.items():
        table.add_row(name, *_with_interval(m))
    _out().print(table)


def show_measured(metrics: Mapping[str, Any]) -> None:
    """Print what a new model was measured to do, a table for each set of examples."""
    for name, report in metrics.items():
        if "metrics" in report:
            show_metrics(f"{name}: {report['n']:,} texts", report["metrics"])


def show_evaluation(report: Mapping[str, Any]) -> None:
    """Print what ``evaluate.measure`` returned, and what it cost."""
    if "categories" in report:
        _show_policy_report(report)
    else:
        _show_model_report(report)
    cost = report["cost"]
    print(
        f"{cost['texts']:,} texts in {cost['seconds']:.1f} s: {cost['texts_per_s']:,.0f} texts/s, "
        f"{cost['ms_per_text']:.1f} ms per text"
    )


def _show_model_report(report: Mapping[str, Any]) -> None:
    about = f" (positive: {report['positive']})" if report["positive"] else ""
    show_metrics(f"{report['n']:,} texts{about}{_left_out(report)}", report["metrics"])
    _show_warnings(report["warnings"])
    _show_parts("source", report["sources"])
    _show_parts("characters", report["lengths"])


def _show_policy_report(report: Mapping[str, Any]) -> None:
    for name, category in report["categories"].items():
        title = (
            f"{name}: {report['n']:,} texts, {category['positives']:,} positive "
            f"({', '.join(category['positive'])}){_left_out(report)}"
        )
        show_metrics(title, category["metrics"])
        _show_warnings(category["warnings"])
        members = Table("member", "asked about", "ms per text asked", "tokens per text")
        for member, share in category["members"].items():
            cost = report["cost"]["members"].get(member, {})  # a pattern costs next to nothing
            own = (_number(cost.get(name)) for name in ("ms_per_text", "tokens_per_text"))
            members.add_row(Text(member), f"{share:.1%}", *own)
        _out().print(members)
        _show_parts("source", category["sources"])
        _show_parts("characters", category["lengths"])


def show_cases(results: Sequence[CaseResult]) -> None:
    """Print how a policy's tests went."""
    table = Table("", "text", "expected", "got", "error")
    for result in results:
        mark = Text("ok", style="green") if result.passed else Text("FAILED", style="bold red")
        expected, got = (
            Text(", ".join(f"{name}: {action}" for name, action in actions.items()))
            for actions in (result.expected, result.got)
        )
        shown = _visible(result.text)
        shown = shown if len(shown) <= 70 else f"{shown[:69]}…"
        table.add_row(mark, Text(shown), expected, got, Text(result.error or ""))
    _out().print(table)


def show_stack(stack: Stack) -> None:
    """Print a fitted node: its weights, what it is worth, and what the policy should say."""
    left_out = f"; {stack.left_out:,} could not be judged" if stack.left_out else ""
    show_metrics(
        f"{stack.category}: stacked({', '.join(stack.parts)}), {stack.n:,} texts, "
        f"{stack.positives:,} positive{left_out}",
        stack.parameters,
    )
    show_metrics("log-loss, cross-validated", stack.log_loss)
    gain = {name: value or 0.0 for name, value in stack.gain.items()}
    verdict = "" if gain["low"] > 0 else ": not shown to be better"
    shown = f"{gain['value']:.4f} ({gain['low']:.4f} to {gain['high']:.4f}){verdict}"
    print(f"gain over {stack.best_other!r}, the best of the others: {shown}")
    print("  ".join(f"{key}: {value}" for key, value in stack.written.items()))


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
    _out().print(Text(f"{result.category}: {promise}"))
    _out().print(table)
    if raised:
        print("raised to the `below` of a stage: a text settled there must not pass the threshold")


def show_recalibrated(result: Recalibrated) -> None:
    """Print what a new calibration is worth, and what others would have been."""
    c = result.calibration
    shares = ", ".join(f"{x} {p:.1%}" for x, p in zip(c.labels, c.prior, strict=True))
    old = "the calibration it had" if c.replaces else "no calibration"
    _out().print(Text(f"{c.n:,} texts ({shares}); before: {old}; after: cross-fitted"))
    table = Table("", "before", "95% interval", "after", "95% interval")
    for name in result.before:
        values = (result.before[name], result.after[name])
        table.add_row(name, *(cell for m in values for cell in _with_interval(m)))
    _out().print(table)
    value, interval = _with_interval(result.gain)
    verdict = "" if (result.gain["low"] or 0) > 0 else ": not shown to be better"
    print(f"log-loss saved: {value} ({interval}){verdict}")
    tried = Table("method", "log-loss, cross-fitted", "over the best", "standard error", "")
    for method, m in c.candidates.items():
        mark = "chosen" if method == c.method else ""
        numbers = (m.log_loss, m.excess, m.standard_error)
        tried.add_row(method, *(f"{x:.4f}" for x in numbers), mark)
    _out().print(tried)


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
    _out().print(table)
    for family in plugins.families.values():
        presets = ", ".join(family.presets) or "none"
        _out().print(Text(f"{family.name}: {family.summary} (presets: {presets})"))


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
    _out().print(table)


def show_model(folder: Path, config: ArtefactConfig, digest: str, card: str) -> None:
    """Print what a model says of itself: its config in short, then its card."""
    table = Table(show_header=False)
    table.add_row("folder", Text(str(folder)))
    table.add_row("plugin", config.family)
    table.add_row("labels", Text(", ".join(config.labels)))
    table.add_row("neutral label", Text(config.neutral or "none"))
    table.add_row("long texts", f"windows, {config.window_pooling} over them")
    table.add_row("readings", ", ".join(["raw", *config.also_read]))
    table.add_row("size", _size(folder))
    table.add_row("hash", digest)
    _out().print(table)
    _out().print(Markdown(card))


def show_evidence(
    text: str,
    evidence: Evidence,
    labels: Sequence[str],
    column: int,
    probabilities_C: Sequence[float],
) -> None:
    """Print ``text`` with each token coloured by what it adds to ``labels[column]``'s logit over
    the mean of the others': red for, blue against."""
    others_T = np.delete(evidence.values_TC, column, axis=1).mean(axis=1)
    value_T = evidence.values_TC[:, column] - others_T
    largest = float(np.abs(value_T).max(initial=0.0)) or 1.0
    out = _out()
    given = ", ".join(f"{x} {p:.3f}" for x, p in zip(labels, probabilities_C, strict=True))
    out.print(Text(f"probabilities: {given}"))
    out.print(
        Text(f"evidence for {labels[column]!r} ({evidence.scorer}): ")
        + Text("for", style="on rgb(255,150,150) black")
        + Text(" ")
        + Text("against", style="on rgb(150,180,255) black")
    )
    shown = Text(_visible(text))
    for (start, end), value in zip(evidence.spans, value_T, strict=True):
        pale = 255 - int(105 * abs(float(value)) / largest)
        colour = f"rgb(255,{pale},{pale})" if value > 0 else f"rgb({pale},{pale},255)"
        shown.stylize(f"black on {colour}", start, end)
    out.print(shown)
    table = Table("strongest tokens", "add")
    for i in np.argsort(-np.abs(value_T), kind="stable")[:STRONGEST_TOKENS]:
        start, end = evidence.spans[i]
        table.add_row(Text(repr(text[start:end])), f"{value_T[i]:+.3f}")
    out.print(table)


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
    _out().print(table)


def _show_warnings(warnings: Mapping[str, str]) -> None:
    for name, why in warnings.items():
        _out().print(Text(f"{name}: {why}", style="yellow"))


def _left_out(report: Mapping[str, Any]) -> str:
    parts = {"unlabelled, left out": report["unlabelled"], "could not be judged": report["errors"]}
    return "".join(f"; {n:,} {what}" for what, n in parts.items() if n)


def _with_interval(m: Mapping[str, float | None]) -> tuple[str, str]:
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


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _size(folder: Path) -> str:
    return f"{sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.1f} MB"


def _visible(text: str) -> str:
    """Replace control characters one for one, so that no text can drive the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def _out() -> Console:
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH, highlight=False)
