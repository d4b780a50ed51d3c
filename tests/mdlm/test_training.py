"""Training learns, stops and goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guardkit_mdlm.config import PRESETS, MdlmConfig
from guardkit_mdlm.scoring import load
from guardkit_mdlm.training import loop
from guardkit_mdlm.training.corpus import Corpus, ahead, steps_of, walk
from guardkit_mdlm.training.loop import CHECKPOINT, LOG
from guardkit_mdlm.training.train import train
from safetensors.torch import load_file

from guardkit import Examples, GuardkitError, TrainingData, TrainingInterrupted, read_config

from .conftest import TINY, make_examples, quiet


def fit(data: TrainingData, out: Path, config: MdlmConfig = TINY, **kwargs: object) -> Path:
    options = {"pretrain": None, "init": None, "resume": False, "device": "cpu", "progress": quiet}
    out.mkdir(exist_ok=True)
    return train(data, config, out, **(options | kwargs))  # type: ignore[arg-type]


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def losses(out: Path) -> dict[tuple[str, int], float]:
    return {(r["stage"], r["step"]): r["loss"] for r in records(out)}


def interrupt_at(step: int):  # type: ignore[no-untyped-def]
    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == step:
            raise TrainingInterrupted("stopped")

    return progress


def test_both_scorers_learn_to_tell_the_classes_apart(folder: Path) -> None:
    held_out = make_examples(60, 9)
    classifier = load(folder, device="cpu", backend="torch")
    for scorer in ("one_pass", "generative"):
        classifier.scorer = scorer
        logits_NC = classifier.score(held_out.texts).logits_NC
        assert (logits_NC.argmax(1) == held_out.labels_N).mean() > 0.95


def ordered(n: int, seed: int) -> Examples:
    """Texts that only the order of their words tells apart: naive Bayes is at chance."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 2, n)
    texts = []
    for label in labels_N:
        filler = list(rng.choice(["one", "two", "three", "four", "five", "six"], 6))
        at = int(rng.integers(0, 6))
        pair = ["dog", "man"] if label else ["man", "dog"]
        texts.append(" ".join([*filler[:at], pair[0], "bites", pair[1], *filler[at:]]))
    return Examples(texts, labels_N, ("dog bites", "man bites"))


def test_both_scorers_learn_what_naive_bayes_cannot(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"epochs": 40.0, "dropout": 0.0, "hidden_dim": 64})
    folder = fit(TrainingData(ordered(256, 1), ordered(40, 2)), tmp_path, config)
    held_out = ordered(100, 3)
    classifier = load(folder, device="cpu", backend="torch")
    for scorer in ("one_pass", "generative"):
        classifier.scorer = scorer
        logits_NC = classifier.score(held_out.texts).logits_NC
        assert (logits_NC.argmax(1) == held_out.labels_N).mean() > 0.9, scorer


