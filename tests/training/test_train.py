"""The train flow: what each text may be used for, and how a run ends or is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field

from guardkit.errors import ArtefactError, ConfigError, DataError, TrainingInterrupted
from guardkit.model import artefact, loaded
from guardkit.model.artefact import ArtefactConfig, read_config
from guardkit.model.loaded import load_model
from guardkit.training import train
from guardkit.training.train import Recipe, TrainResult, train_model
from guardkit.types import Examples, RawScores, TrainingData
from tests.support.fake_models import plugins_of


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(3, ge=1)
    loud: bool = False


class CountingFamily:
    """Its score of "spam" is how often the word stands in the text."""

    name = "counting"
    summary = "counts a word"
    config = Options
    presets: Mapping[str, Mapping[str, Any]] = {"big": {"size": 9}}
    builtin: Path | None = None

    def __init__(self) -> None:
        self.seen: list[TrainingData] = []
        self.pretrain: Examples | None = None
        self.resumed: list[bool] = []
        self.interrupt = False
        self.knows_novelty = False

    def train(self, data: TrainingData, config: Options, out: Path, **how: Any) -> Path:
        self.seen.append(data)
        self.pretrain = how["pretrain"]
        self.resumed.append(how["resume"])
        how["progress"]("train", 1, 1)
        if self.interrupt:
            (out / "checkpoint.json").write_text("{}")
            raise TrainingInterrupted("stopped")
        folder = out / "artefact"
        folder.mkdir(exist_ok=True)
        content = ArtefactConfig(
            family="counting", labels=list(data.label_names), network={"size": config.size}
        )
        artefact.write_json(folder / artefact.CONFIG, content)
        return folder

    def load(self, path: Path, *, device: str, backend: str) -> CountingClassifier:
        labels = tuple(read_config(path).labels)
        return CountingClassifier(labels, knows_novelty=self.knows_novelty)


class CountingClassifier:
    id = "counting"

    def __init__(self, labels: tuple[str, ...], *, knows_novelty: bool = False) -> None:
        self.labels, self.knows_novelty = labels, knows_novelty

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        logits_NC = np.zeros((len(texts), len(self.labels)), np.float32)
        logits_NC[:, -1] = [2.0 * t.split().count("spam") - 1 for t in texts]
        ones = np.ones(len(texts), np.int64)
        strange_N = None
        if novelty and self.knows_novelty:
            strange_N = np.array([len(t) for t in texts], np.float32)
        return RawScores(logits_NC, ones, ones, np.zeros(len(texts), bool), strange_N)


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> CountingFamily:
    family = CountingFamily()
    for module in (train, loaded):
        monkeypatch.setattr(module, "installed_plugins", lambda: plugins_of(family))
    return family


def write(path: Path, rows: Sequence[tuple[str, str | None]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
    path.write_text("".join(lines))
    return path


def rows(prefix: str, n: int) -> list[tuple[str, str | None]]:
    ham = [(f"{prefix} letter number {i}", "ham") for i in range(n)]
    return ham + [(f"{prefix} spam spam number {i}", "spam") for i in range(n)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, n in (("train", 30), ("validation", 20), ("test", 10)):
        write(tmp_path / "data" / f"{split}.jsonl", rows(split, n))
    return tmp_path / "data"


def quiet(stage: str, done: int, total: int, note: str = "") -> None:
    """A progress callback that shows nothing."""


def run(data: str | Path, out: Path, **changes: Any) -> TrainResult:
    how = {name: changes.pop(name) for name in ("resume",) if name in changes}
    recipe = Recipe("counting", str(data), **changes)
    result = train_model(recipe, out, device="cpu", progress=quiet, **how)
    assert result is not None
    return result


def test_where_the_family_gives_a_novelty_it_is_fitted_on_the_calibration_set(
    family: CountingFamily, folder: Path, tmp_path: Path
) -> None:
    family.knows_novelty = True
    calibration = write(tmp_path / "calibration.jsonl", rows("held out", 30))
    model = load_model(run(folder, tmp_path / "model", calibration_data=str(calibration)).path)
    assert model.novelty is not None
    assert model.calibration is not None
    assert model.novelty.data == model.calibration.data
    lengths = sorted(len(text) for text, _ in rows("held out", 30))
    assert model.novelty.scores == lengths
    scored = model.score(["short", "x" * 500], novelty=True)
    assert model.novelty_p_values(scored).tolist() == [1.0, 1 / 61]


def test_a_trained_model_is_calibrated_measured_and_sealed(
    family: CountingFamily, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    result = run(folder, out)
    assert result.path == out
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md", "SHA256SUMS", "calibration.json", "config.json", "metrics.json",
    ]  # fmt: skip
    model = load_model(out)  # its hashes hold
    p = model.probabilities(["a letter", "spam spam"])[:, model.labels.index("spam")]
    assert p[0] < 0.3 < 0.7 < p[1]
    assert result.metrics["test"]["metrics"]["roc_auc"]["value"] == 1.0
    assert "| test | 20 |" in (out / artefact.CARD).read_text()
    assert not out.with_name("model.partial").exists()


def test_unlabelled_text_is_for_pretraining_and_never_what_is_tested(
    family: CountingFamily, folder: Path, tmp_path: Path
) -> None:
    write(folder / "train.jsonl", [*rows("train", 30), ("no label", None)])
    more = write(tmp_path / "more.jsonl", [("more text", None), ("test letter number 1", None)])
    run(folder, tmp_path / "model", pretrain_data=str(more))
    assert family.pretrain is not None
    assert sorted(family.pretrain.texts) == ["more text", "no label"]
    assert (family.seen[0].train.labels_N >= 0).all()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_label_without_examples_is_found_before_any_training(
    family: CountingFamily, folder: Path, tmp_path: Path, split: str
) -> None:
    write(folder / f"{split}.jsonl", [(f"only letter {i}", "ham") for i in range(20)])
    with pytest.raises(DataError, match=r"no example labelled 'spam' to (train|calibrate) on"):
        run(folder, tmp_path / "model")
    assert not family.seen


def test_an_interrupted_run_is_resumed_or_refused(
    family: CountingFamily, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    with pytest.raises(ArtefactError, match="no run to resume"):
        run(folder, out, resume=True)
    family.interrupt = True
    with pytest.raises(TrainingInterrupted):
        run(folder, out)
    assert not out.exists()
    family.interrupt = False
    with pytest.raises(ArtefactError, match="--resume goes on from"):
        run(folder, out)
    with pytest.raises(ArtefactError, match="started with other options"):
        run(folder, out, resume=True, overrides={"size": "4"})
    write(folder / "train.jsonl", rows("changed", 30))
    with pytest.raises(ArtefactError, match="started with other train"):
        run(folder, out, resume=True)
    write(folder / "train.jsonl", rows("train", 30))
    run(folder, out, resume=True)
    assert family.resumed == [False, True]
    with pytest.raises(ArtefactError, match="exists already"):
        run(folder, out)


def test_a_run_that_the_family_refuses_leaves_nothing_behind(
    family: CountingFamily, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(data: TrainingData, config: Options, out: Path, **how: Any) -> Path:
        raise ConfigError("init 'x': cannot be started from")

    monkeypatch.setattr(family, "train", refuse)
    with pytest.raises(ConfigError, match="cannot be started from"):
        run(folder, tmp_path / "model", init="x")
    assert not tmp_path.joinpath("model.partial").exists()


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ConfigError("no such size")])
@pytest.mark.parametrize("named", [True, False], ids=["checkpoints have a name", "they have none"])
def test_a_run_that_fails_before_a_checkpoint_is_not_in_the_way_of_the_corrected_one(
    error: Exception, named: bool, family: CountingFamily, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(data: TrainingData, config: Options, out: Path, **how: Any) -> Path:
        if named:
            (out / "tokenizer.json").write_text("{}")
        raise error

    if named:
        monkeypatch.setattr(family, "checkpoint", "checkpoint.json", raising=False)
    with monkeypatch.context() as patched:
        patched.setattr(family, "train", fail)
        with pytest.raises(type(error)):
            run(folder, tmp_path / "model", overrides={"size": "4"})
    assert not tmp_path.joinpath("model.partial").exists()
    run(folder, tmp_path / "model")
    assert family.resumed == [False]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_a_checkpoint_is_begun_anew(
    resume: bool, family: CountingFamily, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(family, "checkpoint", "checkpoint.json", raising=False)
    partial = tmp_path / "model.partial"
    (partial / "inside").mkdir(parents=True)
    (partial / "run.json").write_text('{"options": "others"}')
    (partial / "tokenizer.json").write_text("of other texts")
    run(folder, tmp_path / "model", resume=resume)
    assert family.resumed == [False]
    assert not partial.exists()


def test_a_failed_run_keeps_its_checkpoint(
    family: CountingFamily, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: TrainingData, config: Options, out: Path, **how: Any) -> Path:
        (out / "label").mkdir()
        (out / "label" / "checkpoint.json").write_text("{}")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(family, "checkpoint", "checkpoint.json", raising=False)
    with monkeypatch.context() as patched:
        patched.setattr(family, "train", fail)
        with pytest.raises(RuntimeError):
            run(folder, tmp_path / "model")
    with pytest.raises(ArtefactError, match="--resume goes on from"):
        run(folder, tmp_path / "model")
    run(folder, tmp_path / "model", resume=True)
    assert family.resumed == [True]


@pytest.mark.parametrize(
    ("name", "words"),
    [("onnx/model.onnx", "put its files beside config.json"), ("weights.pkl", "may hold code")],
)
def test_what_no_model_may_hold_is_refused_before_any_text_is_scored(
    family: CountingFamily, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    train = family.train

    def leaving(*args: Any, **how: Any) -> Path:
        model = train(*args, **how)
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"")
        return model

    monkeypatch.setattr(family, "train", leaving)
    monkeypatch.setattr(family, "load", None)  # which scoring would call
    with pytest.raises(ArtefactError, match=words):
        run(folder, folder.parent / "model")


def test_two_runs_never_make_one_model(
    family: CountingFamily, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = family.train

    def train_twice(data: TrainingData, config: Options, out: Path, **how: Any) -> Path:
        monkeypatch.setattr(family, "train", first)
        with pytest.raises(ArtefactError, match="another run is writing model"):
            run(folder, tmp_path / "model")
        return first(data, config, out, **how)

    monkeypatch.setattr(family, "train", train_twice)
    run(folder, tmp_path / "model")
    assert (tmp_path / "model" / artefact.SUMS).is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "huge"}, "'huge': counting has big"),
        ({"overrides": {"sise": "3"}}, "sise: no such option; counting has size, loud"),
        ({"overrides": {"size": "many"}}, "size: .*'many'"),
        ({"overrides": {"size": "0", "loud": "perhaps"}}, "(?s)size.*loud"),
        ({"config_file": Path("absent.yaml")}, "absent.yaml: No such file"),
        ({"card": Path("absent.md")}, "absent.md: cannot be read"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(
    family: CountingFamily, folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(folder, tmp_path / "model", **changes)
    assert not tmp_path.joinpath("model.partial").exists()


def test_the_card_opens_with_what_its_author_states(
    family: CountingFamily, folder: Path, tmp_path: Path
) -> None:
    statement = tmp_path / "card.md"
    statement.write_text("## Data\n\nLetters of ours.\n")
    run(folder, tmp_path / "stated", card=statement)
    run(folder, tmp_path / "unstated")
    assert "Letters of ours." in (tmp_path / "stated" / artefact.CARD).read_text()
    assert "Not stated" in (tmp_path / "unstated" / artefact.CARD).read_text()


def test_training_notes_at_most_three_shortcuts_and_names_the_command_that_shows_all(
    family: CountingFamily, folder: Path, tmp_path: Path
) -> None:
    def shouted(split: str, n: int) -> list[tuple[str, str | None]]:
        return [
            (f"\n{text.upper()} (100) www.a.org!" if label == "spam" else text, label)
            for text, label in rows(split, n)
        ]

    for split, n in (("train", 60), ("validation", 20)):
        write(folder / f"{split}.jsonl", shouted(split, n))
    lines: list[str] = []
    recipe = Recipe("counting", f"{folder}?text=text&label=label")
    train_model(recipe, tmp_path / "model", device="cpu", progress=quiet, note=lines.append)
    last = lines[-1]
    shortcuts = [line for line in lines if "tells the label" in line]
    assert len(shortcuts) == 3
    assert all("'spam'" in line for line in shortcuts)
    assert last == (
        "120 of 120 texts were looked at; all of it: "
        f"guardkit data audit '{folder}?text=text&label=label'"
    )


def test_training_says_nothing_of_shortcuts_where_there_are_none(
    family: CountingFamily, folder: Path, tmp_path: Path
) -> None:
    same = [(f"letter number {i}", label) for i in range(60) for label in ("ham", "spam")]
    write(folder / "train.jsonl", same)
    lines: list[str] = []
    recipe = Recipe("counting", str(folder))
    train_model(recipe, tmp_path / "model", device="cpu", progress=quiet, note=lines.append)
    assert not any("tells the label" in line or "looked at" in line for line in lines)
