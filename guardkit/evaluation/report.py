"""An evaluation report as a page: one HTML file that needs nothing else, and JSON beside it.

The page is a function of the JSON alone. Jinja2 escapes whatever the data brings, and the page
forbids itself scripts and requests, so that a hostile text in it stays a text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardkit.errors import OutputError, UsageError
from guardkit.evaluation import plots
from guardkit.evaluation.plots import Axis, Curve, Mark
from guardkit.files import write_atomically
from guardkit.model import artefact

if TYPE_CHECKING:
    import jinja2

PAGE, NUMBERS = "report.html", "report.json"
#: What a metric is called and what it says; the first group is shares, shown in percent.
SHARES = {
    "recall": ("Recall", "share of the positive texts that are flagged"),
    "fpr": ("False-positive rate", "share of the negative texts that are flagged"),
    "precision": ("Precision", "share of the flagged texts that are positive"),
    "recall_at_fpr_1%": (
        "Recall at 1% FPR",
        "recall with the threshold set so that at most 1% of these negatives are flagged",
    ),
    "recall_at_fpr_0.1%": ("Recall at 0.1% FPR", "the same for one negative in a thousand"),
    "accuracy": ("Accuracy", "share of the texts that got the right answer"),
}
NUMBERS_OF = {
    "roc_auc": ("ROC AUC", "chance that a positive text scores above a negative one"),
    "auprc": ("Average precision", "precision averaged over recall; depends on the label shares"),
    "macro_f1": ("Macro F1", "F1 averaged over the labels"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "ece": ("Calibration error", "mean gap between stated confidence and being right (ECE)"),
    "brier": ("Brier score", "mean squared error of the probabilities; 0 is perfect"),
    "log_loss": ("Log-loss", "mean surprise of the true label, in nats; 0 is perfect"),
}
METRICS = SHARES | NUMBERS_OF
#: What is shown in percent.
PERCENT = {*SHARES, "flips", "to_passed", "to_flagged"}
FPR_AXIS = "False-positive rate"

Report = Mapping[str, Any]


def prepare(folder: Path) -> None:
    """Make ``folder``, before the work rather than after it. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {folder}: cannot be made: {error.strerror}") from error


def write_report(folder: Path, report: Report) -> Path:
    """Write ``report.html`` and ``report.json`` into ``folder`` and return the page's path.

    ``report`` is what ``breakdown`` returns, with what was measured beside it. Raises
    OutputError.
    """
    page = folder / PAGE
    try:
        artefact.write_json(folder / NUMBERS, report)
        write_atomically(page, render(report).encode())
    except OSError as error:
        raise OutputError(f"{folder}: the report cannot be written: {error}") from error
    return page


def render(report: Report) -> str:
    """Return the page that shows ``report``."""
    pages = environment()
    pages.filters |= {"metric": show_metric, "number": show_number, "share": show_share}
    pages.globals |= {"METRICS": METRICS, "whisker": _whisker}
    views = [_view(name, view, report) for name, view in _views(report)]
    return pages.get_template("report.html").render(report=report, views=views)


def environment() -> jinja2.Environment:
    """Return what fills in the package's templates: it escapes, and a name it lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def show_metric(metric: Mapping[str, float | None], name: str) -> str:
    """Return a metric with its interval, in percent where it is a share."""
    ends = [metric["value"], metric["low"], metric["high"]]
    if None in ends:
        return "-"
    value, low, high = (f"{x:.1%}" if name in PERCENT else f"{x:.3f}" for x in ends)
    return f"{value} ({low} to {high})"


def show_share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def show_number(value: float | None) -> str:
    """Return a count with its thousands, any other number to three digits."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(digits, 4)}f}"


def _views(report: Report) -> Sequence[tuple[str, Report]]:
    """Return what is shown, by name: a model's one report, or a policy's categories."""
    if "categories" in report:
        return list(report["categories"].items())
    return [(report["positive"] or "", report)]


def _view(name: str, view: Report, report: Report) -> dict[str, Any]:
    """Return a view with its pictures and what the page says of it."""
    is_binary = view["positive"] is not None
    labels = view["positive"] or []  # a model's is one, a category's several
    wanted = labels if isinstance(labels, str) else ", ".join(labels)
    part = [*view["sources"].values(), *view["lengths"].values()]
    columns = list(part[0]["metrics"]) if part else []
    return {
        **dict.fromkeys(
            ("per_label", "prevalence", "without_score", "undecided", "routes", "invariances")
        ),
        **view,
        "name": name,
        "wanted": wanted,
        "is_binary": is_binary,
        "n": report["n"],
        "pictures": [
            *_ranking_pictures(view, wanted),
            *_probability_pictures(view, wanted, is_binary),
        ],
        "part_columns": columns,
        "benign_only": [s for s, p in view["sources"].items() if p.get("positives") == 0],
        "over_defence": _over_defence(view["sources"]) if is_binary else [],
    }


