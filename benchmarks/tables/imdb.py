"""Tables of docs/results/imdb.md and of the NB-SVM example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, interval, percent, points, row

Record = dict[str, Any]


def imdb(record: Record) -> str:
    """A row a way to classify, the first seed's figures; the other seeds' beside them."""
    lines = header("on the test reviews", "accuracy", "other seeds", "AUC", "training", "texts/s")
    for one in record["rows"]:
        if not one["runs"]:
            lines.append(f"| {one['title']} | {one['without']} | | | | |")
            continue
        first, *others = (run for _, run in sorted(one["runs"].items(), key=lambda r: int(r[0])))
        cells = [
            one["title"],
            percent(first["accuracy"], 2),
            ", ".join(f"{run['accuracy']['value']:.2%}" for run in others),
            interval(first["roc_auc"]),
            _training(first.get("training", {})),
            f"{first['texts_per_s']:,.0f}" if first["texts_per_s"] else "",
        ]
        lines.append(row(*cells))
    return "\n".join(lines)


def imdb_gains(record: Record) -> str:
    titles = {one["name"]: one["title"] for one in record["rows"]}
    lines = header("first", "second", "accuracy of the first, less the second's")
    for gain in record["gains"]:
        cell = points(gain["accuracy"], 2)
        lines.append(row(titles[gain["first"]], titles[gain["second"]], cell))
    return "\n".join(lines)


def imdb_quick(record: Record) -> str:
    """Those rows that are of the smaller networks."""
    return imdb({**record, "rows": [row for row in record["rows"] if row["runs"]]})


def imdb_conditions(record: Record, stored: str = "imdb") -> str:
    texts = {name: f"{about['texts']:,}" for name, about in record["data"].items()}
    runs = [run for row in record["rows"] for run in row["runs"].values()]
    return (
        f"{texts['test']} test reviews; {texts['train']} to train on, {texts['validation']} for "
        f"early stopping, {texts['calibration']} for probabilities and combinations, split by "
        f"film. 95% intervals: {record['conditions']}. Scored on "
        f"{' and '.join(sorted({run['machine'] for run in runs}))}; `{record['script']}` at commit "
        f"{' and '.join(sorted({run['commit'][:10] for run in runs}))}, stored in "
        f"`benchmarks/results/{stored}.json`, the command that trained each model too."
    )


def imdb_quick_conditions(record: Record) -> str:
    return imdb_conditions(record, "imdb_quick")


def nbsvm(record: Record) -> str:
    run = next(one for one in record["rows"] if one["name"] == "nbsvm-all")["runs"]["0"]
    tested = record["data"]["test"]["texts"]
    cells = [
        f"{run['options']['reviews']:,} reviews",
        f"{tested:,} reviews",
        percent(run["accuracy"]),
        f"{run['training']['seconds']:.0f} s",
        f"{tested / run['texts_per_s']:.0f} s",
    ]
    lines = [*header("trained on", "tested on", "accuracy", "train", "score"), row(*cells)]
    return "\n".join(lines) + (
        "\n\n"
        f"95% bootstrap interval over films; `{record['script']}` at commit {run['commit'][:10]}, "
        f"{run['machine']}, scikit-learn {record['versions']['scikit-learn']}."
    )


def _training(about: Record) -> str:
    """Return how long a training took, and on what."""
    seconds = about.get("seconds")
    if seconds is None:
        return ""
    hours, minutes = seconds / 3600, seconds / 60
    if hours >= 2:
        took = f"{hours:.1f} h"
    else:
        took = f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
    return ", ".join([took, *([about["machine"]] if "machine" in about else [])])


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "nbsvm": ("imdb.json", nbsvm),
    "imdb": ("imdb.json", imdb),
    "imdb_gains": ("imdb.json", imdb_gains),
    "imdb_conditions": ("imdb.json", imdb_conditions),
    "imdb_quick": ("imdb_quick.json", imdb_quick),
    "imdb_quick_gains": ("imdb_quick.json", imdb_gains),
    "imdb_quick_conditions": (
        "imdb_quick.json",
        imdb_quick_conditions,
    ),
}
