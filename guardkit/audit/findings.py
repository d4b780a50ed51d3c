"""What an audit of labelled text found, and how it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from guardkit.metrics import Interval
from guardkit.text.visible import visible

#: A feature is warned of from this AUROC on: the lower end of its interval.
TELLS = 0.6
#: A value is warned of where at equal numbers of every label so many of its texts have one label
#: (the lower end of the interval), in at least so many groups.
GIVES_AWAY = 0.9
LEAST_GROUPS = 20
#: A phrase may be what the label is about: it must stand in this share of the label's texts, too.
PHRASE_SHARE = 0.05
#: Characters of a text, or of a value, that are shown.
QUOTED_CHARACTERS = 80
#: The one feature that no model sees: the column that says where a text is from.
SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Quote:
    """A text that is to blame: ``row`` counts from 1 in its split; nothing unseen is in it."""

    row: int
    label: str
    source: str | None
    text: str | None  # None: texts were not to be quoted


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a feature: how often it comes with each label, and whose it is.

    ``lean`` is the share of ``label`` among the texts with this value if there were equally many
    texts with the label and without.
    """

    value: str
    texts: int
    groups: int
    shares: Mapping[str, Interval]
    label: str
    lean: Interval


@dataclass(frozen=True, slots=True)
class Finding:
    """A feature: how well it tells ``label``, the values it has, and what to do about it.

    ``strongest`` is the value that tells most. ``warning`` is empty where it is no shortcut.
    """

    feature: str
    subject: str  # features of one subject say much the same
    label: str
    auroc: Interval
    strongest: Value
    values: Sequence[Value]
    warning: str
    hint: str
    texts: Sequence[Quote]


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found, the strongest first; ``labels`` counts the texts that were read."""

    labels: Mapping[str, int]
    texts: int
    read: int
    unlabelled: int
    groups: int
    intervals: str
    features: Sequence[Finding]
    phrases: Sequence[Finding]

    @property
    def warnings(self) -> list[Finding]:
        """The shortcuts, the strongest first."""
        found = [finding for finding in [*self.features, *self.phrases] if finding.warning]
        return sorted(found, key=lambda finding: -(finding.auroc["value"] or 0))


def as_json(found: Audit) -> dict[str, Any]:
    """Return all of it for machines, with the thresholds that decided what is a warning."""
    return {
        "measure": "AUROC of guessing the label from the feature alone, cross-fitted over groups",
        "thresholds": {
            "auroc": TELLS,
            "lean": GIVES_AWAY,
            "groups": LEAST_GROUPS,
            "phrase_share": PHRASE_SHARE,
        },
        **asdict(found),
    }


def warning_lines(found: Audit, *, most: int) -> list[str]:
    """Return a line for each of the strongest shortcuts that a model can see, one a subject."""
    lines: dict[str, str] = {}
    for finding in found.warnings:
        if finding.subject != SOURCE:
            lines.setdefault(finding.subject, f"{finding.feature} tells the label: "
                             f"{described(finding)}")  # fmt: skip
    return [*lines.values()][:most]


def described(finding: Finding) -> str:
    """Return how often a finding's strongest value comes with which label, in a line; nothing
    unseen is in it."""
    value = finding.strongest
    ranked = sorted(value.shares, key=lambda label: -(value.shares[label]["value"] or 0))
    shown = ranked if len(ranked) <= 3 else [ranked[0], ranked[-1]]
    shares = ", ".join(f"{percent(value.shares[x]['value'])} of {x!r}" for x in shown)
    return one_line(f"{shortened(value.value)!r} in {shares} (AUROC {finding.auroc['value']:.2f})")


def one_line(text: str) -> str:
    """Return ``text`` in one line, what nobody sees spelt out."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def shortened(text: str) -> str:
    """Return the beginning of ``text`` in one line, what nobody sees spelt out."""
    return one_line(text[:QUOTED_CHARACTERS]) + ("…" if len(text) > QUOTED_CHARACTERS else "")


def percent(share: float | None) -> str:
    """Return a share in percent, never rounded to nothing or to all."""
    if share is None:
        return "-"
    percent = 100 * share
    if 0 < percent < 0.01:
        return "<0.01%"
    if 99.99 < percent < 100:
        return ">99.99%"
    return f"{percent:.{0 if 1 <= percent <= 99 or percent in (0, 100) else 2}f}%"
