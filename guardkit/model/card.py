"""The model card: what a model is, what it was measured to do, where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardkit.calibration.maps import Calibration
from guardkit.model.artefact import ArtefactConfig

UNSTATED = """\
## Data, licence, intended use

Not stated by whoever trained this model. Say what it was trained on and under which licence
before sharing it (`--card FILE`).
"""
UNCALIBRATED = """\
## Calibration

None: it gives no probabilities, so `guardkit classify` and `guardkit evaluate` refuse it. Use
`guardkit calibrate`, or import it again with `--calibration-data SPEC`: labelled text that the
networks were not trained on and that you will not measure on, some hundred texts of each label.
"""
LIMITS = """\
## Limits

- The results above hold for text like the test text. On other text they may be far worse:
  measure on your own (`guardkit evaluate`) before you rely on them.
- Probabilities are calibrated at the label shares of the calibration set, given above; a policy
  shifts them to the share you expect (`prevalence`).
- A text written to deceive the model may succeed.
"""
CALIBRATION = "## Calibration"
ANEW = (
    "Calibrated anew, by whoever made this copy of the model. The results above are from before: "
    "their log-loss, ece and accuracy no longer hold, nor, under method length, quite the rest."
)
#: Metrics shown, where a set has them.
SHOWN = ("accuracy", "roc_auc", "recall_at_fpr_1%", "recall_at_fpr_0.1%", "log_loss", "ece")


def model_card(
    name: str,
    config: ArtefactConfig,
    calibration: Calibration | None,
    others: Mapping[str, Calibration],
    metrics: Mapping[str, Any],
    *,
    opening: str | None,
) -> str:
    """Return the card as Markdown; ``opening`` states data, licence and intended use, ``others``
    are the calibrations of scorers other than the default one."""
    head = [
        f"# {name}",
        "",
        f"A text classifier of guardkit's `{config.family}` family. Labels: "
        f"{', '.join(f'`{label}`' for label in config.labels)}.",
        "",
        (opening or UNSTATED).strip(),
        "",
    ]
    if calibration is None:
        return "\n".join([*head, UNCALIBRATED])
    results = [
        "## Results",
        "",
        "With 95% bootstrap intervals.",
        "",
    ]
    foot = ["", CALIBRATION, "", *_calibration(calibration, others), "", LIMITS.strip(), ""]
    return "\n".join(head + results + results_table(metrics) + foot)


def recalibrated_card(
    card: str, calibration: Calibration, others: Mapping[str, Calibration]
) -> str:
    """Return ``card`` with other calibrations in it, all else as it was."""
    start, _, rest = card.partition(f"\n{CALIBRATION}\n")
    _, heading, after = rest.partition("\n## ")
    anew = [ANEW] if calibration.replaces else []
    section = [start, CALIBRATION, "", *anew, *_calibration(calibration, others), ""]
    return "\n".join(section) + heading + after


def adapted_card(card: str, report: Mapping[str, Any]) -> str:
    """Return ``card`` with a section on an adaptation at its end."""
    rows = [(name, share) for name, share in report["shares"].items()]
    if found := report.get("over_defence"):
        rows.append((found["texts"], found))
    lines = [
        "## Adapted",
        "",
        f"To {report['examples']} examples of `{report['label']}`. The results above are from "
        "before. Shares of texts that get this label at probability 0.5:",
        "",
        "| | texts | before | after |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {share['n']} | {share['before']['value']:.1%} "
            f"| {share['after']['value']:.1%} |"
            for name, share in rows
        ),
    ]
    return "\n".join([card.rstrip(), "", *lines, ""])


def _calibration(calibration: Calibration, others: Mapping[str, Calibration]) -> list[str]:
    shares = ", ".join(
        f"{label} {share:.1%}"
        for label, share in zip(calibration.labels, calibration.prior, strict=True)
    )
    tried = ", ".join(f"{m} {c.log_loss:.4f}" for m, c in calibration.candidates.items())
    return [
        f"Fitted on {calibration.n} texts the network was not trained on ({shares}).",
        f"Method: {calibration.method}. Cross-fitted log-loss of those tried: {tried}.",
        "",
        "| | before | after, cross-fitted |",
        "| --- | --- | --- |",
        f"| expected calibration error | {calibration.ece_before:.3f} "
        f"| {calibration.ece_after:.3f} |",
        f"| Brier score | {_figure(calibration.brier_before)} "
        f"| {_figure(calibration.brier_after)} |",
        f"| log-loss | {calibration.log_loss_before:.3f} | {calibration.log_loss_after:.3f} |",
        *(_others(others) if others else []),
    ]


def _others(others: Mapping[str, Calibration]) -> list[str]:
    """Return a table of scorers that a policy's member may name."""
    rows = [
        f"| `{name}` | {c.method} | {c.ece_after:.3f} | {_figure(c.brier_after)} "
        f"| {c.log_loss_after:.3f} |"
        for name, c in others.items()
    ]
    return [
        "",
        "That is its default scorer. Others that it can be scored by, calibrated on the same "
        "texts (cross-fitted):",
        "",
        "| scorer | method | expected calibration error | Brier score | log-loss |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def results_table(metrics: Mapping[str, Any]) -> list[str]:
    """Return a Markdown table: a row a set, a column a metric some set has."""
    sets = {k: v for k, v in metrics.items() if isinstance(v, Mapping) and "metrics" in v}
    columns = [m for m in SHOWN if any(m in s["metrics"] for s in sets.values())]
    rows = [
        f"| set | texts | {' | '.join(columns)} |",
        f"| --- | --- |{' --- |' * len(columns)}",
    ]
    for name, values in sets.items():
        cells = [_cell(values["metrics"].get(m)) for m in columns]
        rows.append(f"| {name} | {values['n']} | {' | '.join(cells)} |")
    return rows


def _cell(value: Any) -> str:
    if value is None or value.get("value") is None:
        return "-"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
