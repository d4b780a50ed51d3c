"""Unlabelled reviews with the labels NB-SVM gives them: what an MDLM is taught on besides.

    python -m benchmarks.imdb.teach PATH/TO/imdb  # -> build/imdb/taught: train, validation, test

Self-training across models (Yarowsky, 1995; Lee, 2013): NB-SVM learns from the labelled training
reviews, the unlabelled ones of whose label it is surest join them. How sure is sure enough is read
off the validation reviews. Held-out and test reviews are what they are everywhere else, with
their true labels; an unlabelled review that equals one of them is left out.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import typer

from benchmarks.imdb.scorers import nbsvm
from benchmarks.lib.paths import ROOT
from guardkit.data.examples import load_examples
from guardkit.data.splits import (
    HELD_OUT_SHARE,
    group_names,
    load_data_splits,
    normalised,
    split_by_group,
)
from guardkit.types import UNLABELLED, Examples, FloatArray

TAUGHT = ROOT / "build" / "imdb" / "taught"
#: Of the validation reviews at least as sure, NB-SVM gets 98% right.
SHARE = 0.7


def teach(data: str, out: Path = TAUGHT) -> None:
    """Write the taught training set of DATA and its held-out reviews to OUT."""
    parts = load_data_splits(data, None, None)
    teacher = nbsvm(parts)

    def margin(texts: list[str]) -> FloatArray:
        z_NC, _ = teacher.score(texts)
        return z_NC[:, 1] - z_NC[:, 0]

    held_N = margin(parts.validation.texts)
    floor = float(np.quantile(np.abs(held_N), 1 - SHARE))
    right = ((held_N > 0) == (parts.validation.labels_N == 1))[np.abs(held_N) >= floor].mean()

    taken = {normalised(t) for part in (parts.train, parts.validation, parts.calibration)
             for t in part.texts}  # fmt: skip
    taken |= {normalised(t) for t in parts.test.texts} if parts.test else set()
    unlabelled = load_examples(data, need_labels=False)["unsup"]
    new: list[int] = []
    for i, text in enumerate(unlabelled.texts):
        if (key := normalised(text)) not in taken:
            taken.add(key)
            new.append(i)
    unlabelled = unlabelled.select(new)
    z_N = margin(unlabelled.texts)
    sure = unlabelled.select(np.flatnonzero(np.abs(z_N) >= floor))
    given = (z_N[np.abs(z_N) >= floor] > 0).astype(int)
    print(
        f"NB-SVM is sure of {len(sure):,} of {len(unlabelled):,} unlabelled reviews; of validation "
        f"reviews as sure it gets {right:.1%} right; it calls {given.mean():.1%} positive"
    )

    labelled = load_examples(data)["train"]
    labelled = labelled.select(np.flatnonzero(labelled.labels_N != UNLABELLED))
    _, held_out = split_by_group(labelled, HELD_OUT_SHARE, seed=0)
    names = parts.train.label_names
    train = pd.concat([_table(parts.train), _table(sure, [names[y] for y in given])])
    out.mkdir(parents=True, exist_ok=True)
    train.to_parquet(out / "train.parquet")
    _table(held_out).to_parquet(out / "validation.parquet")
    shutil.copyfile(Path(data) / "test.parquet", out / "test.parquet")
    written = load_data_splits(str(out), None, None)
    for part in ("validation", "calibration", "test"):
        assert getattr(written, part).texts == getattr(parts, part).texts, part


def _table(examples: Examples, labels: list[str] | None = None) -> pd.DataFrame:
    own = [examples.label_names[y] for y in examples.labels_N] if labels is None else labels
    return pd.DataFrame({"text": examples.texts, "label": own, "movie": group_names(examples)})


if __name__ == "__main__":
    typer.run(teach)
