"""Draw the pictures of docs/results from the stored results: python benchmarks/pictures.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "results"
Record = dict[str, Any]


def main() -> None:
    stored = json.loads((RESULTS / "estimators_imdb.json").read_text("utf-8"))
    estimators(stored, PICTURES / "estimators.svg")


def estimators(record: Record, path: Path) -> None:
    """Draw accuracy against evaluations: shared masks on the left, separate ones on the right."""
    matplotlib.use("Agg")
    points = record["curve"]["points"]
    names = list(dict.fromkeys(p["estimator"] for p in points))
    ticks = sorted({p["evaluations"] for p in points})
    # the same file for the same figures; text stays text
    with pyplot.rc_context({"svg.hashsalt": "guardkit", "svg.fonttype": "none"}):
        figure, panels = pyplot.subplots(1, 2, sharey=True, figsize=(9, 4.4), layout="constrained")
        for panel, shared in zip(panels, (True, False), strict=True):
            for number, name in enumerate(names):
                line = [p for p in points if (p["estimator"], p["shared"]) == (name, shared)]
                value, low, high = (
                    100 * np.array([p["accuracy"][k] for p in line])
                    for k in ("value", "low", "high")
                )
                # a little apart, so that intervals do not hide each other
                apart = 1.03 ** (number - (len(names) - 1) / 2)
                x = apart * np.array([p["evaluations"] for p in line])
                error = (value - low, high - value)
                panel.errorbar(x, value, error, label=name, marker="o", ms=4, capsize=2)
            panel.axhline(100 / len(record["labels"]), color="grey", lw=0.8, ls=":")  # chance
            panel.set_xscale("log", base=2)
            panel.set_xticks(ticks, [str(n) for n in ticks])
            panel.set_xlabel("network evaluations per class")
            panel.set_title("masks shared by all classes" if shared else "each class its own masks")
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("accuracy, %")
        lines = panels[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=len(names), frameon=False)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


if __name__ == "__main__":
    main()
