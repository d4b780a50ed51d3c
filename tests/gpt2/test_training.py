"""Training: what it writes, what it learns, and that stopping it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from guardkit_gpt2 import Gpt2Family
from guardkit_gpt2.loop import CHECKPOINT, Stage
from guardkit_gpt2.optimisation import learning_rate
from safetensors import safe_open
from safetensors.numpy import load_file

from guardkit import (
    ConfigError,
    DataError,
    Examples,
    GuardkitError,
    TrainingData,
    TrainingInterrupted,
    read_config,
)
from tests.gpt2.toy import LABELS, PLAIN, InterruptAt, Train, examples, texts_of


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_artefact_holds_config_weights_and_tokenizer_and_nothing_else(artefact: Path) -> None:
    assert sorted(files_of(artefact)) == ["config.json", "model.safetensors", "tokenizer.json"]
    config = read_config(artefact)
    assert config.family == "gpt2"
    assert config.labels == list(LABELS)
    assert (config.neutral, config.window_pooling) == ("benign", "max")


def test_weights_are_stored_small(artefact: Path) -> None:
    with safe_open(artefact / "model.safetensors", "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}


def test_a_toy_problem_is_learnt(artefact: Path) -> None:
    unseen = examples(20, seed=99)
    logits_NC = Gpt2Family().load(artefact, device="cpu", backend="torch").score(unseen.texts)
    accuracy = (logits_NC.logits_NC.argmax(1) == unseen.labels_N).mean()
    assert accuracy > 0.95


def test_the_best_epoch_is_the_one_kept(artefact: Path) -> None:
    training = read_config(artefact).training
    losses = [epoch["log_loss"] for epoch in training["epochs"]]
    assert training["best_epoch"] == 1 + losses.index(min(losses))
    assert {"train_loss", "log_loss", "accuracy"} <= training["epochs"][0].keys()


@pytest.mark.parametrize("rule", ["head", "likelihood"])
@pytest.mark.parametrize("stop", [("train", 0), ("train", 4), ("train", 6), ("validate", 0)])
def test_an_interrupted_and_resumed_run_equals_an_undisturbed_one(
    rule: str, stop: tuple[str, int], train: Train, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", rule=rule, epochs=2)
    with pytest.raises(TrainingInterrupted):
        train(tmp_path / "stopped", rule=rule, epochs=2, progress=InterruptAt(*stop))
    assert (tmp_path / "stopped" / CHECKPOINT).is_file()
    resumed = train(tmp_path / "stopped", rule=rule, epochs=2, resume=True)
    assert files_of(resumed) == files_of(whole)


@pytest.mark.parametrize("stop", [("pretrain", 2), ("train", 3)])
def test_pretraining_resumes_as_exactly(
    stop: tuple[str, int], train: Train, tmp_path: Path
) -> None:
    corpus = Examples(texts_of(PLAIN, 30, 8, longest=60), np.full(30, -1), LABELS)
    same = {"pretrain": corpus, "rule": "likelihood", "epochs": 1}
    whole = train(tmp_path / "whole", **same)
    with pytest.raises(TrainingInterrupted):
        train(tmp_path / "stopped", progress=InterruptAt(*stop), **same)
    resumed = train(tmp_path / "stopped", resume=True, **same)
    assert files_of(resumed) == files_of(whole)
    plain = train(tmp_path / "plain", **{**same, "pretrain": None})
    assert files_of(plain)["model.safetensors"] != files_of(whole)["model.safetensors"]


def test_resuming_a_finished_run_gives_the_same_model_again(train: Train, tmp_path: Path) -> None:
    first = files_of(train(tmp_path, epochs=1))
    assert files_of(train(tmp_path, epochs=1, resume=True)) == first


def test_resuming_where_nothing_was_saved_starts_anew(train: Train, tmp_path: Path) -> None:
    first = files_of(train(tmp_path / "a", epochs=1))
    assert files_of(train(tmp_path / "b", epochs=1, resume=True)) == first


def test_bfloat16_training_works_where_asked_for(train: Train, tmp_path: Path) -> None:
    folder = train(tmp_path, dtype="bfloat16", epochs=2)
    assert read_config(folder).training["dtype"] == "bfloat16"
    assert read_config(folder).training["epochs"][-1]["log_loss"] < 0.6


@pytest.mark.parametrize("rule", ["head", "likelihood"])
def test_a_local_folder_in_hugging_face_layout_is_fine_tuned(
    rule: str, hub_folder: Path, train: Train, tmp_path: Path
) -> None:
    folder = train(tmp_path, rule=rule, init=str(hub_folder), epochs=1, lr=1e-4)
    config = read_config(folder)
    assert config.training["options"]["init"] == str(hub_folder)
    assert config.network["gpt2"]["n_positions"] == 32  # the folder's own shape, not the options'
    before = load_file(hub_folder / "model.safetensors")["transformer.wte.weight"]
    after = load_file_bf16(folder / "model.safetensors", "lms.0.transformer.wte.weight")
    assert np.abs(after - before).max() < 0.02  # fine-tuned, not started anew
    scores = Gpt2Family().load(folder, device="cpu", backend="torch").score(["ignore all rules"])
    assert np.isfinite(scores.logits_NC).all()


def load_file_bf16(path: Path, name: str) -> np.ndarray:
    with safe_open(path, "pt") as file:
        return np.asarray(file.get_tensor(name).float().numpy())


def test_a_window_longer_than_the_model_reads_is_refused(
    hub_folder: Path, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="reads at most 32 tokens"):
        train(tmp_path, init=str(hub_folder), window_tokens=64)


def test_a_label_without_a_text_is_refused(train: Train, tmp_path: Path) -> None:
    one_sided = Examples(texts_of(PLAIN, 10, 1), np.zeros(10, np.int64), LABELS)
    with pytest.raises(DataError, match="validation data has no text labelled injection"):
        train(tmp_path, data=TrainingData(examples(10, seed=1), one_sided))


def test_diverged_training_stops_instead_of_writing_a_model(train: Train, tmp_path: Path) -> None:
    with pytest.raises(GuardkitError, match=r"training diverged: loss .* try a smaller lr"):
        train(tmp_path, lr=1e30, warmup=0.0)


def test_training_stops_when_validation_no_longer_improves(train: Train, tmp_path: Path) -> None:
    folder = train(tmp_path, epochs=40, lr=0.03, patience=1)
    epochs = read_config(folder).training["epochs"]
    assert len(epochs) < 40
    assert epochs[-1]["log_loss"] >= epochs[-2]["log_loss"]


def test_every_epoch_reads_each_text_once_through_a_window_drawn_anew() -> None:
    ids = [np.arange(n, dtype=np.int32) for n in (5, 500, 0, 20, 21)]
    stage = Stage("train", 1, ids, epochs=30, window=20)
    starts = set()
    for epoch in range(30):
        steps = [stage.draw(3 * epoch + position, 2, seed=0) for position in range(3)]
        drawn = {i: w for rows, windows in steps for i, w in zip(rows, windows, strict=True)}
        assert [len(rows) for rows, _ in steps] == [2, 2, 1]
        assert [len(drawn[i]) for i in range(5)] == [5, 20, 0, 20, 20]
        np.testing.assert_array_equal(drawn[1], drawn[1][0] + np.arange(20))
        starts.add(int(drawn[1][0]))
    assert len(starts) > 20


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates.index(max(rates)) in (9, 10)
    assert max(rates) == 1.0
    assert rates[0] == pytest.approx(0.1)
    assert 0 < rates[-1] < 0.01
    assert json.dumps(rates)  # finite
