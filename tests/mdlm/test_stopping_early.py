"""The labelled stage is judged on held-out text: the best weights stay, and it ends in time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from guardkit_mdlm.training.loop import BEST, LOG
from guardkit_mdlm.training.train import train
from safetensors.torch import load_file

from guardkit import Examples, TrainingData, TrainingInterrupted, read_config

from .conftest import TINY, make_examples, quiet


def records(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def fit(data: TrainingData, out: Path, resume: bool = False, progress=quiet, **changes: object):  # type: ignore[no-untyped-def]
    out.mkdir(exist_ok=True)
    config = TINY.model_copy(update=changes)
    return train(
        data, config, out, pretrain=None, init=None, resume=resume, device="cpu", progress=progress
    )


@pytest.fixture
def misleading() -> TrainingData:
    """Held-out labels are the wrong way round: every step of training makes it worse."""
    train, held_out = make_examples(160, 1), make_examples(40, 2)
    wrong = Examples(held_out.texts, 1 - held_out.labels_N, held_out.label_names)
    return TrainingData(train, wrong)


def test_training_ends_once_held_out_text_gains_nothing(
    misleading: TrainingData, tmp_path: Path
) -> None:
    folder = fit(misleading, tmp_path, epochs=20.0, validations=10, patience=2)
    judged = [r for r in records(tmp_path) if "held_out_loss" in r]
    assert len(judged) == 3  # the first is the best, two more were no better
    report = read_config(folder).training["stages"]["train"]
    assert report["best"]["step"] == judged[0]["step"]
    assert report["steps"] == judged[-1]["step"]


def test_the_best_judged_weights_are_what_is_written(
    misleading: TrainingData, tmp_path: Path
) -> None:
    # n-grams, fitted afterwards, would scale the label head
    folder = fit(misleading, tmp_path, epochs=4.0, validations=4, patience=0, ngrams=0)
    best, written = load_file(tmp_path / BEST), load_file(folder / "model.safetensors")
    for name, weights in best.items():
        np.testing.assert_allclose(
            written[name].float().numpy(), weights.float().numpy(), rtol=0.01, atol=1e-3
        )


def test_what_was_judged_before_an_interruption_counts_after_it(
    misleading: TrainingData, tmp_path: Path
) -> None:
    options = {"epochs": 20.0, "validations": 10, "patience": 2, "checkpoint_steps": 1}
    whole = fit(misleading, tmp_path / "whole", **options)
    stop_at = int(read_config(whole).training["stages"]["train"]["best"]["step"]) + 1

    def interrupt(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == stop_at:
            raise TrainingInterrupted("stopped")

    with pytest.raises(TrainingInterrupted):
        fit(misleading, tmp_path / "parts", progress=interrupt, **options)
    resumed = fit(misleading, tmp_path / "parts", resume=True, **options)
    one, two = (read_config(f).training["stages"]["train"] for f in (whole, resumed))
    assert (one["steps"], one["best"]) == (two["steps"], two["best"])


def test_throughput_is_reported_beside_the_machines_own(data: TrainingData, tmp_path: Path) -> None:
    report = read_config(fit(data, tmp_path)).training["stages"]["train"]
    assert 0 < report["flops_per_s"] < report["product_flops_per_s"]
    assert report["tokens_per_s"] > 0
