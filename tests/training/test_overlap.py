"""Which sets a model is known to have been made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from guardkit.data.hashes import examples_hash
from guardkit.data.splits import HELD_OUT_SHARE, halve, hold_out, split_by_group
from guardkit.model.artefact import CALIBRATION, METRICS, write_json
from guardkit.training.overlap import use_of
from guardkit.types import Examples

Split = Callable[[Examples], tuple[Examples, Examples]]


def by_hash(share: float, seed: int) -> Split:
    return lambda examples: split_by_group(examples, share, seed=seed)


@pytest.mark.parametrize(
    ("held", "halved"),
    [(hold_out, halve), (by_hash(HELD_OUT_SHARE, 0), by_hash(0.5, 1))],
    ids=["labels counted", "by hash alone, as it was done before"],
)
def test_a_model_is_known_by_its_set_however_the_set_was_divided(
    tmp_path: Path, held: Split, halved: Split
) -> None:
    labels_N = (np.arange(408) >= 400).astype(np.int64)  # so few of one that counting moves some
    examples = Examples([f"text {i}" for i in range(408)], labels_N, ("ham", "spam"))
    rest, held_out = held(examples)
    validation, calibration = halved(held_out)
    for part, use, said in (
        (examples, "train", "trained on"),
        (rest, "train", "trained on"),
        (validation, "validation", "stopped early by"),
        (calibration, "calibration", "calibrated on"),
        (halved(examples)[1], "calibration", "calibrated on"),
    ):
        known = examples_hash(part)
        write_json(tmp_path / METRICS, {"data": {use: known}})
        write_json(tmp_path / CALIBRATION, {"data": known if use == "calibration" else "0"})
        assert use_of(examples, tmp_path) == said
        assert use_of(examples.select(range(200)), tmp_path) is None
    assert hold_out(examples)[0].texts != by_hash(HELD_OUT_SHARE, 0)(examples)[0].texts
