"""Draw the pictures of docs/results from the stored results.

python -m benchmarks.tables.pictures
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.lib.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "results"
Record = dict[str, Any]
#: A value with its interval: keys value, low, high
Value = dict[str, float]
#: What generalisation.json calls a source, and what the picture does.
SOURCES = {
    "test": "test", "test_jackhhao": "jackhhao", "ood_deepset_test": "deepset",
    "ood_safeguard": "safe-guard", "ood_bipia": "BIPIA",
}  # fmt: skip


def main() -> None:
    for name, (results, draw) in DRAWN.items():
        records = [json.loads((RESULTS / each).read_text("utf-8")) for each in results]
        draw(*records, PICTURES / f"{name}.svg")


def estimators(record: Record, path: Path) -> None:
    """Draw accuracy against evaluations: shared masks on the left, separate ones on the right."""
    points = record["curve"]["points"]
    names = list(dict.fromkeys(p["estimator"] for p in points))
    ticks = sorted({p["evaluations"] for p in points})
    with figure(path, 2, sharey=True) as (picture, panels):
        for panel, shared in zip(panels, (True, False), strict=True):
            for number, name in enumerate(names):
                line = [p for p in points if (p["estimator"], p["shared"]) == (name, shared)]
                # a little apart, so that intervals do not hide each other
                apart = 1.03 ** (number - (len(names) - 1) / 2)
                x = apart * np.array([p["evaluations"] for p in line])
                with_intervals(panel, x, [p["accuracy"] for p in line], label=name)
            panel.axhline(100 / len(record["labels"]), color="grey", lw=0.8, ls=":")  # chance
            panel.set_xscale("log", base=2)
            panel.set_xticks(ticks, [str(n) for n in ticks])
            panel.set_xlabel("network evaluations per class")
            panel.set_title("masks shared by all classes" if shared else "each class its own masks")
        panels[0].set_ylabel("accuracy, %")
        legend(picture, panels[0])


def generalisation(record: Record, path: Path) -> None:
    """Draw recall at 1% false positives, a column a source and a colour a detector."""
    detectors = record["detectors"]
    with figure(path, 1, size=(9, 5)) as (picture, (panel,)):
        for number, (name, one) in enumerate(detectors.items()):
            x = np.arange(len(SOURCES)) + 0.7 * (number / (len(detectors) - 1) - 0.5)
            found = [one["sets"][source]["recall"] for source in SOURCES]
            with_intervals(panel, x, found, label=name, ls="none")
        panel.set_xticks(range(len(SOURCES)), list(SOURCES.values()))
        panel.set_ylabel("attacks found at 1% false positives, %")
        legend(picture, panel, columns=3)


def novel_families(record: Record, few_shot: Record, path: Path) -> None:
    """Draw what examples of a new family are worth: to each arm, and to the bundled detector."""
    with figure(path, 2, sharey=True, size=(9, 5)) as (_, panels):
        arms = record["arms"]
        for name, arm in arms.items():
            # their intervals, wide and all in one place, are in the table
            y = [100 * one["value"] for one in arm["recall"]]
            panels[0].plot(np.log2(1 + np.array(arm["n"])), y, marker=".", label=name)
        shots = next(iter(arms.values()))["n"]
        of_examples(panels[0], shots, "each arm, mean of families")
        shots = [one["n"] for one in few_shot["mean"]]
        for family in few_shot["counts"]["families"]:
            drawn = [p for p in few_shot["points"] if p["family"] == family]
            found = [np.mean([p["recall"] for p in drawn if p["n"] == n]) for n in shots]
            shares = 100 * np.array(found)
            panels[1].plot(np.log2(1 + np.array(shots)), shares, "--", marker=".", label=family)
        for name, shown in (("known", "attacks it knew"), ("ood_safeguard", "benign, flagged")):
            values = [one[name] for one in few_shot["mean"]]
            with_intervals(panels[1], np.log2(1 + np.array(shots)), values, label=shown)
        of_examples(panels[1], shots, "the bundled detector, by family of safe-guard")
        panels[0].set_ylabel("attacks found, benign flagged, %")
        for panel in panels:
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)


def evasion(record: Record, path: Path) -> None:
    """Draw recall of each transform, of the raw text alone and of all its readings."""
    rows = sorted(record["transforms"], key=lambda row: row["raw"]["recall"]["value"])
    with figure(path, 1, size=(9, 6)) as (picture, (panel,)):
        for how, shown in (("raw", "raw text alone"), ("also_read", "all readings")):
            found = 100 * np.array([row[how]["recall"]["value"] for row in rows])
            panel.plot(found, range(len(rows)), "o", label=shown)
        for y, row in enumerate(rows):
            ends = [100 * row[how]["recall"]["value"] for how in ("raw", "also_read")]
            panel.plot(ends, [y, y], color="silver", zorder=0)
        panel.axvline(100 * record["recall"]["value"], color="grey", ls=":", label="in plain text")
        panel.set_yticks(range(len(rows)), [row["name"] for row in rows])
        panel.set_xlabel("attacks found, %")
        panel.set_xlim(left=-1)
        legend(picture, panel)


def explanations(record: Record, path: Path) -> None:
    """Draw how far the log-odds of what was flagged fall as pieces are deleted."""
    with figure(path, len(record["models"]), sharey=True) as (picture, panels):
        for panel, (name, model) in zip(panels, record["models"].items(), strict=True):
            rows = [r for r in model["kinds"]["injection"]["rows"] if r["delete"] >= 1]
            for pieces in ("top", "random", "lowest"):
                fallen = [row["drop"][pieces] for row in rows]
                x = np.arange(len(rows))
                with_intervals(panel, x, fallen, scale=1, label=f"{pieces} pieces deleted")
            panel.axhline(0, color="grey", lw=0.8, ls=":")
            panel.set_xticks(range(len(rows)), [str(row["delete"]) for row in rows])
            panel.set_xlabel("pieces deleted")
            panel.set_title(name)
        panels[0].set_ylabel("fall of the log-odds of an attack")
        legend(picture, panels[0])


#: A picture's name, the results that it shows, and what draws it.
DRAWN: dict[str, tuple[Sequence[str], Callable[..., None]]] = {
    "estimators": (["estimators_imdb.json"], estimators),
    "generalisation": (["generalisation.json"], generalisation),
    "novel-families": (["novel_families.json", "few_shot.json"], novel_families),
    "evasion": (["evasion.json"], evasion),
    "explanations": (["explanations.json"], explanations),
}


@contextmanager
def figure(
    path: Path, panels: int, *, sharey: bool = False, size: tuple[float, float] = (9, 4.4)
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """Give a picture of ``panels`` side by side to draw on, and store it as SVG."""
    matplotlib.use("Agg")
    # the same file for the same figures; text stays text
    with pyplot.rc_context({"svg.hashsalt": "guardkit", "svg.fonttype": "none"}):
        picture, drawn = pyplot.subplots(
            1, panels, sharey=sharey, figsize=size, layout="constrained", squeeze=False
        )
        for panel in drawn[0]:
            panel.spines[["top", "right"]].set_visible(False)
        yield picture, list(drawn[0])
        picture.savefig(path, metadata={"Date": None})
        pyplot.close(picture)


def with_intervals(
    panel: Axes, x: Sequence[float] | np.ndarray, values: Sequence[Value], *, scale: float = 100,
    **how: Any,
) -> None:  # fmt: skip
    """Draw ``values``, times ``scale``, with their intervals."""
    value, low, high = (scale * np.array([v[k] for v in values]) for k in ("value", "low", "high"))
    panel.errorbar(x, value, (value - low, high - value), marker="o", ms=4, capsize=2, **how)


def of_examples(panel: Axes, shots: Sequence[int], title: str) -> None:
    panel.set_xticks([float(np.log2(1 + n)) for n in shots], [str(n) for n in shots])
    panel.set_xlabel("examples of the new family")
    panel.set_title(title)
    panel.set_ylim(0, 100)


def legend(picture: Figure, panel: Axes, columns: int | None = None) -> None:
    lines, names = panel.get_legend_handles_labels()
    columns = columns or len(names)
    picture.legend(lines, names, loc="outside lower center", ncols=columns, frameon=False)


if __name__ == "__main__":
    main()
