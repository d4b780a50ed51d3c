"""Examples of one label and a model: adapted, measured before and after, or not written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from guardkit.cli.main import main
from guardkit.errors import ArtefactError, DataError, PluginError
from guardkit.model import artefact
from guardkit.model.loaded import load_model
from guardkit.plugins import Plugins
from guardkit.training import over_defence
from guardkit.training.adapt import OverDefence, adapt_model
from guardkit.training.train import Recipe, train_model
from guardkit.types import Adapted, BeforeAfter, Examples, Progress
from tests.support.fake_models import FakeFamily, plugins_of, write_model

NEW = ["new attack one", "new attack two", "new attack three", "odd one out"]
#: Held-out texts: three benign ones, and attacks of two sources.
LABELS_N = np.array([0, 0, 0, 1, 1, 1])
SOURCES = ["b", "b", "b", "old", "old", "older"]
BEFORE = [-3.0, -2.0, 0.5, 4.0, -1.0, 2.0]
AFTER = [-3.0, -2.5, 0.4, 4.0, 1.0, 2.0]


def logits(odds: list[float]) -> np.ndarray:
    return np.array([[0.0, z] for z in odds], np.float32)


class Options(BaseModel):
    """None."""


class Adaptable(FakeFamily):
    """Finds old attacks; "new" is found by the adapted model alone, which may be ``alarmed``."""

    config = Options
    alarmed = False

    def adapt(
        self, base: Path, examples: Examples, out: Path, *, device: str, progress: Progress
    ) -> Adapted:
        self.asked = examples
        progress("measure", 1, 1)
        folder = out / "artefact"
        shutil.copytree(base, folder, ignore=shutil.ignore_patterns(artefact.SUMS))
        tokens = np.ones(6, np.int64)
        new = [-1.0] * len(examples), [2.0] * (len(examples) - 1) + [-1.0]
        ones = np.ones(len(examples), np.int64)
        return Adapted(
            folder,
            BeforeAfter(logits(BEFORE), logits(AFTER), tokens, LABELS_N, SOURCES),
            BeforeAfter(logits(new[0]), logits(new[1]), ones, ones),
        )

    def train(self, *_: Any, **__: Any) -> Path:
        raise RuntimeError("an ordinary training")


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adaptable:
    def answer(model: str, text: str) -> tuple[float, float]:
        found = "old attack" in text or (model != "base" and ("new" in text or family.alarmed))
        return (0.0, 3.0) if found else (0.0, -3.0)

    family = Adaptable(answer)
    plugins: Plugins = plugins_of(family)
    for module in ("guardkit.model.loaded", "guardkit.training.train", "guardkit.training.adapt"):
        monkeypatch.setattr(f"{module}.installed_plugins", lambda: plugins)
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "base", neutral="benign", window_pooling="max")
    (tmp_path / "base" / artefact.CARD).write_text("# base\n")
    (tmp_path / "base" / artefact.SUMS).unlink()
    artefact.seal(tmp_path / "base")
    write_examples("few.jsonl", NEW)
    return family


def write_examples(name: str, texts: list[str], label: str = "injection") -> None:
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text in texts]
    Path(name).write_text("".join(lines))


def run(data: str = "few.jsonl", **options: Any) -> Mapping[str, Any]:
    return adapt_model("base", data, Path("out"), device="cpu", progress=lambda *_: None, **options)


def test_the_model_is_adapted_measured_and_published(family: Adaptable) -> None:
    report = run()
    assert list(family.asked.texts) == NEW
    shares = {name: (row["n"], row["before"]["value"], row["after"]["value"])
              for name, row in report["shares"].items()}  # fmt: skip
    assert shares == {
        "new examples, each scored without itself": (4, 0.0, 0.75),
        "held out: benign": (3, 1 / 3, 1 / 3),
        "held out: injection": (3, 2 / 3, 1.0),
        "held out: injection, old": (2, 0.5, 1.0),
        "held out: injection, older": (1, 1.0, 1.0),
    }
    model = load_model("out")
    artefact.verify(model.path)
    assert model.probabilities(["a new kind"])[0, 1] > 0.9
    (step,) = model.config.training["adapted"]
    assert step["label"] == "injection"
    assert step["examples"] == 4
    assert step["base"] == load_model("base").hash
    stored = json.loads((model.path / artefact.METRICS).read_text())
    assert stored["adapted"] == [json.loads(json.dumps(report))]
    card = (model.path / artefact.CARD).read_text()
    assert card.startswith("# base\n\n## Adapted\n")
    assert "| held out: injection, old | 2 | 50.0% | 100.0% |" in card
    assert not Path("out.partial").exists()


def test_shares_at_one_percent_use_the_threshold_of_the_model_as_it_was(
    family: Adaptable,
) -> None:
    row = run()["shares"]["held out: injection"]
    threshold = np.quantile(BEFORE[:3], 0.99)
    assert row["before_at_fpr"]["value"] == np.mean(np.array(BEFORE[3:]) > threshold)
    assert row["after_at_fpr"]["value"] == np.mean(np.array(AFTER[3:]) > threshold)


def test_a_model_that_flags_too_many_benign_texts_is_not_written(family: Adaptable) -> None:
    family.alarmed = True
    with pytest.raises(DataError, match=r"not written: .* calls 100.0% of \d+ texts 'injection'"):
        run()
    assert not Path("out").exists()
    assert not Path("out.partial").exists()
    found = run(over_defence=OverDefence(at_most=1.0))["over_defence"]
    assert found["n"] == len(over_defence.bundled()) >= 300
    assert (found["before"]["value"], found["after"]["value"]) == (0.0, 1.0)


def test_the_texts_it_must_let_pass_can_be_ones_own(family: Adaptable) -> None:
    Path("mine.jsonl").write_text('{"text": "a new letter"}\n{"text": "a letter"}\n')
    with pytest.raises(DataError, match=r"50.0% of 2 texts 'injection' \(mine.jsonl\), 40.0%"):
        run(over_defence=OverDefence("mine.jsonl", 0.4))
    run(over_defence=OverDefence("mine.jsonl", 0.5))
    assert Path("out").is_dir()


def test_examples_of_what_is_harmless_need_no_such_texts(family: Adaptable) -> None:
    write_examples("few.jsonl", NEW, "benign")
    assert "over_defence" not in run()


def test_what_is_wrong_with_the_examples_or_the_folder_is_said(family: Adaptable) -> None:
    write_examples("other.jsonl", NEW, "spam")
    with pytest.raises(DataError, match="has no label 'spam'; it has benign, injection"):
        run("other.jsonl")
    Path("out").mkdir()
    with pytest.raises(ArtefactError, match="out: exists already"):
        run()


def test_examples_of_several_labels_are_not_adapted_to(family: Adaptable) -> None:
    rows = [{"text": f"text {i}", "label": ("benign", "injection")[i % 2]} for i in range(4)]
    Path("both.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(DataError, match=r"both.jsonl: examples of 2 labels \(benign, injection\)"):
        run("both.jsonl")
    assert "label" in run("both.jsonl?where=label:injection")


def test_a_family_that_adapts_no_models_is_named(
    family: Adaptable, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = FakeFamily(lambda model, text: (0.0, 0.0))
    for module in ("guardkit.model.loaded", "guardkit.training.adapt"):
        monkeypatch.setattr(f"{module}.installed_plugins", lambda: plugins_of(plain))
    with pytest.raises(PluginError, match="base: plugin 'fake' adapts no models"):
        run()


def test_what_fails_leaves_nothing_behind(
    family: Adaptable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(base: Path, examples: Examples, out: Path, **how: Any) -> Adapted:
        (out / "half").write_text("done")
        raise RuntimeError("out of memory")

    before = sorted(Path().iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(family, "adapt", failing)
        with pytest.raises(RuntimeError):
            run()
    assert sorted(Path().iterdir()) == before
    run()


def train(init: str | None) -> None:
    recipe = Recipe("fake", "few.jsonl", init=init)
    train_model(recipe, Path("new model"), device="cpu", progress=lambda *_: None)


def test_training_on_one_label_is_refused_with_the_command_that_would_do(
    family: Adaptable,
) -> None:
    one = r"few.jsonl: one label only, injection; two are the least\. .*'injection'.*: "
    with pytest.raises(
        DataError, match=one + "guardkit adapt base --data few.jsonl --out 'new model'$"
    ):
        train("base")
    with pytest.raises(DataError, match=one + "guardkit adapt MODEL --data few.jsonl"):
        train(None)
    assert not Path("new model.partial").exists()


def test_the_commands_refuse_and_adapt(
    family: Adaptable, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["train", "--plugin", "fake", "--init", "base", "--data", "few.jsonl", "--out", "out"]
    assert main(wrong) == 2
    said = capsys.readouterr().err.strip()
    command = said[said.index("guardkit adapt") :].split()[1:]
    assert main([*command, "--max-over-defence", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "share of texts called 'injection' at probability 0.5" in out
    assert "held out: injection, older" in out
    assert "0.750" in out
    assert "guardkit classify FILE --model out" in out