@pytest.mark.parametrize("step", [1, 6])
def test_an_interrupted_run_resumes_to_the_same_losses_and_weights(
    data: TrainingData, folder: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(TrainingInterrupted):
        fit(data, tmp_path, progress=interrupt_at(step))
    assert (tmp_path / CHECKPOINT).is_file()
    resumed = fit(data, tmp_path, resume=True)
    assert losses(tmp_path) == losses(folder.parent)
    undisturbed, again = (
        load_file(folder / "model.safetensors"),
        load_file(resumed / "model.safetensors"),
    )
    assert undisturbed.keys() == again.keys()
    assert all(torch.equal(undisturbed[name], again[name]) for name in again)


def test_a_run_killed_between_checkpoints_redoes_the_steps_since_the_last(
    data: TrainingData, folder: Path, tmp_path: Path
) -> None:
    def die(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 7 and stage == "train":
            raise MemoryError  # nothing is saved on the way out, as with kill -9

    with pytest.raises(MemoryError):
        fit(data, tmp_path, progress=die)
    fit(data, tmp_path, resume=True)
    assert losses(tmp_path) == losses(folder.parent)


def test_text_without_labels_trains_first_and_resumes(data: TrainingData, tmp_path: Path) -> None:
    text = Examples(data.train.texts, np.full(len(data.train), -1), data.label_names)
    with pytest.raises(TrainingInterrupted):
        fit(data, tmp_path, pretrain=text, progress=interrupt_at(2))
    fit(data, tmp_path, pretrain=text, resume=True)
    stages = [stage for stage, _ in losses(tmp_path)]
    assert stages == sorted(stages)  # pretrain, then train, and never back
    assert set(stages) == {"pretrain", "train"}


def test_what_stages_took_is_known_after_an_interruption(
    data: TrainingData, tmp_path: Path
) -> None:
    text = Examples(data.train.texts, np.full(len(data.train), -1), data.label_names)
    whole = read_config(fit(data, tmp_path / "whole", pretrain=text)).training["stages"]
    with pytest.raises(TrainingInterrupted):
        fit(data, tmp_path / "parts", pretrain=text, progress=interrupt_at(2))
    parts = read_config(fit(data, tmp_path / "parts", pretrain=text, resume=True)).training[
        "stages"
    ]
    for stage in ("pretrain", "train"):
        one, two = whole[stage], parts[stage]
        assert two["steps"] == one["steps"]
        tokens = [report["tokens_per_s"] * report["seconds"] for report in (one, two)]
        assert tokens[1] == pytest.approx(tokens[0])


def test_three_classes_and_unlabelled_rows_train(tmp_path: Path) -> None:
    examples = make_examples(120, 5, ("a", "b", "c"))
    labels_N = examples.labels_N.copy()
    labels_N[::7] = -1
    mixed = Examples(examples.texts, labels_N, examples.label_names)
    folder = fit(TrainingData(mixed, examples), tmp_path)
    assert load(folder, device="cpu", backend="torch").score(["third"]).logits_NC.shape == (1, 3)
    assert read_config(folder).window_pooling == "mean"


def test_the_artefact_holds_plain_data_only(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [
        "background.safetensors", "config.json", "model.safetensors", "remembered.safetensors",
        "tokenizer.json",
    ]  # fmt: skip
    config = read_config(folder)
    assert (config.neutral, config.window_pooling) == ("benign", "max")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_configuration(preset: str) -> None:
    MdlmConfig(**PRESETS[preset])


def test_an_epoch_meets_every_text_within_the_token_budget() -> None:
    ids = [np.arange(n, dtype=np.int32) for n in (0, 1, 5, 24, 25, 200)] * 5
    corpus = Corpus(
        ids, np.zeros(len(ids)), window=24, windows_per_epoch=3, batch_tokens=100, seed=0
    )
    steps = corpus.epoch(0)
    windows = [w for step in steps for w in step]
    counts = np.bincount([text for text, _ in windows])
    assert counts.tolist() == [1, 1, 1, 1, 2, 3] * 5
    for step in steps:
        batch = corpus.batch(step)
        assert batch.ids_BL.numel() <= 100
        assert (batch.real_BL.sum(1) == torch.tensor([min(24, len(ids[t])) for t, _ in step])).all()
    assert steps_of(corpus, 2.5) == round(2.5 * len(steps))


def test_a_walk_from_the_middle_meets_the_same_batches() -> None:
    ids = [np.full(3, n, np.int32) for n in range(40)]
    corpus = Corpus(ids, np.zeros(40), window=8, windows_per_epoch=1, batch_tokens=40, seed=0)
    whole, late = walk(corpus, 0), walk(corpus, 5)
    first = [next(whole).ids_BL for _ in range(12)]
    rest = [next(late).ids_BL for _ in range(7)]
    assert all(torch.equal(a, b) for a, b in zip(first[5:], rest, strict=True))


def test_what_is_made_ahead_is_the_same_in_the_same_order() -> None:
    assert list(ahead(iter(range(1, 8)))) == list(range(1, 8))
    assert list(ahead(iter([]))) == []


def test_what_fails_ahead_fails_where_it_is_used() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second"):
        next(items)


def test_nothing_is_made_once_nobody_asks() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        while True:
            made.append(1)
            yield len(made)

    items = ahead(count(), 2)
    assert [next(items), next(items)] == [1, 2]
    items.close()
    assert len(made) <= 4


def test_importing_the_plugin_imports_no_torch() -> None:
    code = "import sys, guardkit_mdlm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_loss_that_is_no_number_ends_the_run_with_what_to_do(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = loop.joint_loss

    def overflow(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, measures = inner(*given)
        return loss * torch.inf, measures

    monkeypatch.setattr(loop, "joint_loss", overflow)
    with pytest.raises(GuardkitError, match=r"diverged: loss inf at step 0 .* smaller rates"):
        fit(data, tmp_path)