def _over_defence(sources: Mapping[str, Report]) -> list[tuple[str, Report]]:
    """Return the sources that hold negatives, the most often flagged first."""
    rates = {name: part["metrics"]["fpr"]["value"] for name, part in sources.items()}
    defined = [name for name, rate in rates.items() if rate is not None]
    return [(name, sources[name]) for name in sorted(defined, key=lambda x: -rates[x])]


def _ranking_pictures(view: Report, wanted: str) -> list[dict[str, str]]:
    if view["curves"] is None:
        return []
    roc, pr, metrics = view["curves"]["roc"], view["curves"]["pr"], view["metrics"]
    about = wanted or "each label against the rest, averaged"
    recall, precision = roc["recall"], pr["precision"]
    curve = Curve(roc["fpr"], recall["value"], recall["low"], recall["high"], steps=True)
    at, marks = {name: metrics.get(name, {}).get("value") for name in SHARES}, []
    if at["recall"] is not None and at["fpr"] is not None:
        marks = [Mark(at["fpr"], at["recall"], "as set")]
    auc = show_metric(metrics["roc_auc"], "roc_auc")
    y = Axis("Recall")
    described = (
        f"ROC curve, {about}: recall rises from {show_share(at['recall_at_fpr_1%'])} at 1% false "
        f"positives; area {auc}."
    )
    average = show_metric(metrics["auprc"], "auprc")
    pr_marks = []
    if marks and at["precision"] is not None:
        pr_marks = [Mark(at["recall"], at["precision"], "as set")]
    negatives = sum(view["histogram"]["others"])
    few = 1 / negatives if wanted and negatives and negatives < 1000 else None
    hatched = (
        f" Hatched: less than one of the {negatives:,} negative texts." if few is not None else ""
    )
    return [
        {
            "title": "ROC curve",
            "caption": f"Area {auc}. Dashed: chance. Band: 95% interval of the recall at each "
            "false-positive rate.",
            "svg": plots.lines(
                "ROC curve", described, Axis(FPR_AXIS), y, [curve], marks=marks, diagonal=True
            ),
        },
        {
            "title": "ROC curve where false positives are few",
            "caption": "The same curve, the rate on a logarithmic scale: a filter in front of "
            f"people works at its left end.{hatched}",
            "svg": plots.lines(
                "ROC curve, logarithmic false-positive rate",
                described,
                Axis(FPR_AXIS, low=0.001, log=True),
                y,
                [curve],
                marks=marks,
                unsure_below=few,
            ),
        },
        {
            "title": "Precision and recall",
            "caption": f"Average precision {average}. Precision depends on the share of positive "
            "texts, which is that of this data.",
            "svg": plots.lines(
                "Precision by recall",
                f"{about}: average precision {average}.",
                Axis("Recall"),
                Axis("Precision"),
                [Curve(pr["recall"], precision["value"], precision["low"], precision["high"])],
                marks=pr_marks,
            ),
        },
    ]


def _probability_pictures(view: Report, wanted: str, is_binary: bool) -> list[dict[str, str]]:
    if view["reliability"] is None:
        return []
    bins, counts, metrics = view["reliability"], view["histogram"], view["metrics"]
    probability = f"Probability of {wanted}" if is_binary else "Probability of the likeliest label"
    hits, others = (wanted, "other texts") if is_binary else ("right", "wrong")
    ece, brier = (show_metric(metrics[name], name) for name in ("ece", "brier"))
    observed, per_bin = bins["observed"], sum(bins["count"]) // len(bins["count"])
    threshold = view.get("threshold", 0.5) if is_binary else None
    dashed = f" Dashed: the threshold, {show_number(threshold)}." if threshold is not None else ""
    return [
        {
            "title": "Are the probabilities right?",
            "caption": f"Each dot stands for about {per_bin:,} texts: the share that is {hits} "
            "against the mean probability given. On the dashed line the two agree. "
            f"Calibration error {ece}, Brier score {brier}.",
            "svg": plots.lines(
                "Reliability diagram",
                f"Observed share by stated probability in {len(bins['count'])} bins; calibration "
                f"error {ece}.",
                Axis(probability),
                Axis(f"Share that is {hits}"),
                [Curve(bins["mean"], observed["value"], observed["low"], observed["high"])],
                diagonal=True,
                dots=True,
            ),
        },
        {
            "title": "Scores",
            "caption": f"Above the line {hits} ({sum(counts['hits']):,}), below it {others} "
            f"({sum(counts['others']):,}); each bar the share of its side, square-root scale."
            f"{dashed}",
            "svg": plots.histogram(
                "Histogram of scores",
                f"{hits} above, {others} below.",
                Axis(probability),
                counts["edges"],
                counts["hits"],
                counts["others"],
                labels=(hits, others),
                threshold=threshold,
            ),
        },
    ]


def _whisker(metric: Mapping[str, float | None]) -> Any:
    from markupsafe import Markup  # jinja2's own

    return Markup(plots.whisker(metric["value"], metric["low"], metric["high"]))
