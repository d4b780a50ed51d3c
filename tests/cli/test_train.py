"""`guardkit train`: its options, and how it is stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from guardkit.cli.main import main
from guardkit.errors import TrainingInterrupted
from guardkit.plugins import Plugins
from tests.support.command_folder import TRAIN, install


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


Call = dict[str, Any]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Replace the training by one that remembers how it was called."""
    from guardkit.training.finish import TrainResult
    from guardkit.training.train import Recipe

    calls: list[Call] = []

    def train_model(recipe: Recipe, out: Path, **options: Any) -> TrainResult:
        calls.append({"out": out, **vars(recipe), **options})
        options["progress"]("train", 1, 2, "loss 0.5")
        metrics = {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.95}}
        return TrainResult(out, {"data": {}, "test": {"n": 1234, "metrics": metrics}})

    monkeypatch.setattr("guardkit.training.train.train_model", train_model)
    return calls


def test_train_passes_its_options_on_and_shows_what_was_measured(
    trained: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--preset", "tiny", "--set", "steps=5", "--set", "note=a=b", "--resume"]
    assert main([*TRAIN, *more, "--init", "model", "--device", "cpu"]) == 0
    (call,) = trained
    assert (call["plugin"], call["data"], call["out"]) == ("fake", "reviews/", Path("new"))
    assert (call["preset"], call["init"], call["device"]) == ("tiny", "model", "cpu")
    assert call["overrides"] == {"steps": "5", "note": "a=b"}
    assert call["resume"] is True
    assert call["config_file"] is call["pretrain_data"] is call["calibration_data"] is None
    out, err = capsys.readouterr()
    assert "test: 1,234 texts" in out
    assert "0.8500 to 0.9500" in out
    assert "guardkit classify FILE --model new" in out
    assert err == "train 1/2 loss 0.5\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_training_between_steps_and_the_second_would_kill(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = []

    def train_model(*_: Any, progress: Any, **__: Any) -> None:
        progress("train", 3, 10)
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
        try:
            progress("train", 4, 10)
        except TrainingInterrupted:
            saved.append(4)
            raise

    monkeypatch.setattr("guardkit.training.train.train_model", train_model)
    before = signal.getsignal(number)
    assert main(TRAIN) == 130
    assert saved == [4]
    assert signal.getsignal(number) == before
    assert capsys.readouterr().err.splitlines()[-1] == (
        "training stopped (train 4 of 10); the same command with --resume goes on from here"
    )


def test_what_training_notes_goes_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_model(*_: Any, note: Any, **__: Any) -> None:
        note("emoji tells the label")

    monkeypatch.setattr("guardkit.training.train.train_model", train_model)
    assert main(TRAIN) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "note: emoji tells the label\n")
