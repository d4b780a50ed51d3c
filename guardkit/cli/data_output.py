"""What a person reads of an audit: every feature in a table, then each shortcut with its texts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from guardkit.audit.findings import (
    GIVES_AWAY,
    LEAST_GROUPS,
    PHRASE_SHARE,
    TELLS,
    Audit,
    Finding,
    Value,
    one_line,
    percent,
    shortened,
)
from guardkit.cli.console import console
from guardkit.metrics import Interval

#: Labels that a table has a column for; of more, each row names its most and its least frequent.
_COLUMNS = 3


def show_audit(found: Audit, data: str) -> None:
    """Print an audit. Nothing of a text reaches the terminal that could drive it."""
    out = console()
    counts = ", ".join(f"{n:,} {label!r}" for label, n in found.labels.items())
    left_out = f"; {found.unlabelled:,} unlabelled, left out" if found.unlabelled else ""
    out.print(Text(one_line(f"{data}: {counts}{left_out}; {found.groups:,} groups")))
    out.print(
        Text(
            "AUROC: how well the feature alone tells the label, on texts it was not counted on; "
            ".5 is chance. Shares and AUROC with 95% intervals "
            f"({found.intervals}). *: a shortcut, by AUROC (interval from {TELLS:.2f} up), or by a "
            f"value in {LEAST_GROUPS} groups or more that gives the label away ({GIVES_AWAY:.0%} "
            f"at equal numbers of every label; a phrase: in {PHRASE_SHARE:.0%} of a label's texts)."
        )
    )
    _show_findings("feature", found.features, [*found.labels])
    if found.phrases:
        _show_findings("phrase", found.phrases, [*found.labels])
    first = {finding.subject: finding for finding in reversed(found.warnings)}
    for finding in found.warnings:
        if finding is first[finding.subject]:  # the others of its subject say much the same
            _show_shortcut(finding)
    if not found.warnings:
        out.print("no shortcut was found")


def _show_findings(what: str, findings: Sequence[Finding], labels: Sequence[str]) -> None:
    table = Table("", what, "AUROC", "strongest value")
    few = len(labels) <= _COLUMNS
    for label in labels if few else ["most often with", "least often with"]:
        table.add_column(Text(one_line(label)))
    table.add_column("at equal numbers")
    for finding in findings:
        value = finding.strongest
        shares = [_share(value.shares[label]) for label in labels]
        if not few:
            ranked = sorted(labels, key=lambda label: -(value.shares[label]["value"] or 0))
            shares = [f"{one_line(x)}: {_share(value.shares[x])}" for x in (ranked[0], ranked[-1])]
        table.add_row(
            Text("*" if finding.warning else "", style="bold yellow"),
            Text(one_line(finding.feature)),
            _auroc(finding.auroc),
            Text(shortened(value.value)),
            *map(Text, shares),
            Text(_lean(value)),
        )
    console().print(table)


def _show_shortcut(finding: Finding) -> None:
    out = console()
    value = finding.strongest
    out.print(Text(f"* {one_line(finding.feature)}: {shortened(value.value)}", style="bold yellow"))
    out.print(Text(one_line(f"  {finding.warning}")))
    out.print(Text(one_line(f"  {finding.hint}")))
    for quote in finding.texts:
        of = f" ({shortened(quote.source)})" if quote.source else ""
        text = "" if quote.text is None else f": {quote.text}"
        out.print(Text(f"    row {quote.row:,}, {one_line(quote.label)}{of}{text}", style="dim"))


def _auroc(interval: Interval) -> str:
    return f"{interval['value']:.2f}\n{interval['low']:.2f}-{interval['high']:.2f}"


def _share(interval: Interval) -> str:
    low, high = percent(interval["low"]), percent(interval["high"])
    return f"{percent(interval['value'])}\n{low}-{high}"


def _lean(value: Value) -> str:
    texts = f"{value.texts:,} text{'' if value.texts == 1 else 's'}"
    return f"{percent(value.lean['value'])} {one_line(value.label)}\n{texts}"
