"""Make what a GPU machine left into a model of the repository and stored results.

    python -m benchmarks.gpu.collect OUT PATH/TO/imdb  # -> benchmarks/artefacts/imdb-mdlm

Joins the parts that run.py left in OUT, calibrates and measures the model here (the numbers of
``guardkit evaluate`` are those of the machine it runs on), and stores benchmarks/results/gpu.json.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import typer

from benchmarks.gpu import archive
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import commit
from guardkit.cli.progress import shown_progress
from guardkit.data.splits import load_data_splits
from guardkit.training.finish import finish_model

STORED = ROOT / "benchmarks" / "results" / "gpu.json"
ARTEFACT = ROOT / "benchmarks" / "artefacts" / "imdb-mdlm"


def main(
    out: Path, imdb: str, model: Path = ARTEFACT, card: Path | None = None, results: Path = STORED
) -> None:
    """OUT is what was taken home; MODEL the folder to make; CARD Markdown that opens its card."""
    record = json.loads((out / "results.json").read_text("utf-8"))
    if "train" not in record["done"]:
        raise typer.BadParameter(
            f"{out}: training had not ended; run.py --restart {out} goes on from its weights, on "
            "any machine"
        )
    model.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".collect.") as work:
        archive.join(record["parts"], out, Path(work))
        _publish(Path(work) / "artefact", model, imdb, card, record["data"]["hashes"])
    seconds = sum(record["train"]["seconds"].values())
    run = {"seconds": seconds, "machine": record["machine"]["device"], "commit": commit()}
    training = {"command": f"python {record['script']}", "runs": [run]}
    _write(model.with_name(f"{model.name}.training.json"), training)
    _write(results, {key: value for key, value in record.items() if key not in ("parts", "done")})


def _publish(
    folder: Path, model: Path, imdb: str, card: Path | None, hashes: dict[str, str]
) -> None:
    split = load_data_splits(imdb, None, None)
    with shown_progress() as progress:
        finish_model(
            folder, model,
            calibration=split.calibration,
            measured={"validation": split.validation, "test": split.test},
            data={name: hashes.get(name) for name in ("train", "validation", "pretrain")},
            opening=card.read_text("utf-8") if card else None,
            device="auto", progress=progress,
        )  # fmt: skip


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
