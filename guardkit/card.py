"""The model card: what a model is, what it was measured to do, where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardkit.artefact import ArtefactConfig
from guardkit.calibrate import Calibration

UNSTATED = """\
## Data, licence, intended use

Not stated by whoever trained this model. Say what it was trained on and under which licence
before sharing it (`--card FILE`).
"""
UNCALIBRATED = """\
## Calibration

None: it gives no probabilities, so `guardkit classify` and `guardkit evaluate` refuse it. Import
it again with `--calibration-data SPEC`: labelled text that the networks were not trained on and
that you will not measure on, some hundred texts of each label.
"""
LIMITS = """\
## Limits

- The results above hold for text like the test text. On other text they may be far worse:
  measure on your own (`guardkit evaluate`) before you rely on them.
- Probabilities are calibrated at the label shares of the calibration set, given above; a policy
  shifts them to the share you expect (`prevalence`).
- A text written to deceive the model may succeed.
"""
#: Metrics shown, where a set has them.
SHOWN = ("accuracy", "roc_auc", "recall_at_fpr_1%", "recall_at_fpr_0.1%", "log_loss", "ece")


def model_card(
    name: str,
    config: ArtefactConfig,
    calibration: Calibration | None,
    metrics: Mapping[str, Any],
    *,
    opening: str | None,
) -> str:
    """Return the card as Markdown; ``opening`` states data, licence and intended use."""
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
    shares = zip(calibration.labels, calibration.prior, strict=True)
    results = [
        "## Results",
        "",
        "With 95% bootstrap intervals.",
        "",
    ]
    foot = [
        "",
        "## Calibration",
        "",
        f"Fitted on {calibration.n} texts the network was not trained on "
        f"({', '.join(f'{label} {share:.1%}' for label, share in shares)}); expected "
        f"calibration error {calibration.ece_before:.3f} before, {calibration.ece_after:.3f} "
        "after; log-loss "
        f"{calibration.log_loss_before:.3f} and {calibration.log_loss_after:.3f}, on those texts.",
        "",
        LIMITS.strip(),
        "",
    ]
    return "\n".join(head + results + results_table(metrics) + foot)


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
